"""HTTP to one upstream: bounded answers, explicit time-outs, and failures sorted into two kinds.

httpcore2 is spoken to directly. A job makes half a dozen requests, and httpx would take as long again for what none of
them needs: parsing the same URL, cookies, redirects, authentication, decompression.

Whether a request can have reached the upstream is what decides if it may be repeated, so that is what the two errors
say. Nothing that leaves here holds the URL: it may carry credentials.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

import httpcore2
import orjson

from gateway.errors import GatewayError
from gateway.lease import MayAct
from gateway.upstreams.streams import LoopBackend

#: Answers are read whole; the longest known is /object_info of a large install, some 20 MB.
MAX_ANSWER_BYTES = 128 * 1024 * 1024
CONNECT_SECONDS = 5.0
#: ComfyUI answers in milliseconds; loading a model can hold its interpreter for seconds.
ANSWER_SECONDS = 15.0
#: Validating a large graph loads and hashes its input files.
SUBMIT_SECONDS = 60.0
#: A body no longer than this is sent as one: each piece is a step of its own in the HTTP library.
WHOLE_BYTES = 1024 * 1024
#: Between two pieces of a file, either way.
PIECE_SECONDS = 60.0
#: Per upstream: a socket's requests, uploads and a result or two; those kept stay open for the next.
MAX_CONNECTIONS = 20
MAX_KEPT_CONNECTIONS = 5
#: Less than any server keeps one: uvicorn 5 s, aiohttp 75. One that the other side closes as we send on it looks like an
#: upstream that does not answer, and idle ones are looked at every 5 s.
KEPT_SECONDS = 2.0


class NotSentError(ConnectionError):
    """Not a byte of the request can have reached the upstream."""


class NoAnswerError(ConnectionError):
    """The request may have been acted on, or not: the answer never came, or was cut."""


# What each failure of the HTTP library means. Subclasses stand for themselves: a test walks all that it exports.
FAILURES: Mapping[type[Exception], type[ConnectionError]] = {
    httpcore2.ConnectError: NotSentError,
    httpcore2.ConnectTimeout: NotSentError,
    httpcore2.PoolTimeout: NotSentError,
    httpcore2.UnsupportedProtocol: NotSentError,
    httpcore2.ProxyError: NotSentError,
    httpcore2.ConnectionNotAvailable: NotSentError,
    httpcore2.ReadTimeout: NoAnswerError,
    httpcore2.WriteTimeout: NoAnswerError,
    httpcore2.ReadError: NoAnswerError,
    httpcore2.WriteError: NoAnswerError,
    httpcore2.RemoteProtocolError: NoAnswerError,
    httpcore2.LocalProtocolError: NoAnswerError,  # a body that ended early was sent in part
    # Families, for what a later version adds: when in doubt, it may have been acted on.
    httpcore2.TimeoutException: NoAnswerError,
    httpcore2.NetworkError: NoAnswerError,
    httpcore2.ProtocolError: NoAnswerError,
}


def failure_of(error: Exception) -> ConnectionError:
    """Our error for one of the HTTP library's, by its nearest known class."""
    kind = next((FAILURES[base] for base in type(error).__mro__ if base in FAILURES), NoAnswerError)
    return kind(type(error).__name__)  # its text may name the address


@contextmanager
def _sorted() -> Iterator[None]:
    """Around the HTTP library only: whatever it raises becomes one of the two errors.

    Whatever, because it is more than it documents. A connection that is reset right after it was made is an
    AttributeError of anyio's, which asks the closed socket for its peer; nobody up the stack could foresee that one.
    """
    try:
        yield
    except ConnectionError:
        raise  # ours, or of the file that is sent
    except Exception as error:  # noqa: BLE001 - see above
        raise failure_of(error) from None


@dataclass(frozen=True, slots=True)
class Address:
    """Where an upstream is, with the credentials taken out of the URL."""

    #: "http://host:8188", and a path when it lies below one.
    base_url: str
    #: "Authorization" when the URL carried credentials.
    headers: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Address({self.base_url!r})"

    @property
    def origin(self) -> str:
        """``scheme://host:port``, to be shown."""
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def socket_url(self) -> str:
        """Where its WebSocket is."""
        return "ws" + self.base_url.removeprefix("http") + "/ws"


