"""One attempt: a signed POST to a URL that is judged anew, over a connection of its own.

The URL was judged when the job was made; names may lead elsewhere since. So its text is parsed again by the policy of now,
and the network backend that is handed in resolves the name, judges every address and dials a judged one (``main.py`` puts
in the backend that guards URL inputs). httpcore2 is spoken to directly: no redirect is followed, and there are no cookies
and no proxies from the environment. The whole attempt has one deadline, and of the answer only its head and the first
bytes are read.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final

import httpcore2

from gateway.errors import InvalidInputError, SourceUnreachableError
from gateway.interfaces import Clock
from gateway.outbox import Answer, Delivery, Reason, retry_after
from gateway.safety import SafeUrl, UrlPolicy, parse_url
from gateway.webhooks.signature import headers_of

#: Between the 15 and the 30 s that the specification asks a sender to wait.
DEADLINE_SECONDS: Final = 20.0
CONNECT_SECONDS: Final = 5.0
#: Enough for a receiver to finish its answer; nobody looks at it.
MAX_ANSWER_BYTES: Final = 4096
_HTTPCORE_ERRORS: Final = (
    httpcore2.NetworkError,
    httpcore2.TimeoutException,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpcore2.UnsupportedProtocol,
    httpcore2.ConnectionNotAvailable,
)


class Deliverer:
    """Carries messages.

    Args:
        policy: what may be called, asked at every attempt.
        backend: makes the guarded network of one attempt.
        tls: what receivers' certificates are checked against.
        clock: for a Retry-After that is a date.
        deadline_seconds: for the whole of an attempt.
    """

    def __init__(
        self,
        *,
        policy: Callable[[], UrlPolicy],
        backend: Callable[[SafeUrl], httpcore2.AsyncNetworkBackend],
        tls: ssl.SSLContext,
        clock: Clock,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        self._policy = policy
        self._backend = backend
        self._tls = tls
        self._clock = clock
        self._deadline_seconds = deadline_seconds

    async def send(self, delivery: Delivery) -> Answer:
        """One attempt; what came of it. A refused place and one that does not answer are told alike."""
        try:
            url = parse_url(delivery.url, self._policy())
            async with asyncio.timeout(self._deadline_seconds):
                return await self._post(url, delivery)
        except TimeoutError:
            return Answer(Reason.TIMED_OUT)
        except (InvalidInputError, SourceUnreachableError, *_HTTPCORE_ERRORS, OSError, ValueError):
            return Answer(Reason.UNREACHABLE)  # ValueError: a name that TLS cannot spell

    async def _post(self, url: SafeUrl, delivery: Delivery) -> Answer:
        pool = httpcore2.AsyncConnectionPool(
            ssl_context=self._tls, max_connections=1, max_keepalive_connections=0, network_backend=self._backend(url)
        )
        patience = self._deadline_seconds
        timeouts = {"connect": CONNECT_SECONDS, "read": patience, "write": patience, "pool": patience}
        request = httpcore2.Request(
            "POST",
            httpcore2.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target),
            headers=[
                ("Host", url.host_header),
                ("User-Agent", "comfygate"),
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(delivery.body))),
                ("Accept-Encoding", "identity"),
                ("Connection", "close"),
                *headers_of(delivery).items(),
            ],
            content=delivery.body,
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
