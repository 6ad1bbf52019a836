"""What every request passes first: token, origin, size, and the plain 500 that any exception becomes.

Pure ASGI, so that it also stands before the WebSocket. The token is this worker's only key: without it nothing is
answered but 401.

Source of the 403, 413 and 500 answers: ComfyUI a125cd84 on aiohttp 3.14, recorded.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.embedded.faults import Faults

logger = structlog.get_logger(__name__)

Handler = Callable[[Request], Awaitable[Response]]
#: How much of a refused body is read on.
DRAIN_BYTES = 16 * 2**20
SERVER_ERROR = "500 Internal Server Error\n\nServer got itself in trouble"


class _BodyTooLargeError(Exception):
    """The body passed the limit while it was read."""

    def __init__(self, max_body_bytes: int) -> None:
        super().__init__(f"more than {max_body_bytes} bytes")
        self.max_body_bytes = max_body_bytes


class Gate:
    """The outermost ASGI application.

    Args:
        app: what lies behind it.
        token: what ``Authorization: Bearer`` must hold.
        max_body_bytes: larger bodies are answered 413.
        faults: for ``http-500``.
    """

    def __init__(self, app: ASGIApp, *, token: str, max_body_bytes: int, faults: Faults) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()
        self._max_body_bytes = max_body_bytes
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, socket or lifespan."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None and scope["type"] == "http":
            await _drain(receive)
            await refusal(scope, receive, send)
        elif refusal is not None:
            await _refuse_socket(refusal, scope, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if not secrets.compare_digest(headers.get("authorization", "").encode("latin-1"), self._expected):
            return Response(status_code=401, headers={"WWW-Authenticate": "Bearer"})
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            return Response(status_code=403)
        return self._unserved(scope, headers) if scope["type"] == "http" else None

    def _unserved(self, scope: Scope, headers: Headers) -> Response | None:
        if scope["method"] == "OPTIONS":
            return Response()
        announced = headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self._max_body_bytes:
            return _too_large(self._max_body_bytes)
        if self._faults.fails_request(scope["path"]):
            return _server_error()
        return None

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        received_bytes = 0
        refused = False

        async def counted_receive() -> Message:
            nonlocal received_bytes, refused
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > self._max_body_bytes and not refused:
                refused = True  # what follows is only drained
                raise _BodyTooLargeError(self._max_body_bytes)
            return message

        await self._app(scope, counted_receive, send)


def guarded(handler: Handler) -> Handler:
    """The handler with ComfyUI's answer to whatever it raises: a malformed request is met by one plain 500."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except HTTPException:
            raise
        except _BodyTooLargeError as error:
            await _drain(request.receive)
            return _too_large(error.max_body_bytes)
        except Exception as error:  # noqa: BLE001 - the edge of a request; see above
            # No traceback: it would hold file names and prompts.
            logger.info("embedded_request_failed", method=request.method, kind=type(error).__name__)
            return _server_error()

    return handle


async def _drain(receive: Receive) -> None:
    """Read on for a while: closing a connection with unread bytes in it would take the answer back from the client."""
    drained_bytes = 0
    while drained_bytes < DRAIN_BYTES:
        message = await receive()
        drained_bytes += len(message.get("body", b""))
        if not message.get("more_body", False):
            return


def _too_large(max_body_bytes: int) -> Response:
    sentence = f"Maximum request body size {max_body_bytes} exceeded."
    return PlainTextResponse(sentence, 413, headers={"Connection": "close"})


def _server_error() -> Response:
    return PlainTextResponse(SERVER_ERROR, 500, headers={"Connection": "close"})


async def _refuse_socket(refusal: Response, scope: Scope, send: Send) -> None:
    if "websocket.http.response" in scope.get("extensions", {}):
        await send({"type": "websocket.http.response.start", "status": refusal.status_code, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b""})
    else:
        await send({"type": "websocket.close", "code": 1008})