def parse_address(url: str) -> Address:
    """Take an upstream's URL apart.

    Raises:
        ValueError: it is no http(s) URL; the sentence does not repeat it, since it may hold a password.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise ValueError("the URL of an upstream cannot be read") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("the URL of an upstream must begin with http:// or https:// and name a host")
    if parts.query or parts.fragment:
        raise ValueError("the URL of an upstream must have no query and no fragment")
    try:
        name = parts.hostname if ":" in parts.hostname else parts.hostname.encode("idna").decode("ascii")
    except UnicodeError:
        raise ValueError("the URL of an upstream names a host that cannot be looked up") from None
    host = f"[{name}]" if ":" in name else name
    default_port = {"http": 80, "https": 443}[parts.scheme]
    netloc = host if port in {None, default_port} else f"{host}:{port}"
    headers: dict[str, str] = {}
    if parts.username is not None:
        secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers["Authorization"] = "Basic " + base64.b64encode(secret).decode("ascii")
    return Address(f"{parts.scheme}://{netloc}{parts.path.rstrip('/')}", headers)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    body: bytes


class UpstreamClient:
    """HTTP calls to one upstream.

    Every call raises NotSentError or NoAnswerError, and nothing else.

    Args:
        address: of the upstream.
        headers: sent with every request.
        verify: whether, or with which certificates, TLS is checked.
        may_act: awaited before each request that changes something there; a GatewayError of it means no.
    """

    def __init__(
        self,
        address: Address,
        headers: Mapping[str, str],
        *,
        verify: ssl.SSLContext | bool = True,
        may_act: MayAct | None = None,
    ) -> None:
        self._may_act = may_act
        parts = urlsplit(address.base_url)
        if parts.scheme == "https":
            context = verify if isinstance(verify, ssl.SSLContext) else httpcore2.default_ssl_context()
        else:
            context = None
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=context,
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_KEPT_CONNECTIONS,
            keepalive_expiry=KEPT_SECONDS,
            network_backend=LoopBackend() if context is None else None,
        )
        self._scheme, self._host, self._port = parts.scheme.encode(), (parts.hostname or "").encode(), parts.port
        self._base_path = parts.path
        sent = {
            "Host": parts.netloc,
            "User-Agent": "comfygate",
            "Accept": "*/*",
            # Nothing here undoes a compression; on the way to a GPU box it would cost more than it saves.
            "Accept-Encoding": "identity",
            **address.headers,
            **headers,
        }
        self._headers = [(name.encode("ascii"), value.encode("ascii")) for name, value in sent.items()]

    async def close(self) -> None:
        """Drop the connections."""
        await self._pool.aclose()

    async def get(self, path: str, **params: str | int) -> Answer:
        """GET, answered whole."""
        return await self._ask("GET", path, params=params)

    async def post(
        self,
        path: str,
        value: object,
        *,
        answer_seconds: float = ANSWER_SECONDS,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """POST a JSON value, answered whole."""
        return await self._send_json("POST", path, value, answer_seconds, headers)

    async def patch(self, path: str, value: object) -> Answer:
        """PATCH a JSON value, answered whole."""
        return await self._send_json("PATCH", path, value, ANSWER_SECONDS)

    async def upload(self, path: str, content: AsyncIterator[bytes], headers: Mapping[str, str]) -> Answer:
        """POST a body that comes in pieces; ``headers`` tell its type and length."""
        await self._ask_leave()
        return await self._ask(
            "POST", path, content=content, headers=headers, timeout=_timeout(ANSWER_SECONDS, write=PIECE_SECONDS)
        )

    @asynccontextmanager
    async def stream(self, path: str, **params: str) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        """GET, answered piece by piece: (status, pieces)."""
        async with AsyncExitStack() as stack:
            with _sorted():
                exchange = self._exchange("GET", path, params=params, timeout=_timeout(PIECE_SECONDS))
                response = await stack.enter_async_context(exchange)
            yield response.status, _pieces(response)

    async def _send_json(
        self,
        method: str,
        path: str,
        value: object,
        answer_seconds: float,
        more_headers: Mapping[str, str] | None = None,
    ) -> Answer:
        headers = {"Content-Type": "application/json", **(more_headers or {})}
        await self._ask_leave()
        return await self._ask(
            method, path, content=orjson.dumps(value), headers=headers, timeout=_timeout(answer_seconds)
        )

    async def _ask_leave(self) -> None:
        """Right before sending: a process that was stopped must not act on what it wanted before it was."""
        if self._may_act is None:
            return
        try:
            await self._may_act()
        except GatewayError as error:
            raise NotSentError(error.code) from None

    async def _ask(self, method: str, path: str, **options: Any) -> Answer:
        with _sorted():
            content = options.get("content")
            if isinstance(content, AsyncIterator) and int(options["headers"]["Content-Length"]) <= WHOLE_BYTES:
                options["content"] = b"".join([piece async for piece in content])
            async with self._exchange(method, path, **options) as response:
                return Answer(response.status, await _read(response))

    def _exchange(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        content: bytes | AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: Timeouts | None = None,
    ) -> AbstractAsyncContextManager[httpcore2.Response]:
        target = quote(self._base_path + path, safe="/") + (f"?{urlencode(params, quote_via=quote)}" if params else "")
        url = httpcore2.URL(scheme=self._scheme, host=self._host, port=self._port, target=target.encode("ascii"))
        sent = [*self._headers, *((name.encode(), value.encode()) for name, value in (headers or {}).items())]
        extensions = {"timeout": (timeout or _timeout(ANSWER_SECONDS)).for_httpcore()}
        return self._pool.stream(method, url, headers=sent, content=content, extensions=extensions)


async def _pieces(response: httpcore2.Response) -> AsyncIterator[bytes]:
    with _sorted():
        async for piece in response.aiter_stream():
            yield piece


async def _read(response: httpcore2.Response) -> bytes:
    body = bytearray()
    async for piece in response.aiter_stream():
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise NoAnswerError("the answer is too long")
    return bytes(body)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds."""

    connect: float
    read: float
    write: float
    pool: float

    def for_httpcore(self) -> dict[str, float]:
        """As httpcore2 wants them; dataclasses.asdict takes longer than sending a request's head."""
        return {"connect": self.connect, "read": self.read, "write": self.write, "pool": self.pool}


def _timeout(read: float, *, write: float = ANSWER_SECONDS) -> Timeouts:
    return Timeouts(connect=CONNECT_SECONDS, read=read, write=write, pool=CONNECT_SECONDS)
