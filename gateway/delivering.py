"""Where finished files are put besides our own store: which places there are, when each is tried again, what it is called there.

Pure. A destination is one of two: a target of the operator's, which clients know by its name alone, or URLs that take a
PUT, one for each output in its order. A job that has one leaves a delivery for each of its outputs in the transaction
that makes it succeed; the file itself stays where it is, and is kept while a delivery of it is pending.

An attempt succeeds with a 2xx. What may pass (408, 425, 429, 5xx, no answer) is tried by the schedule of webhooks. What a
URL refuses is tried ``MAX_REFUSALS`` times only: a presigned URL that is wrong or too old stays so. A target of the
operator's is tried by the whole schedule whatever it says, for its rights can be mended meanwhile.

Source: RFC 9110, sections 9.3.4 (PUT is idempotent: the same bytes again after a crash change nothing) and 15.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from gateway.errors import InvalidInputError
from gateway.job import Job, JobResult
from gateway.outbox import JITTER, MAX_ATTEMPTS, MAX_RETRY_AFTER_SECONDS, SCHEDULE_SECONDS, Again, Dead, Delivered
from gateway.placed import Placed, placed_at

#: Name in a job's ``extra``, and of the field in which clients give it.
FIELD: Final = "deliver_to"
#: URLs that one job may have.
MAX_URLS: Final = 64
#: Attempts at a URL that keeps refusing: the third comes five minutes after the first.
MAX_REFUSALS: Final = 3
#: A name of a target.
NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
MAX_FILE_NAME: Final = 100
_OUTSIDE: Final = re.compile(r"[^A-Za-z0-9._-]")
#: Statuses below 500 that say "later": Request Timeout, Too Early, Too Many Requests.
_LATER: Final = frozenset({408, 425, 429})


class DeliveryState(StrEnum):
    """Where a delivery is."""

    PENDING = "pending"
    DELIVERED = "delivered"
    #: Given up; ``redeliver`` brings it back while the file is kept.
    FAILED = "failed"


class Reason(StrEnum):
    """What came of the last attempt, in one word."""

    #: The place answered; with which status stands beside it.
    ANSWERED = "answered"
    #: No answer could be had. That an address was refused is told to the log alone, as with webhooks.
    UNREACHABLE = "unreachable"
    TIMED_OUT = "timed_out"
    #: The operator has no target of this name (any more).
    NO_TARGET = "no_target"
    #: The job has more outputs than it was given URLs.
    NO_URL = "no_url"
    #: The file is not kept any more.
    EXPIRED = "expired"
    #: Our own fault; the log has the rest.
    INTERNAL = "internal"


class Chosen(StrEnum):
    """Who chose the destination."""

    JOB = "job"
    KEY = "key"
    TEMPLATE = "template"


@dataclass(frozen=True, slots=True)
class Named:
    """A target of the operator's."""

    name: str


@dataclass(frozen=True, slots=True)
class Urls:
    """A URL for each output, in order. They are secrets: presigned ones open what they name to whoever has them."""

    urls: tuple[str, ...]

    def __repr__(self) -> str:
        """Without the URLs, wherever it may be printed."""
        return f"Urls({len(self.urls)})"


Destination: TypeAlias = Named | Urls


@dataclass(frozen=True, slots=True)
class Delivery:
    """One output on its way, as it is stored."""

    id: str
    job_id: str
    owner: str
    #: Place among the job's outputs, from 0.
    position: int
    asset_id: str
    #: What it is called where it goes.
    file_name: str
    #: Of the operator's; None: the job's URL of this position.
    target: str | None
    #: Who is asked: ``host:port``, or ``target:<name>``.
    host: str
    #: Where it is or will be, fit to be shown: no query. None while it goes to a target and is not there yet.
    place: str | None
    state: DeliveryState
    #: Since it was made, or sent again by request.
    attempts: int
    #: Unix seconds, all of them; None unless it is pending.
    next_at: float | None
    created_at: float
    last_at: float | None = None
    last_status: int | None = None
    reason: Reason | None = None

    @property
    def key(self) -> str:
        """Below a target's prefix. The same in every attempt, so that a second one overwrites the first."""
        return key_in_target(self.job_id, self.file_name)


