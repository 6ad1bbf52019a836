"""What a handler is given and what a dialect is made of.

An ``Endpoint`` says where it is, how it is reached and who may; ``app.py`` puts the same wrapper around each, so that no
handler can forget to ask who calls. A ``Dialect`` is a name, its endpoints and its envelope for errors.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from urllib.parse import urlsplit

from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope
from starlette.websockets import WebSocket

from gateway.api import sse
from gateway.api.auth import Access, Caller, host_name
from gateway.api.downloads import file_response
from gateway.api.facade import InputBlobs, Service, Submission
from gateway.api.following import Frame, Signal, ToldOnce, Until, frames_of
from gateway.api.jpegs import JpegPreviews
from gateway.api.limiting import Limits
from gateway.api.openapi.documents import Documents
from gateway.api.previews import ShownOnce, as_json, wants_previews
from gateway.api.problems import Envelope, StatusOf, status_hint
from gateway.api.shown import lookup_id, no_such_job
from gateway.api.tickets import Tickets
from gateway.api.uploads import Form, FormLimits, receive_form
from gateway.audit import MediaKind
from gateway.consent import HEADER as CONSENT_HEADER
from gateway.consent import Attestation, by_header
from gateway.delivering import wish_of
from gateway.errors import BusyError, NotFoundError, UnauthorizedError
from gateway.events import PreviewImage
from gateway.job import Job, JobState
from gateway.settings import Settings

#: Streams and sockets open at once: 2000 took 75 MiB and four tasks each (measured in one process over a fake engine,
#: the test's own side included). More viewers than that want a second replica.
MAX_STREAMS = 2000


class Slots:
    """Room for so many streams. Taken around the whole answer, never inside a generator that may not be started."""

    def __init__(self, size: int = MAX_STREAMS) -> None:
        self.size = size
        self.taken = 0

    @asynccontextmanager
    async def take(self, when_full: type[BusyError] = BusyError) -> AsyncIterator[None]:
        """Hold one slot.

        Raises:
            BusyError: of this kind: all are taken.
        """
        if self.taken >= self.size:
            raise when_full("As many streams are open as may be; try again later.")
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


@dataclass(frozen=True, slots=True)
class Window:
    """What every handler shares."""

    service: Service
    settings: Settings
    tickets: Tickets
    #: What is served, described.
    documents: Documents
    slots: Slots = field(default_factory=Slots)
    limits: Limits = field(default_factory=Limits)
    previews: JpegPreviews = field(default_factory=JpegPreviews)
    _told: dict[Callable[..., tuple[Frame, ...]], ToldOnce] = field(default_factory=dict)
    _shown: dict[Callable[[PreviewImage], Frame], ShownOnce] = field(default_factory=dict)

    def admit(self, scope: Scope, caller: Caller | None) -> None:
        """Count a request of a caller who has limits. Raises RateLimitedError."""
        self.limits.admit(caller, scope, self.service.clock.monotonic())

    def told_once(self, frames: Callable[..., tuple[Frame, ...]]) -> ToldOnce:
        """A dialect's third function, shared by all streams; it is given our ``link_prefix`` as ``prefix``."""
        if frames not in self._told:
            self._told[frames] = ToldOnce(partial(frames, prefix=self.link_prefix))
        return self._told[frames]

    def shown_once(self, show: Callable[[PreviewImage], Frame]) -> ShownOnce:
        """A way to show previews (``previews.py``), shared by all streams."""
        if show not in self._shown:
            self._shown[show] = ShownOnce(show)
        return self._shown[show]

    @property
    def link_prefix(self) -> str:
        """Path in front of every link: that of PUBLIC_URL, "" when it has none."""
        return urlsplit(self.settings.public_url or "").path.rstrip("/")

    def link_base(self, request: Request) -> str:
        """What absolute links begin with, no slash at the end: PUBLIC_URL, else as this request reached us."""
        if self.settings.public_url is not None:
            return self.settings.public_url
        host = request.headers.get("host", "")
        # In open mode the doors have judged it; in keys mode every Host is let in, well-formed or not.
        return f"{request.scope['scheme']}://{host}" if host_name(host) is not None else self.link_prefix

    @property
    def form_limits(self) -> FormLimits:
        """What a body may be, by the settings."""
        settings = self.settings
        return FormLimits(
            max_body_bytes=int(settings.max_upload),
            max_json_bytes=int(settings.max_json),
            caps={
                MediaKind.IMAGE: int(settings.max_image),
                MediaKind.GIF: int(settings.max_gif),
                MediaKind.VIDEO: int(settings.max_video),
            },
        )


