"""HTTP to one upstream: bounded answers, explicit time-outs, and failures sorted into two kinds.

Bytes and connections are those of ``exchange.py`` and ``connections.py``. Whether a request can have reached the upstream
is what decides if it may be repeated, so that is what the two errors say. Nothing that leaves here holds the URL: it may
carry credentials.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlencode, urlsplit

import httpcore2
import orjson

from gateway.errors import GatewayError
from gateway.lease import MayAct
from gateway.upstreams.connections import Connections
from gateway.upstreams.exchange import Connection, NoAnswerError, NotSentError

#: Answers are read whole; the longest known is /object_info of a large install, some 20 MB.
MAX_ANSWER_BYTES = 128 * 1024 * 1024
CONNECT_SECONDS = 5.0
#: ComfyUI answers in milliseconds; loading a model can hold its interpreter for seconds.
ANSWER_SECONDS = 15.0
#: Validating a large graph loads and hashes its input files.
SUBMIT_SECONDS = 60.0
#: A body no longer than this is sent as one: each piece waits for the one before.
WHOLE_BYTES = 1024 * 1024
#: Between two pieces of a file, either way.
PIECE_SECONDS = 60.0
#: Per upstream: a socket's requests, uploads and a result or two; those kept stay open for the next.
MAX_CONNECTIONS = 20
MAX_KEPT_CONNECTIONS = 5
#: Less than any server keeps one: uvicorn 5 s, aiohttp 75. One that the other side closes as we send on it looks like an
#: upstream that does not answer, and idle ones are looked at every 5 s.
KEPT_SECONDS = 2.0


@contextmanager
def _sorted() -> Iterator[None]:
    """Whatever goes wrong becomes one of the two errors: when in doubt, it may have been acted on.

    Whatever, because nobody up the stack could foresee what a reset at the wrong moment makes a transport raise.
    """
    try:
        yield
    except ConnectionError:
        raise  # ours, or of the file that is sent
    except Exception as error:  # noqa: BLE001 - see above
        raise NoAnswerError(type(error).__name__) from None  # its text may name the address


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
        tls: ssl.SSLContext | None = None
        if parts.scheme == "https":
            tls = verify if isinstance(verify, ssl.SSLContext) else httpcore2.default_ssl_context()
        self._connections = Connections(
            parts.hostname or "",
            parts.port or (80 if tls is None else 443),
            tls,
            most=MAX_CONNECTIONS,
            most_kept=MAX_KEPT_CONNECTIONS,
            kept_seconds=KEPT_SECONDS,
            connect_seconds=CONNECT_SECONDS,
        )
        self._base_path = quote(parts.path, safe="/")
        sent = {
            "Host": parts.netloc,
            "User-Agent": "comfygate",
            "Accept": "*/*",
            # Nothing here undoes a compression; on the way to a GPU box it would cost more than it saves.
            "Accept-Encoding": "identity",
            **address.headers,
            **headers,
        }
        self._headers = _lines(sent)

    async def close(self) -> None:
        """Drop the connections."""
        await self._connections.close()

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
        return await self._ask("POST", path, content=content, headers=headers, piece_seconds=PIECE_SECONDS)

    @asynccontextmanager
    async def stream(self, path: str, **params: str) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        """GET, answered piece by piece: (status, pieces)."""
        with _sorted():
            connection = await self._connections.take()
        try:
            with _sorted():
                await connection.send(self._head("GET", path, params), b"", ANSWER_SECONDS)
                status = await connection.answered(PIECE_SECONDS)
            yield status, _pieces(connection)
        finally:
            self._connections.give_back(connection)

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
        body = orjson.dumps(value)
        return await self._ask(method, path, content=body, headers=headers, answer_seconds=answer_seconds)

    async def _ask_leave(self) -> None:
        """Right before sending: a process that was stopped must not act on what it wanted before it was."""
        if self._may_act is None:
            return
        try:
            await self._may_act()
        except GatewayError as error:
            raise NotSentError(error.code) from None

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        content: bytes | AsyncIterator[bytes] = b"",
        headers: Mapping[str, str] | None = None,
        answer_seconds: float = ANSWER_SECONDS,
        piece_seconds: float = ANSWER_SECONDS,
    ) -> Answer:
        with _sorted():
            size_bytes = len(content) if isinstance(content, bytes) else int((headers or {})["Content-Length"])
            if not isinstance(content, bytes) and size_bytes <= WHOLE_BYTES:
                content = b"".join([piece async for piece in content])
            head = self._head(method, path, params, headers, size_bytes)
            connection = await self._connections.take()
            try:
                if isinstance(content, bytes):
                    await connection.send(head, content, piece_seconds)
                else:
                    await connection.send_pieces(head, content, size_bytes, piece_seconds)
                return Answer(await connection.answered(answer_seconds), await _read(connection, answer_seconds))
            finally:
                self._connections.give_back(connection)

    def _head(
        self,
        method: str,
        path: str,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        size_bytes: int = 0,
    ) -> bytes:
        query = f"?{urlencode(params, quote_via=quote)}" if params else ""
        length = f"Content-Length: {size_bytes}\r\n" if method != "GET" else ""
        more = _lines({name: value for name, value in (headers or {}).items() if name != "Content-Length"})
        target = self._base_path + quote(path, safe="/") + query
        return f"{method} {target} HTTP/1.1\r\n{self._headers}{more}{length}\r\n".encode("ascii")


def _lines(headers: Mapping[str, str]) -> str:
    """Raises ValueError where one is not what a header can be: it would end its line, or be none of ASCII."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    if not lines.isascii() or lines.count("\n") != len(headers) or lines.count("\r") != len(headers) or "\0" in lines:
        raise ValueError("a header of a request holds what no header can hold")
    return lines


async def _pieces(connection: Connection) -> AsyncIterator[bytes]:
    with _sorted():
        while piece := await connection.piece(PIECE_SECONDS):
            yield piece


async def _read(connection: Connection, seconds: float) -> bytes:
    body = await connection.piece(seconds)
    if not body or connection.is_idle:
        return body  # all of it came at once
    whole = bytearray(body)
    while piece := await connection.piece(seconds):
        whole += piece
        if len(whole) > MAX_ANSWER_BYTES:
            raise NoAnswerError("the answer is too long")
    return bytes(whole)