@dataclass(frozen=True, slots=True)
class Upload:
    """One attempt at a URL."""

    #: As the client wrote it; a secret.
    url: str = field(repr=False)
    #: blake3 of the bytes.
    blob: str
    size_bytes: int
    content_type: str
    file_name: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one attempt."""

    reason: Reason
    #: With ANSWERED.
    status: int | None = None
    #: Of the field Retry-After, in seconds.
    retry_after_seconds: float | None = None
    #: With a success: where it is, when that is known only now.
    place: str | None = None

    @property
    def is_success(self) -> bool:
        """Whether it is there."""
        return self.status is not None and 200 <= self.status < 300  # noqa: PLR2004 - what 2xx means

    @property
    def is_fault(self) -> bool:
        """Whether nobody answered: what a breaker counts."""
        return self.reason in {Reason.UNREACHABLE, Reason.TIMED_OUT}

    @property
    def is_refusal(self) -> bool:
        """Whether the place wants it neither now nor, by its own words, later."""
        return self.status is not None and not self.is_success and self.status < 500 and self.status not in _LATER  # noqa: PLR2004

    @property
    def is_final(self) -> bool:
        """Whether no further attempt can do any better."""
        return self.reason in {Reason.NO_TARGET, Reason.NO_URL, Reason.EXPIRED, Reason.INTERNAL}


Verdict: TypeAlias = Delivered | Again | Dead


def judge(delivery: Delivery, answer: Answer, now: float, chance: Callable[[], float]) -> Verdict:
    """What follows from an attempt.

    Args:
        delivery: as it was before it.
        answer: what came of it.
        now: Unix seconds.
        chance: gives a number from 0 to 1.
    """
    if answer.is_success:
        return Delivered()
    made = delivery.attempts + 1
    is_hopeless = answer.is_refusal and delivery.target is None and made >= MAX_REFUSALS
    if answer.is_final or is_hopeless or made >= MAX_ATTEMPTS:
        return Dead()
    delay = SCHEDULE_SECONDS[made] * (1 + JITTER * (2 * chance() - 1))
    wanted = min(answer.retry_after_seconds or 0.0, MAX_RETRY_AFTER_SECONDS)
    return Again(now + max(delay, wanted))


# -------------------------------------------------------------------------------------------------- what a client says


def read_destination(value: object, field: str) -> Destination | None:
    """What a client means: the name of a target, a URL, or a list of URLs; None where nothing is said.

    Whether there is such a target, and whether the URLs may be called, is for others to say.

    Raises:
        InvalidInputError: naming the field.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return Urls((value,)) if "://" in value else Named(checked_name(value, field))
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InvalidInputError(f"{field} is the name of a target, a URL, or a list of URLs.", field=field)
    if not 1 <= len(value) <= MAX_URLS:
        raise InvalidInputError(f"{field} takes 1 to {MAX_URLS} URLs.", field=field)
    return Urls(tuple(value))


def checked_name(text: str, field: str) -> str:
    """A name of a target, as far as its own words go. Raises InvalidInputError."""
    if NAME.fullmatch(text) is None:
        rule = "a word of a to z, 0 to 9, - and _, at most 32 characters; else give a URL"
        raise InvalidInputError(f"The name of a target is {rule}.", field=field)
    return text


# ----------------------------------------------------------------------------------------------------- kept with a job


def to_named(name: str, chosen: Chosen) -> dict[str, object]:
    """What a job's ``extra`` holds of a target."""
    return {"name": name, "by": chosen.value}


def to_urls(sealed: Sequence[str], places: Sequence[str], hosts: Sequence[str]) -> dict[str, object]:
    """What a job's ``extra`` holds of URLs: unreadable, and what may be shown of them."""
    return {"urls": list(sealed), "places": list(places), "hosts": list(hosts), "by": Chosen.JOB.value}


def wish_of(job: Job) -> Mapping[str, object] | None:
    """What ``to_named`` or ``to_urls`` made; None where the job's files stay with us."""
    wish = job.extra.get(FIELD)
    return wish if isinstance(wish, Mapping) else None


def shown_wish(job: Job) -> str | list[str] | None:
    """What may be shown of where a job's files go: a target's name, or hosts and paths; None where they stay with us."""
    wish = wish_of(job)
    if wish is None:
        return None
    target = target_of(job)
    return _texts(wish, "places") if target is None else target


def target_of(job: Job) -> str | None:
    """The target that a job's files go to."""
    name = (wish_of(job) or {}).get("name")
    return name if isinstance(name, str) else None


