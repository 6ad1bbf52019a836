"""What clients saw of their jobs, and what must be true of it: one rule after the other, nothing of the gateway's own.

Pure. Observations are put down in the order in which one client made them; ``Kept`` is what the gateway's database says
at the very end. A rule that does not hold gives a sentence that begins with its name.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import pairwise
from typing import TypeAlias

ENDS = frozenset({"succeeded", "failed", "canceled"})
#: Answers to a cancel after which the job must end canceled.
_GRANTED = frozenset({HTTPStatus.OK, HTTPStatus.ACCEPTED})


@dataclass(frozen=True, slots=True)
class Facts:
    """What a result must be."""

    content_type: str
    size: tuple[int, int]
    frames: int


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The gateway answered that it has the job."""

    job_id: str
    wanted: Facts


@dataclass(frozen=True, slots=True)
class Seen:
    """An answer to a poll."""

    job_id: str
    state: str
    fraction: float
    last_event: int
    links: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """An answer that no such question should get: a job that is not known, a 500."""

    job_id: str
    status: int


@dataclass(frozen=True, slots=True)
class Told:
    """One message of a stream that comes back with its cursor."""

    job_id: str
    #: Counts the streams of all jobs.
    stream: int
    name: str
    #: None on what is passing.
    number: int | None = None
    attempt: int | None = None
    fraction: float | None = None


@dataclass(frozen=True, slots=True)
class CancelSent:
    """Somebody wishes the job canceled; perhaps nobody hears it."""

    job_id: str