@dataclass(frozen=True, slots=True)
class Call:
    """Who asks, and through which window."""

    window: Window
    #: None on a public endpoint that was asked without a token in keys mode.
    caller: Caller | None

    @property
    def service(self) -> Service:
        """The engine."""
        return self.window.service

    @property
    def known(self) -> Caller:
        """The caller, where there must be one.

        Raises:
            UnauthorizedError: there is none.
        """
        if self.caller is None:
            raise UnauthorizedError("This needs a Bearer token.")
        return self.caller

    async def job(self, text: str, field: str) -> Job:
        """The caller's job with this id.

        Args:
            text: as the client gave it.
            field: what the client calls it.

        Raises:
            NotFoundError: naming the field, and the same whether it is no id, nobody's, or somebody else's.
        """
        try:
            return await self.service.job(lookup_id(text), self.known.owner)
        except NotFoundError:
            raise no_such_job(field) from None

    def creating(self) -> AbstractContextManager[None]:
        """Held around whatever creates a job, from before anything is fetched until it is stored or refused.

        Raises:
            ConcurrencyLimitedError: on entering: as many creates of this key are in flight as may be.
        """
        return self.window.limits.creating(self.known)

    def consent(self, field: Attestation | None, headers: Headers, task: str = "face_swap") -> Attestation | None:
        """What a request says of the people in its pictures, by its field or its header, before anything is fetched.

        Args:
            field: what its field says, if it has one.
            headers: its own.
            task: what it asks for.

        Raises:
            InvalidInputError: the header says no, or something else.
            ConsentRequiredError: it had to be said, and was not.
        """
        header = by_header(headers.get(CONSENT_HEADER))
        given = header if field is None else field
        self.service.consents.check(given, task)
        return given

    async def form(self, request: Request) -> Form:
        """The request's form, its files in the blob store: enter it, and ``keep`` it before the engine is given them.

        Raises:
            GatewayError: as ``uploads.receive_form`` does; nothing is left behind.
        """
        blobs = InputBlobs(self.service)
        return await receive_form(request, blobs, self.window.form_limits, stopping=self.service.stopping)

    async def submit(self, request: Request, read: Callable[[Form, Caller], Submission]) -> Job:
        """The stored job of a form whose files are all there is to fetch.

        Args:
            request: the form is its body.
            read: a dialect's first function.

        Raises:
            GatewayError: the form, what ``read`` or what the engine finds in it; nothing is left behind.
        """
        with self.creating():
            async with await self.form(request) as form:
                wanted = read(form, self.known)
                wanted = replace(wanted, consent=self.consent(wanted.consent, request.headers, wanted.task))
                form.keep()
            return await self.service.submit(wanted)

    def told(
        self,
        job: Job,
        after: int,
        frames: Callable[..., tuple[Frame, ...]],
        show_preview: Callable[[PreviewImage], Frame] | None = None,
        until: Until = Until.END,
    ) -> AsyncGenerator[Frame | Signal]:
        """A job's stream from a cursor on, in the words of a dialect's third function; previews where they are asked for."""
        show = None if show_preview is None else self.window.shown_once(show_preview)
        once = self.window.told_once(frames)
        return frames_of(self.service, job, after, once, until=until, show_preview=show)

    async def events(
        self, request: Request, job: Job, frames: Callable[..., tuple[Frame, ...]], until: Until = Until.END
    ) -> Response:
        """``told`` as Server-Sent Events, from the beginning or where the client stopped; 204 after the last one.

        With ``?previews=1`` previews are among them.
        """
        show = as_json if wants_previews(request.query_params) else None
        cursor = await self.cursor(request, job, until)
        if cursor is None:
            return sse.nothing_more()
        return sse.event_stream(self.told(job, cursor, frames, show, until))

    async def cursor(self, request: Request, job: Job, until: Until = Until.END) -> int | None:
        """The number after which a client's stream goes on; None: there is nothing more to tell it."""
        cursor = sse.cursor_of(request, job)
        if wish_of(job) is None or not job.is_terminal:
            return cursor
        if until is Until.END and cursor is not None:
            # What came after the end is no news here, and a client that has had the end would come back for ever.
            return cursor if any(one.is_terminal for one in await self.service.events_after(job.id, cursor)) else None
        if until is Until.DELIVERED and cursor is None and await self.service.deliveries.is_pending(job.id):
            return job.last_event
        return cursor

    async def file(self, request: Request, link: str) -> Response:
        """A finished file, to whoever knows its link: conditions, ranges and how long it may be kept included.

        Raises:
            NotFoundError: there is none of that name, or its time is past.
        """
        job, result = await self.service.result(link)
        finished_at = job.finished_at if job.finished_at is not None else job.updated_at
        left_seconds = finished_at + self.window.settings.result_retention - self.service.clock.now()
        return file_response(
            request,
            blobs=self.service.blobs,
            blob_hash=result.blob,
            size_bytes=result.size_bytes,
            content_type=result.facts.content_type,
            filename=result.link,
            last_modified=finished_at,
            max_age_seconds=max(0, int(left_seconds)),
        )


