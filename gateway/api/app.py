"""The Starlette application: every endpoint in one table, and one edge around all of them.

The edge gives each request an id, lets in only who may knock (``auth.Doors``), turns every error into the envelope of
the dialect that the path belongs to, and writes one line to the log per request, at debug for a read that went well: the
route's pattern, never the path or the query, because links and tickets in them are secrets. Pure ASGI throughout:
Starlette's BaseHTTPMiddleware would put a queue between a stream and its client.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, Final
from uuid import uuid4

import structlog
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from gateway.accounts import may_hold_a_key
from gateway.api.auth import SAFE_METHODS, SUBPROTOCOL, Access, Doors
from gateway.api.bodies import LingeringClose
from gateway.api.dialects import DIALECTS
from gateway.api.facade import Service, Stopping
from gateway.api.gatekeeper import Gatekeeper, Knock
from gateway.api.limiting import limit_headers
from gateway.api.openapi.documents import Documents
from gateway.api.openapi.publishing import whole
from gateway.api.own_routes import OWN_ENDPOINTS
from gateway.api.problems import (
    PROBLEM_TYPE,
    Envelope,
    InternalServerError,
    StatusOf,
    error_response,
    from_http_exception,
    problem,
    status_hint,
)
from gateway.api.ready import ReadyAnswers, never_keep
from gateway.api.sse import disable_library_shutdown
from gateway.api.tickets import Tickets
from gateway.api.websocket import refusal_code
from gateway.api.window import Call, Dialect, Endpoint, Holds, Slots, SocketEndpoint, Window
from gateway.errors import (
    GatewayError,
    RateLimitedError,
    ShuttingDownError,
    UnauthorizedError,
    UpgradeRequiredError,
)
from gateway.settings import Settings

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_REQUEST_ID_KEY: Final = "gateway.request_id"
_ROUTE_KEY: Final = "gateway.route"
_INTERNAL_ERROR_CLOSE: Final = 1011
#: Headers of every answer that does not say otherwise itself.
_DEFAULT_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
_CORS_EXPOSED: Final = (
    "X-Request-ID, Retry-After, ETag, Content-Disposition, RateLimit, RateLimit-Policy, Idempotent-Replayed"
)
_CORS_MAX_AGE_SECONDS: Final = 600

log = structlog.get_logger(__name__)


def create_app(
    service: Service,
    settings: Settings,
    *,
    admin_token: str | None,
    dialects: Sequence[Dialect] = DIALECTS,
    slots: Slots | None = None,
) -> Starlette:
    """The application.

    Args:
        service: the engine.
        settings: AUTH, PUBLIC_URL, ALLOWED_HOSTS, TRUSTED_PROXIES, CORS_ORIGINS and the limits are read.
        admin_token: opens everything, as the owner ``local``; None: only keys do.
        dialects: the APIs to speak.
        slots: room for streams; tests make it small.

    Raises:
        ValueError: two endpoints claim one (method, path), or TRUSTED_PROXIES holds no address.
    """
    disable_library_shutdown()
    endpoints = all_endpoints(dialects)
    require_single_claims(endpoints)
    tickets = Tickets(service.clock, _ticket_paths(endpoints))
    documents = Documents(settings, partial(whole, dialects=dialects, own_endpoints=OWN_ENDPOINTS))
    window = Window(service, settings, tickets, documents, slots or Slots())
    doors = Doors.from_settings(settings, admin_token)
    gatekeeper = Gatekeeper(doors, service.accounts, tickets, service.clock)
    app = _Application(
        service,
        polled_prefixes=_polled_prefixes(endpoints),
        routes=[route for endpoint in endpoints for route in _routes(endpoint, window, gatekeeper)],
        middleware=[
            Middleware(LingeringClose),
            Middleware(Edge, doors=doors, dialects=dialects, stopping=service.stopping),
        ],
        exception_handlers={HTTPException: _pass_on},
    )
    # It would send clients wherever their Host header says.
    app.router.redirect_slashes = False
    return app


class _Application(Starlette):
    """Starlette, with what is ready in front of it."""

    def __init__(self, service: Service, *, polled_prefixes: tuple[str, ...], **starlette: Any) -> None:
        super().__init__(**starlette)
        self.ready = ReadyAnswers(super().__call__, prefixes=polled_prefixes, service=service)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, socket or lifespan."""
        await self.ready(scope, receive, send)