def is_by_its_client(job: Job) -> bool:
    """Whether the client itself asked for it with this job, so that it knows of deliveries."""
    return (wish_of(job) or {}).get("by") == Chosen.JOB


def sealed_url(job: Job, position: int) -> str | None:
    """The sealed URL for an output; None where the job has none for it."""
    found = _texts(wish_of(job) or {}, "urls")
    return found[position] if position < len(found) else None


def shown_place(url: str) -> str:
    """What may be shown of a URL: host and path; a presigned one has its secret in the query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def planned(job: Job, now: float) -> tuple[Delivery, ...]:
    """The deliveries of a job that has just succeeded, one for each output. Args: now: Unix seconds."""
    wish = wish_of(job)
    if wish is None:
        return ()
    names = file_names(job)
    target = target_of(job)
    places, hosts = _texts(wish, "places"), _texts(wish, "hosts")
    made = []
    for position, (result, name) in enumerate(zip(job.results, names, strict=True)):
        placed = placed_at(result.blob)
        if placed is not None:
            made.append(_arrived(job, result, placed, position, now))
            continue
        is_surplus = target is None and position >= len(places)
        made.append(
            Delivery(
                id=delivery_id(job.id, position),
                job_id=job.id,
                owner=job.owner,
                position=position,
                asset_id=result.asset_id,
                file_name=name,
                target=target,
                host=f"target:{target}" if target is not None else "" if is_surplus else hosts[position],
                place=None if target is not None or is_surplus else places[position],
                state=DeliveryState.FAILED if is_surplus else DeliveryState.PENDING,
                attempts=0,
                next_at=None if is_surplus else now,
                created_at=now,
                reason=Reason.NO_URL if is_surplus else None,
            )
        )
    return tuple(made)


def _arrived(job: Job, result: JobResult, placed: Placed, position: int, now: float) -> Delivery:
    """Of a file that its upstream has put there itself: there is nothing left to do."""
    return Delivery(
        id=delivery_id(job.id, position),
        job_id=job.id,
        owner=job.owner,
        position=position,
        asset_id=result.asset_id,
        file_name=placed.file_name,
        target=placed.target,
        host=f"target:{placed.target}",
        place=result.place,
        state=DeliveryState.DELIVERED,
        attempts=1,
        next_at=None,
        created_at=now,
        last_at=now,
        last_status=200,
        reason=Reason.ANSWERED,
    )


def key_in_target(job_id: str, file_name: str) -> str:
    """Where a job's file lies below a target's prefix."""
    return f"{job_id}/{file_name}"


def delivery_id(job_id: str, position: int) -> str:
    """The id of the one delivery of a job's output."""
    return f"dlv_{job_id}_{position}"


def file_names(job: Job) -> tuple[str, ...]:
    """What a job's outputs are called where they go: harmless, with their extension, and no two alike.

    A link that opens a file without a key is never part of it.
    """
    placed = [placed_at(result.blob) for result in job.results]
    taken = {one.file_name.lower() for one in placed if one is not None}
    names = []
    for number, (result, there) in enumerate(zip(job.results, placed, strict=True), 1):
        if there is not None:
            names.append(there.file_name)
            continue
        name = _file_name(job, result)
        # Two that differ in case alone are one file to some stores.
        while name.lower() in taken:
            name = f"{number}-{name}"
        taken.add(name.lower())
        names.append(name)
    return tuple(names)


def _file_name(job: Job, result: JobResult) -> str:
    suffix = PurePosixPath(result.link).suffix
    wish = PurePosixPath((result.name or "").replace("\\", "/")).name
    return _safe_name(wish.removesuffix(suffix) if wish else job.output_name, suffix)


def file_name_of(job: Job, suffix: str, number: int) -> str:
    """What a file of a job's template is called where it goes, before the job has results. Args: number: from 1."""
    name = _safe_name(job.output_name, suffix)
    return name if number == 1 else f"{number}-{name}"


def _safe_name(stem: str, suffix: str) -> str:
    safe = _OUTSIDE.sub("_", unicodedata.normalize("NFC", stem)).lstrip(".") or "output"
    return f"{safe[: MAX_FILE_NAME - len(suffix)]}{_OUTSIDE.sub('_', suffix)}"


def _texts(wish: Mapping[str, object], member: str) -> list[str]:
    found = wish.get(member)
    return [str(one) for one in found] if isinstance(found, list) else []