HttpHandler = Callable[[Request, Call], Awaitable[Response]]
SocketHandler = Callable[[WebSocket, Call], Awaitable[None]]


class Holds(Enum):
    """What an answer occupies while it lasts."""

    NOTHING = "nothing"
    #: One of ``Slots``: a stream, or an upload.
    SLOT = "slot"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One (method, path) over HTTP."""

    method: str
    path: str
    handler: HttpHandler
    access: Access = Access.OWNER
    holds: Holds = Holds.NOTHING
    #: What it is when there is no slot, where a dialect has a word of its own for that.
    when_full: type[BusyError] = BusyError
    #: Its handler says ``may_be_kept`` (``ready.py``); the path ends in the job's id.
    is_polled: bool = False
    #: A ticket in the query opens it, too (``tickets.py``): browsers open it with an address alone.
    takes_ticket: bool = False
    #: A field of the query that stands for a key: with it anybody may ask, and the handler judges what it holds.
    opened_by: str | None = None

    def access_for(self, query: bytes) -> Access:
        """Who may ask with this query."""
        # Read as the handler will read it.
        is_opened = self.opened_by is not None and self.opened_by in QueryParams(query)
        return Access.PUBLIC if is_opened else self.access


@dataclass(frozen=True, slots=True)
class SocketEndpoint:
    """One path over WebSocket. Always holds a slot, always takes tickets."""

    path: str
    handler: SocketHandler
    access: Access = Access.OWNER


@dataclass(frozen=True, slots=True)
class Dialect:
    """One API that clients speak."""

    name: str
    endpoints: tuple[Endpoint | SocketEndpoint, ...]
    #: Paths at and below which unknown paths answer in this dialect's envelope.
    prefixes: tuple[str, ...]
    envelope: Envelope
    #: Its word for each state.
    state_words: Mapping[JobState, str]
    #: (ended job, what absolute links begin with, seconds for which its files are kept) -> what its own GET says of it; for
    #: webhooks. None: it has none.
    told_outside: Callable[[Job, str, float], Mapping[str, object]] | None = None
    #: Its statuses for errors, where they are not those of everybody.
    status_of: StatusOf = status_hint
    #: The module whose ``describe`` says what it is, for ``/openapi.json``; None: it is left out there. By name, since all
    #: of them are a tenth of what a gateway loads and few ever ask for the document.
    description: str | None = None

    def speaks_at(self, path: str) -> bool:
        """Whether a path is this dialect's, known or not."""
        return any(path == prefix or (prefix != "/" and path.startswith(prefix + "/")) for prefix in self.prefixes)