def all_endpoints(dialects: Sequence[Dialect]) -> tuple[Endpoint | SocketEndpoint, ...]:
    """The whole table: the dialects' and our own."""
    spoken = tuple(endpoint for dialect in dialects for endpoint in dialect.endpoints)
    return (*spoken, *OWN_ENDPOINTS)


def require_single_claims(endpoints: Iterable[Endpoint | SocketEndpoint]) -> None:
    """Refuse a table in which two endpoints claim one (method, path). Raises ValueError."""
    claimed: set[tuple[str, str]] = set()
    for endpoint in endpoints:
        method = endpoint.method if isinstance(endpoint, Endpoint) else "WEBSOCKET"
        # The names in braces do not matter: /a/{x} and /a/{y} are one path.
        claim = (method, re.sub(r"\{[^}]*\}", "{}", endpoint.path))
        if claim in claimed:
            raise ValueError(f"two endpoints claim {method} {endpoint.path}")
        claimed.add(claim)


def _polled_prefixes(endpoints: Iterable[Endpoint | SocketEndpoint]) -> tuple[str, ...]:
    polled = (endpoint for endpoint in endpoints if isinstance(endpoint, Endpoint) and endpoint.is_polled)
    return tuple(endpoint.path.partition("{")[0] for endpoint in polled)


def _ticket_paths(endpoints: Iterable[Endpoint | SocketEndpoint]) -> list[str]:
    return [endpoint.path for endpoint in endpoints if isinstance(endpoint, SocketEndpoint) or endpoint.takes_ticket]


def _routes(endpoint: Endpoint | SocketEndpoint, window: Window, gatekeeper: Gatekeeper) -> list[BaseRoute]:
    if isinstance(endpoint, SocketEndpoint):
        return [
            WebSocketRoute(endpoint.path, _Socket(endpoint, window, gatekeeper)),
            Route(endpoint.path, _ask_for_upgrade, methods=["GET"]),
        ]
    return [Route(endpoint.path, _Http(endpoint, window, gatekeeper), methods=[endpoint.method])]


async def _ask_for_upgrade(request: Request) -> Response:
    """Somebody opens a socket's path in a browser, or a proxy took the Upgrade away."""
    request.scope[_ROUTE_KEY] = request.scope["route"].path
    raise UpgradeRequiredError("This is a WebSocket: open it as one, and let proxies pass Upgrade and Connection on.")


async def _pass_on(request: Request, exception: Exception) -> Response:
    """Leave what the router raises to the edge, which knows the envelopes."""
    del request
    raise exception


def _peer(scope: Scope) -> str | None:
    client = scope.get("client")
    return client[0] if client else None


class _Http:
    """An endpoint over HTTP as an ASGI application: who calls is settled before the handler is."""

    def __init__(self, endpoint: Endpoint, window: Window, gatekeeper: Gatekeeper) -> None:
        self._endpoint = endpoint
        self._window = window
        self._gatekeeper = gatekeeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[_ROUTE_KEY] = self._endpoint.path
        request = Request(scope, receive, send)
        access = self._endpoint.access_for(scope["query_string"])
        if access is not Access.PUBLIC:
            self._gatekeeper.doors.require_reader(request.headers)
        knock = Knock.of(scope, takes_ticket=self._endpoint.takes_ticket)
        count = partial(self._window.admit, scope)
        caller = await self._gatekeeper.caller(access, knock, count=count)
        if caller is not None and caller.key is not None:
            never_keep(scope)
        call = Call(self._window, caller)
        if self._endpoint.holds is Holds.NOTHING:
            await (await self._endpoint.handler(request, call))(scope, receive, send)
            return
        async with self._window.slots.take(self._endpoint.when_full):
            await (await self._endpoint.handler(request, call))(scope, receive, send)


