"""One request with bytes to one URL that a client named: judged anew, over a connection of its own.

The URL was judged when the job was made; names may lead elsewhere since. So its text is parsed again by the policy of now,
its name resolved, every address judged and a judged one dialled (``dialing.py``). httpcore2 is spoken to directly: no
redirect is followed, and there are no cookies and no proxies from the environment. All of it has one deadline, and of the
answer its head and first bytes are read.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final

import httpcore2

from gateway.blobs.dialing import CONNECT_TIMEOUT_SECONDS, HTTPCORE_ERRORS, Dialer, GuardedBackend, Resolver, dial
from gateway.errors import InvalidInputError, SourceUnreachableError
from gateway.interfaces import Clock, Heard, Outgoing
from gateway.outbox import retry_after
from gateway.safety import UNREACHABLE, SafeUrl, UrlPolicy, parse_url

#: Enough for the other side to finish its answer; nobody looks at it.
MAX_ANSWER_BYTES: Final = 4096


class GuardedSender:
    """``interfaces.Sender``.

    Args:
        policy: what may be called, asked for every request.
        resolver: asks for a name's addresses; nothing else is believed.
        tls: what certificates are checked against.
        clock: for a Retry-After that is a date.
        dialer: connects to a literal address.
    """

    def __init__(
        self,
        *,
        policy: Callable[[], UrlPolicy],
        resolver: Resolver,
        tls: ssl.SSLContext,
        clock: Clock,
        dialer: Dialer = dial,
    ) -> None:
        self._policy = policy
        self._resolver = resolver
        self._tls = tls
        self._clock = clock
        self._dialer = dialer

    async def send(self, outgoing: Outgoing) -> Heard:
        """Send it; what was answered. See ``interfaces.Sender``."""
        try:
            policy = self._policy()
            url = parse_url(outgoing.url, policy, https_only=outgoing.https_only)
            backend = GuardedBackend(url, policy, resolver=self._resolver, dialer=self._dialer)
            try:
                async with asyncio.timeout(outgoing.deadline_seconds):
                    return await self._send(url, backend, outgoing)
            finally:
                await backend.hang_up()
        except (TimeoutError, FileNotFoundError):  # the deadline, and a file to be sent that is gone
            raise
        except (InvalidInputError, *HTTPCORE_ERRORS, OSError, ValueError) as error:
            raise SourceUnreachableError(UNREACHABLE) from error  # ValueError: a name that TLS cannot spell

    async def _send(self, url: SafeUrl, backend: GuardedBackend, outgoing: Outgoing) -> Heard:
        pool = httpcore2.AsyncConnectionPool(
            ssl_context=self._tls, max_connections=1, max_keepalive_connections=0, network_backend=backend
        )
        patience = outgoing.patience_seconds
        timeouts = {"connect": CONNECT_TIMEOUT_SECONDS, "read": patience, "write": patience, "pool": patience}
        request = httpcore2.Request(
            outgoing.method,
            httpcore2.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target),
            # No more than these: a presigned URL may have been signed over the headers, and refuses those it does not know.
            headers=[
                ("Host", url.host_header),
                ("User-Agent", "comfygate"),
                ("Content-Type", outgoing.content_type),
                ("Content-Length", str(outgoing.size_bytes)),
                ("Accept-Encoding", "identity"),
                ("Connection", "close"),
                *outgoing.fields.items(),
            ],
            content=outgoing.content,
            extensions={"timeout": timeouts},
        )
        async with pool:
            response = await pool.handle_async_request(request)
            try:
                return await self._heard(response)
            finally:
                await response.aclose()

    async def _heard(self, response: httpcore2.Response) -> Heard:
        wanted = next((value for name, value in response.headers if name.lower() == b"retry-after"), b"")
        heard = Heard(response.status, retry_after(wanted.decode("latin-1"), self._clock.now()))
        read = 0
        try:
            async for chunk in response.aiter_stream():
                read += len(chunk)
                if read >= MAX_ANSWER_BYTES:
                    break
        except (*HTTPCORE_ERRORS, OSError, TimeoutError):
            return heard  # it has said what it thinks; that it broke off afterwards is its own affair
        return heard
