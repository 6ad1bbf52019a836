"""Places that finished files are put to, which do what a test says; in memory.

Unrealistic: nothing is resolved or dialled; a black hole is one whose attempt ends when the test's clock says so. A URL is
judged by its host's name alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from gateway.delivering import Answer, Delivery, DeliveryState, Reason, Upload
from gateway.engine.deliveries import Deliveries
from gateway.errors import InvalidInputError, SourceUnreachableError
from gateway.interfaces import AccountStore, Blobs, Clock, Store
from gateway.safety import SafeUrl, UrlPolicy, parse_url
from tests.fakes.receivers import PlainSealer


def deliveries_of(store: Store, clock: Clock) -> Deliveries:
    """The owners' side, with no carrier behind it."""
    quiet = dict.fromkeys(("on_delivery", "on_change"), lambda: None)
    return Deliveries(store.deliveries, store.accounts, {}, PlainSealer(), clock, guard=None, **quiet)


CREATED = Answer(Reason.ANSWERED, 201)
DOWN = Answer(Reason.UNREACHABLE)
TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Put:
    """One attempt: when it began, by the clock's monotonic seconds, and what came."""

    at: float
    place: str
    data: bytes
    content_type: str


class Storage:
    """``interfaces.UrlUploader``, the guard of URLs, and targets."""

    def __init__(self, clock: Clock, blobs: Blobs) -> None:
        self._clock = clock
        self._blobs = blobs
        self.puts: list[Put] = []
        #: By host or target, what it answers from now on; the last one stays.
        self.script: dict[str, list[Answer]] = {}
        self.black_holes: set[str] = set()
        #: What lies there: place -> bytes.
        self.there: dict[str, bytes] = {}
        self.targets: dict[str, FakeTarget] = {}
        self.most_under_way = 0
        self._under_way = 0

    # ----------------------------------------------------------------------------------------------------- the guard

    def check(self, url: str, *, field: str, https_only: bool = False) -> str:
        if not url.startswith("https://") or not https_only:
            raise InvalidInputError("The URL was refused: its scheme is not https.", field=field)
        return url

    async def require_public(self, url: str, *, field: str) -> None:
        if (urlsplit(url).hostname or "").startswith("private."):
            raise SourceUnreachableError("The file behind this URL could not be fetched.", field=field)

    # -------------------------------------------------------------------------------------------------------- putting

    async def put(self, upload: Upload) -> Answer:
        return await self.take(urlsplit(upload.url).hostname or "", upload.url, upload.blob, upload.content_type)

    async def take(self, host: str, place: str, blob: str, content_type: str) -> Answer:
        data = b"".join([chunk async for chunk in self._blobs.stream(blob)])
        self.puts.append(Put(self._clock.monotonic(), place, data, content_type))
        self._under_way += 1
        self.most_under_way = max(self.most_under_way, self._under_way)
        try:
            if host in self.black_holes:
                await self._clock.sleep(TIMEOUT_SECONDS)
                return Answer(Reason.TIMED_OUT)
            answers = self.script.get(host, [CREATED])
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if answer.is_success:
                self.there[place] = data
            return answer
        finally:
            self._under_way -= 1

    def add_target(self, name: str) -> None:
        self.targets[name] = FakeTarget(name, self)

    @property
    def times(self) -> list[float]:
        return [put.at for put in self.puts]


class FakeTarget:
    """``interfaces.DeliveryTarget``."""

    def __init__(self, name: str, storage: Storage) -> None:
        self._name = name
        self._storage = storage

    async def put(self, key: str, blob_hash: str, *, content_type: str, file_name: str) -> Answer:
        del file_name
        answer = await self._storage.take(self._name, self.location(key), blob_hash, content_type)
        if not answer.is_success:
            return answer
        return Answer(answer.reason, answer.status, place=self.location(key))

    def location(self, key: str) -> str:
        return f"s3://{self._name}-bucket/results/{key}"


class MemoryDeliveries:
    """``interfaces.DeliveryStore`` for the windows: what a test puts in."""

    def __init__(self) -> None:
        self.stored: list[Delivery] = []

    async def of_jobs(self, job_ids: Sequence[str]) -> Sequence[Delivery]:
        return [one for one in self.stored if one.job_id in job_ids]

    async def is_pending(self, job_id: str) -> bool:
        return any(one.job_id == job_id and one.state is DeliveryState.PENDING for one in self.stored)

    async def listed(
        self, owner: str | None, *, state: DeliveryState | None, before: str | None, limit: int
    ) -> Sequence[Delivery]:
        found = [one for one in self.stored if owner in {None, one.owner} and state in {None, one.state}]
        start = 0 if before is None else [one.id for one in found].index(before) + 1
        return found[start : start + limit]

    async def redeliver(self, delivery_id: str, owner: str | None, *, now: float) -> Delivery | None:
        for number, one in enumerate(self.stored):
            if one.id == delivery_id and owner in {None, one.owner}:
                self.stored[number] = replace(one, state=DeliveryState.PENDING, attempts=0, next_at=now)
                return self.stored[number]
        return None


class _ByText:
    """A guard that looks nothing up."""

    def __init__(self, policy: UrlPolicy) -> None:
        self._policy = policy

    def check(self, url: str, *, field: str, https_only: bool = False) -> SafeUrl:
        return parse_url(url, self._policy, field=field, https_only=https_only)

    async def require_public(self, url: SafeUrl, *, field: str) -> None:
        pass


def deliveries_in_memory(
    store: MemoryDeliveries, accounts: AccountStore, clock: Clock, policy: UrlPolicy
) -> Deliveries:
    """The owners' side for the windows; the target ``archive`` is the one that there is."""
    quiet = dict.fromkeys(("on_delivery", "on_change"), lambda: None)
    targets = {"archive": None}
    return Deliveries(store, accounts, targets, PlainSealer(), clock, guard=_ByText(policy), **quiet)