class _Socket:
    """An endpoint over WebSocket as an ASGI application.

    A program is refused by an HTTP answer, before the accept. A page would see nothing of that, so it is let in and told by
    the code of the close.
    """

    def __init__(self, endpoint: SocketEndpoint, window: Window, gatekeeper: Gatekeeper) -> None:
        self._endpoint = endpoint
        self._window = window
        self._gatekeeper = gatekeeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[_ROUTE_KEY] = self._endpoint.path
        websocket = WebSocket(scope, receive, _agreeing(scope, send))
        self._gatekeeper.doors.require_socket_origin(websocket.headers)
        try:
            knock, count = Knock.of(scope, takes_ticket=True), partial(self._window.admit, scope)
            caller = await self._gatekeeper.caller(self._endpoint.access, knock, count=count)
        except (UnauthorizedError, RateLimitedError) as error:
            if "origin" not in websocket.headers:
                raise
            log.info("socket_refused", route=self._endpoint.path, code=error.code)
            await websocket.accept()
            await websocket.close(refusal_code(error), error.code)
            return
        async with self._window.slots.take():
            await self._endpoint.handler(websocket, Call(self._window, caller))


def _agreeing(scope: Scope, send: Send) -> Send:
    """Agree to our subprotocol where it is offered: a page that offered some gives up when none of them is taken."""
    if SUBPROTOCOL not in scope.get("subprotocols", ()):
        return send

    async def agree(message: Message) -> None:
        if message["type"] == "websocket.accept":
            message["subprotocol"] = message.get("subprotocol") or SUBPROTOCOL
        await send(message)

    return agree


# ------------------------------------------------------------------------------------------------------------ the edge


class Edge:
    """Outermost layer: id, doors, envelopes, log."""

    def __init__(self, app: ASGIApp, *, doors: Doors, dialects: Sequence[Dialect], stopping: Stopping) -> None:
        self._app = app
        self._stopping = stopping
        self._doors = doors
        self._dialects = dialects

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or socket; the lifespan passes through."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = _request_id(headers, self._doors)
        answer = _Answer(scope, send, request_id, self._doors.cors_origin(headers))
        scope[_REQUEST_ID_KEY] = answer.request_id
        started = time.monotonic()
        try:
            await self._serve_while_running(scope, headers, receive, answer)
        finally:
            log.log(
                _log_level(scope, answer.status),
                "request",
                method=scope.get("method", "WEBSOCKET"),
                route=scope.get(_ROUTE_KEY),
                status=answer.status,
                milliseconds=round(1000 * (time.monotonic() - started), 1),
                request_id=answer.request_id,
            )

    async def _serve_while_running(self, scope: Scope, headers: Headers, receive: Receive, answer: _Answer) -> None:
        try:
            await self._serve(scope, headers, receive, answer)
        except asyncio.CancelledError:
            # uvicorn cancels what is left when its grace is over. That is an end, no fault: it would log a traceback.
            if not self._stopping.is_set():
                raise
            log.info("cut_off", request_id=answer.request_id)
            if not answer.has_begun:
                stops = ShuttingDownError("The gateway is stopping; send this again in a moment.")
                await self._refuse(scope, receive, answer, self._error_answer(stops, scope, headers, answer))

    async def _serve(self, scope: Scope, headers: Headers, receive: Receive, answer: _Answer) -> None:
        try:
            self._doors.require_way_in(headers, _peer(scope))
            if scope["type"] == "http" and _is_preflight(scope, headers) and answer.cors_origin is not None:
                await _preflight_response(headers)(scope, receive, answer.send)
                return
            if scope["type"] == "http" and scope["method"] not in SAFE_METHODS:
                self._doors.require_own_page(headers)
            await self._app(scope, receive, answer.send)
        except ClientDisconnect:
            log.debug("client_left", request_id=answer.request_id)
        except HTTPException as exception:
            await self._refuse(scope, receive, answer, self._http_refusal(exception, scope, headers, answer))
        except GatewayError as error:
            await self._refuse(scope, receive, answer, self._error_answer(error, scope, headers, answer))
        except Exception:
            if answer.has_begun:
                raise  # the server breaks the connection and logs: a half answer must not look whole
            log.exception("request_failed", request_id=answer.request_id, route=scope.get(_ROUTE_KEY))
            await self._refuse(
                scope, receive, answer, self._error_answer(InternalServerError(), scope, headers, answer)
            )

    async def _refuse(self, scope: Scope, receive: Receive, answer: _Answer, response: Response) -> None:
        if scope["type"] == "http":
            if answer.has_begun:
                raise RuntimeError("an error was raised after the answer had begun")
            await response(scope, receive, answer.send)
        elif answer.has_begun:
            await answer.send({"type": "websocket.close", "code": _INTERNAL_ERROR_CLOSE})
        elif "websocket.http.response" in scope.get("extensions", {}):
            await response(scope, receive, answer.send)
        else:
            await answer.send({"type": "websocket.close", "code": 1008})

    def _http_refusal(self, exception: HTTPException, scope: Scope, headers: Headers, answer: _Answer) -> Response:
        allow: dict[str, str] = {}
        if exception.status_code == 405:  # noqa: PLR2004 - the status itself says it best
            allow["Allow"] = ", ".join(_allowed_methods(scope))
            if scope.get("method") == "OPTIONS":
                return Response(status_code=204, headers=allow)
        response = self._error_answer(from_http_exception(exception), scope, headers, answer)
        response.headers.update(allow)
        return response

    def _error_answer(self, error: GatewayError, scope: Scope, headers: Headers, answer: _Answer) -> Response:
        envelope, status_of = self._envelope(scope["path"], headers)
        response = error_response(error, envelope, answer.request_id, status_of)
        if isinstance(error, UpgradeRequiredError):
            response.headers["Upgrade"] = "websocket"  # RFC 9110 section 15.5.22 wants it named
        return response

    def _envelope(self, path: str, headers: Headers) -> tuple[Envelope, StatusOf]:
        spoken = next((dialect for dialect in self._dialects if dialect.speaks_at(path)), None)
        if spoken is None or PROBLEM_TYPE in headers.get("accept", ""):
            return problem, status_hint
        return spoken.envelope, spoken.status_of