@dataclass(frozen=True, slots=True)
class CancelAnswered:
    """And was answered."""

    job_id: str
    status: int


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A result, all of it."""

    job_id: str
    link: str
    digest: str
    facts: Facts


Observation: TypeAlias = Acknowledged | Seen | Refused | Told | CancelSent | CancelAnswered | Downloaded


@dataclass(frozen=True, slots=True)
class Kept:
    """A job in the database at the end."""

    job_id: str
    state: str
    #: Kinds in the order of their numbers, which are these.
    numbers: tuple[int, ...]
    kinds: tuple[str, ...]
    #: Outcome of each attempt in order; None while it is open.
    outcomes: tuple[str | None, ...]
    links: tuple[str, ...]
    error: str = ""


@dataclass
class _Life:
    """All that was seen of one job."""

    job_id: str
    acknowledged: Acknowledged | None = None
    seen: list[Seen] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    streams: dict[int, list[Told]] = field(default_factory=lambda: defaultdict(list))
    cancels_sent: int = 0
    cancels: list[int] = field(default_factory=list)
    downloads: list[Downloaded] = field(default_factory=list)

    def add(self, observation: Observation) -> None:
        match observation:
            case Acknowledged():
                self.acknowledged = observation
            case Seen():
                self.seen.append(observation)
            case Refused():
                self.refused.append(observation)
            case Told():
                self.streams[observation.stream].append(observation)
            case CancelSent():
                self.cancels_sent += 1
            case CancelAnswered():
                self.cancels.append(observation.status)
            case Downloaded():
                self.downloads.append(observation)


def violations(observations: Iterable[Observation], kept: Iterable[Kept]) -> list[str]:
    """Every rule that does not hold; empty when all is well. To be asked after the time of peace."""
    lives: dict[str, _Life] = {}
    for observation in observations:
        lives.setdefault(observation.job_id, _Life(observation.job_id)).add(observation)
    found = {record.job_id: record for record in kept}
    told = [sentence for life in lives.values() for sentence in _of_life(life, found.get(life.job_id))]
    told += [sentence for record in found.values() for sentence in _of_record(record)]
    return [*told, *_links_of_two_jobs(lives.values())]


def _of_life(life: _Life, kept: Kept | None) -> Iterator[str]:
    yield from _lost(life, kept)
    yield from _stuck(life)
    yield from _polls(life)
    for stream in life.streams.values():
        yield from _stream(life.job_id, stream)
        if kept is not None:
            yield from _agrees(stream, kept)
    yield from _cancels(life)
    yield from _results(life, kept)


def _lost(life: _Life, kept: Kept | None) -> Iterator[str]:
    for refused in life.refused:
        yield f"nothing is lost: {life.job_id} was answered with {refused.status}"
    if life.acknowledged is not None and kept is None:
        yield f"nothing is lost: {life.job_id} was acknowledged and is gone"
    if life.acknowledged is not None and not life.seen:
        yield f"nothing is lost: {life.job_id} was acknowledged and never seen"


def _stuck(life: _Life) -> Iterator[str]:
    if life.seen and life.seen[-1].state not in ENDS:
        yield f"nothing is stuck: {life.job_id} is {life.seen[-1].state} after the time of peace"


def _polls(life: _Life) -> Iterator[str]:
    for before, after in pairwise(life.seen):
        if after.fraction < before.fraction:
            yield f"bars never fall: {life.job_id} went from {before.fraction} to {after.fraction}"
        if after.last_event < before.last_event:
            yield f"numbers never turn: {life.job_id} went from event {before.last_event} to {after.last_event}"
        if before.state in ENDS and after != before:
            yield f"one end: {life.job_id} was {before.state}, then {after.state}, or changed after its end"
    for seen in life.seen:
        if (seen.fraction == 1) != (seen.state == "succeeded"):
            yield f"one means done: {life.job_id} stood at {seen.fraction} and was {seen.state}"


def _stream(job_id: str, stream: Sequence[Told]) -> Iterator[str]:
    """One stream over all its connections: dense, in order, one end, a bar that never falls."""
    numbers = [told.number for told in stream if told.number is not None]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"numbers are dense: {job_id} was told {numbers}"
    ends = [told.name for told in stream if told.name in ENDS]
    if len(ends) != 1:
        yield f"one end: {job_id} was told {ends or 'none'}"
    elif stream[-1].name not in ENDS:
        yield f"one end: {job_id} was told {stream[-1].name} after its end"
    bar = [told.fraction for told in stream if told.fraction is not None]
    for before, after in pairwise(bar):
        if after < before:
            yield f"bars never fall: {job_id} was told {before}, then {after}"
    yield from _attempts_told(job_id, stream)


def _attempts_told(job_id: str, stream: Sequence[Told]) -> Iterator[str]:
    """Attempts are told one after the other, and nothing of one that is over."""
    attempt, is_open = 0, False
    for told in stream:
        match told.name:
            case "dispatched":
                if is_open or told.attempt != attempt + 1:
                    yield f"the last attempt counts: {job_id} was told of attempt {told.attempt} after {attempt}"
                attempt, is_open = told.attempt or 0, True
            case "started":
                if not is_open or told.attempt != attempt:
                    yield f"the last attempt counts: {job_id} started attempt {told.attempt}, the last was {attempt}"
            case "requeued":
                is_open = False
            case "finishing" | "succeeded":
                if not is_open:
                    yield f"the last attempt counts: {job_id} was told {told.name} of an attempt that is over"
            case _:
                pass


def _agrees(stream: Sequence[Told], kept: Kept) -> Iterator[str]:
    names = tuple(told.name for told in stream if told.number is not None)
    if names != kept.kinds:
        yield f"all are told the same: {kept.job_id} was told {names}, and {kept.kinds} is kept"


def _cancels(life: _Life) -> Iterator[str]:
    state = life.seen[-1].state if life.seen else ""
    if state == "canceled" and not life.cancels_sent:
        yield f"canceled only when asked: {life.job_id} ended canceled"
    if state in ENDS - {"canceled"} and _GRANTED.intersection(life.cancels):
        yield f"a cancel wins: {life.job_id} ended {state} after its cancel was acknowledged"


def _results(life: _Life, kept: Kept | None) -> Iterator[str]:
    links = {seen.links for seen in life.seen if seen.state == "succeeded"}
    if any(seen.links for seen in life.seen if seen.state != "succeeded"):
        yield f"a result comes once: {life.job_id} had a link before its end"
    if len(links) > 1 or any(len(found) != 1 for found in links):
        yield f"a result comes once: {life.job_id} had the links {sorted(links)}"
    if kept is not None and links and links != {kept.links}:
        yield f"a result comes once: {life.job_id} showed {sorted(links)}, and {kept.links} is kept"
    if links and not life.downloads:
        yield f"a result comes once: {life.job_id} succeeded, and its file was never got"
    if len({(got.link, got.digest) for got in life.downloads}) > 1:
        yield f"a result stays what it is: {life.job_id} gave other bytes than before"
    for got in life.downloads:
        if life.acknowledged is not None and got.facts != life.acknowledged.wanted:
            yield f"a result is what was asked for: {life.job_id} gave {got.facts}, not {life.acknowledged.wanted}"
            return


def _links_of_two_jobs(lives: Iterable[_Life]) -> Iterator[str]:
    owners = Counter(link for life in lives for link in {link for seen in life.seen for link in seen.links})
    for link, count in owners.items():
        if count > 1:
            yield f"a result comes once: {count} jobs have the link {link}"


def _of_record(kept: Kept) -> Iterator[str]:
    """What holds for every job that is kept, also for one whose acknowledgement was cut off."""
    if kept.state not in ENDS:
        yield f"nothing is stuck: {kept.job_id} is kept as {kept.state}"
        return
    if kept.state == "failed":
        yield f"every job succeeds or is canceled: {kept.job_id} failed: {kept.error}"
    if kept.numbers != tuple(range(1, len(kept.numbers) + 1)):
        yield f"numbers are dense: {kept.job_id} has kept {kept.numbers}"
    if [kind for kind in kept.kinds if kind in ENDS] != [kept.state] or kept.kinds[-1] != kept.state:
        yield f"one end: {kept.job_id} is {kept.state}, and has kept {kept.kinds}"
    winners = [number for number, outcome in enumerate(kept.outcomes, start=1) if outcome == "succeeded"]
    # One that was canceled while its result was on the way may have been seen through by its upstream.
    allowed = {"succeeded": [[len(kept.outcomes)]], "canceled": [[], [len(kept.outcomes)]]}
    if winners not in allowed.get(kept.state, [[]]):
        yield f"the last attempt counts: {kept.job_id} is {kept.state} with {kept.outcomes}"
    if None in kept.outcomes:
        yield f"nothing is stuck: {kept.job_id} ended with an attempt open: {kept.outcomes}"


def sent_twice(started: Mapping[str, Sequence[str]]) -> list[str]:
    """Prompts that more than one server was given, or one server twice. Args: started: ids by server, in order."""
    counts = Counter(prompt_id for prompt_ids in started.values() for prompt_id in prompt_ids)
    return [
        f"a prompt is sent once: {prompt_id} was sent {count} times" for prompt_id, count in counts.items() if count > 1
    ]
