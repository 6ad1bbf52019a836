"""One file put to one URL: judged anew, over a connection of its own, streamed out of the blob store.

The URL was judged when the job was made; names may lead elsewhere since. So its text is parsed again by the policy of now,
its name resolved, every address judged and a judged one dialled (``dialing.py``). Only https goes: what is sent is the
client's, and the URL mostly a secret. No redirect is followed, and there are no cookies and no proxies from the
environment. An attempt has one deadline that grows with the file, and of the answer its head and first bytes are read.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Final

import httpcore2

from gateway.blobs.dialing import CONNECT_TIMEOUT_SECONDS, Dialer, GuardedBackend, Resolver, dial
from gateway.delivering import Answer, Reason, Upload
from gateway.errors import InvalidInputError, SourceUnreachableError
from gateway.interfaces import Blobs, Clock
from gateway.outbox import retry_after
from gateway.safety import SafeUrl, UrlPolicy, parse_url

#: For everything but the bytes: the look-up, the handshake, and what the other side does when it has them all.
PATIENCE_SECONDS: Final = 60.0
#: A way out that is slower than this is none: a file of 1 GiB has 2 h 17 min.
LEAST_BYTES_PER_SECOND: Final = 128 * 1024
#: Enough for the other side to finish its answer; nobody looks at it.
MAX_ANSWER_BYTES: Final = 4096
_HTTPCORE_ERRORS: Final = (
    httpcore2.NetworkError,
    httpcore2.TimeoutException,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpcore2.UnsupportedProtocol,
    httpcore2.ConnectionNotAvailable,
)


class UrlPutter:
    """``interfaces.UrlUploader``.

    Args:
        blobs: where the bytes are.
        policy: what may be called, asked at every attempt.
        resolver: asks for a name's addresses; nothing else is believed.
        tls: what certificates are checked against.
        clock: for a Retry-After that is a date.
        dialer: connects to a literal address.
        patience_seconds: see above.
    """

    def __init__(
        self,
        blobs: Blobs,
        *,
        policy: Callable[[], UrlPolicy],
        resolver: Resolver,
        tls: ssl.SSLContext,
        clock: Clock,
        dialer: Dialer = dial,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._blobs = blobs
        self._policy = policy
        self._resolver = resolver
        self._tls = tls
        self._clock = clock
        self._dialer = dialer
        self._patience_seconds = patience_seconds

    async def put(self, upload: Upload) -> Answer:
        """One PUT; what came of it. A refused place and one that does not answer are told alike."""
        try:
            policy = self._policy()
            url = parse_url(upload.url, policy, https_only=True)
            backend = GuardedBackend(url, policy, resolver=self._resolver, dialer=self._dialer)
            try:
                async with asyncio.timeout(self._patience_seconds + upload.size_bytes / LEAST_BYTES_PER_SECOND):
                    return await self._send(url, backend, upload)
            finally:
                await backend.hang_up()
        except TimeoutError:
            return Answer(Reason.TIMED_OUT)
        except FileNotFoundError:
            return Answer(Reason.EXPIRED)
        except (InvalidInputError, SourceUnreachableError, *_HTTPCORE_ERRORS, OSError, ValueError):
            return Answer(Reason.UNREACHABLE)  # ValueError: a name that TLS cannot spell

    async def _send(self, url: SafeUrl, backend: GuardedBackend, upload: Upload) -> Answer:
        pool = httpcore2.AsyncConnectionPool(
            ssl_context=self._tls, max_connections=1, max_keepalive_connections=0, network_backend=backend
        )
        patience = self._patience_seconds
        timeouts = {"connect": CONNECT_TIMEOUT_SECONDS, "read": patience, "write": patience, "pool": patience}
        request = httpcore2.Request(
            "PUT",
            httpcore2.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target),
            # No more than these: a presigned URL may have been signed over the headers, and refuses those it does not know.
            headers=[
                ("Host", url.host_header),
                ("User-Agent", "comfygate"),
                ("Content-Type", upload.content_type),
                ("Content-Length", str(upload.size_bytes)),
                ("Accept-Encoding", "identity"),
                ("Connection", "close"),
            ],
            content=_Whole(self._blobs.stream(upload.blob), upload.size_bytes),
            extensions={"timeout": timeouts},
        )
        async with pool:
            response = await pool.handle_async_request(request)
            try:
                return await self._answer(response)
            finally:
                await response.aclose()

    async def _answer(self, response: httpcore2.Response) -> Answer:
        wanted = next((value for name, value in response.headers if name.lower() == b"retry-after"), b"")
        patience = retry_after(wanted.decode("latin-1"), self._clock.now())
        answer = Answer(Reason.ANSWERED, response.status, patience)
        read = 0
        try:
            async for chunk in response.aiter_stream():
                read += len(chunk)
                if read >= MAX_ANSWER_BYTES:
                    break
        except (*_HTTPCORE_ERRORS, OSError, TimeoutError):
            return answer  # it has said what it thinks; that it broke off afterwards is its own affair
        return answer


class _Whole:
    """A file's chunks; fewer bytes than announced are an error of ours, not an end."""

    def __init__(self, chunks: AsyncIterator[bytes], size_bytes: int) -> None:
        self._chunks = chunks
        self._left = size_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            self._left -= len(chunk)
            yield chunk
        if self._left:
            raise FileNotFoundError