class _Answer:
    """What is sent back, with the headers that every answer carries."""

    def __init__(self, scope: Scope, send: Send, request_id: str, cors_origin: str | None) -> None:
        self._scope = scope
        self._send = send
        self.request_id = request_id
        self.cors_origin = cors_origin
        self.has_begun = False
        #: HTTP status, 101 for an accepted socket, None when nothing was sent.
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        """Send on; the beginning gets its headers."""
        if message["type"] in {"http.response.start", "websocket.http.response.start"}:
            self.has_begun = True
            self.status = message["status"]
            self._add_headers(MutableHeaders(raw=message.setdefault("headers", [])), message)
        elif message["type"] == "websocket.accept":
            self.has_begun = True
            self.status = 101
        await self._send(message)

    def _add_headers(self, headers: MutableHeaders, message: Message) -> None:
        headers["X-Request-ID"] = self.request_id
        for name, value in _DEFAULT_HEADERS.items():
            headers.setdefault(name, value)
        for name, value in limit_headers(self._scope):
            headers[name] = value
        if self.cors_origin is not None:
            headers["Access-Control-Allow-Origin"] = self.cors_origin
            headers["Access-Control-Expose-Headers"] = _CORS_EXPOSED
            headers["Cross-Origin-Resource-Policy"] = "cross-origin"
            headers.add_vary_header("Origin")
        message["headers"] = headers.raw


def _log_level(scope: Scope, status: int | None) -> int:
    """How loud a request's line is. Clients ask for a status every second: what was read without a hitch is quiet."""
    if status is not None and status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return logging.WARNING
    is_smooth = status is not None and HTTPStatus.OK <= status < HTTPStatus.BAD_REQUEST
    return logging.DEBUG if is_smooth and scope.get("method") in {"GET", "HEAD"} else logging.INFO


def _request_id(headers: Headers, doors: Doors) -> str:
    """The client's own id when it is a sane one, else a new one. A key sent here by mistake would be logged and echoed."""
    given = headers.get("x-request-id", "")
    is_sane = _REQUEST_ID.fullmatch(given) and not may_hold_a_key(given) and not doors.is_admin_token(given)
    return given if is_sane else uuid4().hex


def _is_preflight(scope: Scope, headers: Headers) -> bool:
    return scope["method"] == "OPTIONS" and "access-control-request-method" in headers


def _preflight_response(headers: Headers) -> Response:
    return Response(
        status_code=204,
        headers={
            "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
            "Access-Control-Allow-Headers": headers.get("access-control-request-headers", "Content-Type"),
            "Access-Control-Max-Age": str(_CORS_MAX_AGE_SECONDS),
        },
    )


def _allowed_methods(scope: Scope) -> list[str]:
    """Methods of all endpoints at a path: the router itself names only those of the first."""
    methods = {"OPTIONS"}
    for route in scope["app"].routes:
        if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE:
            methods |= route.methods or set()
    return sorted(methods)
