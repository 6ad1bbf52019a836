"""Answers kept ready: what a client that polls gets again, as bytes, in front of the framework.

A status is asked for far more often than it changes. So the last answer to each polled path is kept as it went out, and
goes out again until the job changes. Whoever may have it is not judged a second time either: only a request with the very
same headers from the same address as one that was let in before gets a ready answer, and only its own owner's. All
others, and all that carry an ``Origin`` or a request id of their own, take the usual way, which decides.

What makes an answer stale: any event or snapshot of its job, any event at all where the answer tells a place in the
queue, a purge, and time, which bounds what nobody announces (a job that is forgotten because its time is past).
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, TypeAlias

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api.facade import Service
from gateway.job import Job, JobState

log = structlog.get_logger(__name__)
_levels = logging.getLogger(__name__)

FRESH_SECONDS: Final = 1.0
#: Of a job that has ended, of which nothing but its being forgotten is left to tell.
ENDED_FRESH_SECONDS: Final = 60.0
#: Answers kept, about 1 KiB each, and headers that are known to be let in, a few KiB each at most.
MAX_ANSWERS: Final = 16_384
MAX_BODY_BYTES: Final = 16 * 1024
MAX_KNOWN: Final = 1024
MAX_HEADER_BYTES: Final = 4096
_NOTE: Final = "gateway.ready"
_NEVER: Final = "gateway.never_ready"
#: Headers that change the answer or how it is let in beyond what is compared.
_UNUSUAL: Final = frozenset({b"origin", b"x-request-id"})

_Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class _Note:
    """What a handler says of its answer."""

    owner: str
    is_queued: bool
    is_terminal: bool


@dataclass(slots=True, eq=False)
class _Mark:
    """Set on an answer in the making when its job changes meanwhile. Each is one of a kind, however alike they look."""

    is_stale: bool = False


@dataclass(frozen=True, slots=True)
class _Ready:
    owner: str
    headers: list[tuple[bytes, bytes]]
    body: bytes
    #: Monotonic seconds.
    fresh_until: float
    #: Number of the newest event of any job, where the answer depends on it.
    at_event: int | None


@dataclass(slots=True)
class _Copy:
    """What went out, as far as it may be kept: a 200 in one piece, as a handler makes it.

    In several pieces, or with a word about the connection, it is an answer to this one request: to one that came with a
    body that nobody wanted, for instance.
    """

    send: Send
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes | None = None
    is_fit: bool = False

    async def pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.headers = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
            self.is_fit = message["status"] == HTTPStatus.OK and all(name != b"connection" for name, _ in self.headers)
        elif message["type"] == "http.response.body":
            body = message.get("body", b"")
            self.is_fit = self.is_fit and not message.get("more_body") and len(body) <= MAX_BODY_BYTES
            self.body = body if self.is_fit else None
        await self.send(message)


def may_be_kept(request: Request, job: Job) -> None:
    """Say that the answer to this request holds until the job changes."""
    request.scope[_NOTE] = _Note(job.owner, job.state is JobState.QUEUED, job.is_terminal)


def never_keep(scope: Scope) -> None:
    """Say that the answer to this request is for this request alone, whatever its handler says."""
    scope[_NEVER] = True


class ReadyAnswers:
    """The layer in front of everything.

    Args:
        app: who answers what is not ready.
        prefixes: of the paths that are polled; what follows is the job's id.
        service: tells what has changed, and the time.
    """

    def __init__(self, app: ASGIApp, *, prefixes: tuple[str, ...], service: Service) -> None:
        self._app = app
        self._prefixes = prefixes
        self._clock = service.clock
        self._answers: OrderedDict[str, _Ready] = OrderedDict()
        #: Their paths by job: a job changes at each step of its bar, and of most jobs nothing is kept.
        self._paths: dict[str, list[str]] = {}
        #: The pairs of all headers, each once: nearly all answers have the same.
        self._pairs: dict[tuple[bytes, bytes], tuple[bytes, bytes]] = {}
        self._known: OrderedDict[tuple[_Headers, str], str] = OrderedDict()
        self._making: dict[str, list[_Mark]] = {}
        self._events = 0
        service.watch(self._changed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer at once what is ready; pass on the rest, and keep what may be kept of it."""
        if (
            scope["type"] != "http"
            or scope["method"] != "GET"
            or not scope["path"].startswith(self._prefixes)
            or scope["query_string"]
        ):
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        asked = (tuple(scope["headers"]), client[0] if client else "")
        ready = self._ready(scope["path"], asked)
        if ready is None:
            await self._make(scope, receive, send, asked)
            return
        request_id = os.urandom(16).hex()
        headers = [*ready.headers, (b"x-request-id", request_id.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": ready.body})
        if _levels.isEnabledFor(logging.DEBUG):  # asked here, because saying it to nobody takes a tenth of the answer
            log.debug("request", method="GET", ready=True, status=200, request_id=request_id)

    def _ready(self, path: str, asked: tuple[_Headers, str]) -> _Ready | None:
        ready = self._answers.get(path)
        if ready is None or self._known.get(asked) != ready.owner:
            return None
        if ready.fresh_until <= self._clock.monotonic() or ready.at_event not in {None, self._events}:
            self._drop(path)
            return None
        self._answers.move_to_end(path)
        self._known.move_to_end(asked)
        return ready

    async def _make(self, scope: Scope, receive: Receive, send: Send, asked: tuple[_Headers, str]) -> None:
        path: str = scope["path"]
        copy = _Copy(send)
        events = self._events
        with self._marked(_job_of(path)) as mark:
            await self._app(scope, receive, copy.pass_on)
        note: _Note | None = scope.get(_NOTE)
        if note is None or copy.body is None or mark.is_stale or _NEVER in scope:
            return
        if any(name in _UNUSUAL for name, _ in asked[0]) or sum(map(_size, asked[0])) > MAX_HEADER_BYTES:
            return
        until = self._clock.monotonic() + (ENDED_FRESH_SECONDS if note.is_terminal else FRESH_SECONDS)
        at_event = events if note.is_queued else None
        self._keep(path, _Ready(note.owner, self._shared(copy.headers), copy.body, until, at_event))
        self._known[asked] = note.owner
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    def _keep(self, path: str, ready: _Ready) -> None:
        if path not in self._answers:
            self._paths.setdefault(_job_of(path), []).append(path)
        self._answers[path] = ready
        self._answers.move_to_end(path)
        if len(self._answers) > MAX_ANSWERS:
            self._drop(next(iter(self._answers)))

    def _drop(self, path: str) -> None:
        del self._answers[path]
        paths = self._paths[_job_of(path)]
        paths.remove(path)
        if not paths:
            del self._paths[_job_of(path)]

    def _shared(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        if len(self._pairs) > MAX_KNOWN:
            self._pairs.clear()
        return [self._pairs.setdefault(pair, pair) for pair in headers]

    # ------------------------------------------------------------------------------------------------------- changes

    @contextmanager
    def _marked(self, job_id: str) -> Iterator[_Mark]:
        """Whether something happens to a job while its answer is being made."""
        mark = _Mark()
        marks = self._making.setdefault(job_id, [])
        marks.append(mark)
        try:
            yield mark
        finally:
            marks.remove(mark)
            if not marks:
                self._making.pop(job_id, None)

    def _changed(self, job_id: str | None, *, is_event: bool) -> None:
        if job_id is None:
            self._answers.clear()
            self._paths.clear()
            for every in self._making.values():
                _make_stale(every)
            return
        self._events += is_event
        for path in self._paths.pop(job_id, ()):
            del self._answers[path]
        if (marks := self._making.get(job_id)) is not None:
            _make_stale(marks)


def _make_stale(marks: Iterable[_Mark]) -> None:
    for mark in marks:
        mark.is_stale = True


def _job_of(path: str) -> str:
    return path.rpartition("/")[2]


def _size(pair: tuple[bytes, bytes]) -> int:
    return len(pair[0]) + len(pair[1])
