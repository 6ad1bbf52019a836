"""From a judged URL to an open connection: every answer of the resolver is checked, only a checked address is dialled.

httpcore2 asks a network backend for a connection to the URL's *host* and then does TLS with that name. A backend that
resolves, judges and dials a literal therefore leaves Host, SNI and certificate checks as they are, and there is no
second look-up that could answer differently. ``safety.py`` judges; resolver and dialler are parameters.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import httpcore2
import structlog

from gateway.errors import SourceUnreachableError
from gateway.safety import UNREACHABLE, AddressVerdict, SafeUrl, UrlPolicy, judge_address, named_endpoints

#: (host, port) -> addresses. May raise OSError or UnicodeError.
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
#: (address, port, timeout_seconds) -> connection. The address is a literal.
Dialer = Callable[[str, int, float], Awaitable[httpcore2.AsyncNetworkStream]]

DNS_TIMEOUT_SECONDS: Final = 3.0
CONNECT_TIMEOUT_SECONDS: Final = 5.0
#: More answers than any honest name has; a zone that sends hundreds wants us to try them all.
MAX_ANSWERS: Final = 64
#: Addresses tried for one hop; they share CONNECT_TIMEOUT_SECONDS.
MAX_TRIED: Final = 3
#: What httpcore2 raises of a connection, beside OSError and TimeoutError.
HTTPCORE_ERRORS: Final = (
    httpcore2.NetworkError,
    httpcore2.TimeoutException,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpcore2.UnsupportedProtocol,
    httpcore2.ConnectionNotAvailable,
)

log = structlog.get_logger(__name__)


class SystemResolver:
    """getaddrinfo in threads of its own: slow names hold up nobody else's look-ups.

    Args:
        overrides: lower-case name -> addresses, asked before the system (GATEWAY_RESOLVE).
        threads: look-ups at a time.
    """

    def __init__(self, overrides: Mapping[str, Sequence[str]] | None = None, *, threads: int = 8) -> None:
        self._overrides = overrides or {}
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="resolver")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """All addresses of a name, in the system's order of preference."""
        if host in self._overrides:
            return self._overrides[host]
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._look_up, host, port)

    def close(self) -> None:
        """Let the threads go; look-ups under way are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def _look_up(host: str, port: int) -> Sequence[str]:
        # As bytes, so that Python's own IDNA codec has no say in it.
        answers = socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def resolve_overrides(pairs: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """GATEWAY_RESOLVE's ``name=address`` pairs as a table; a name may stand several times.

    Raises:
        ValueError: an entry is no such pair.
    """
    table: dict[str, tuple[str, ...]] = {}
    for pair in pairs:
        name, equals, address = (part.strip() for part in pair.partition("="))
        if not (name and equals and address):
            raise ValueError(f"RESOLVE takes name=address, and got {pair!r}")
        name = name.lower().removesuffix(".")
        table[name] = (*table.get(name, ()), address)
    return table


class UnresolvedError(SourceUnreachableError):
    """Nobody answers for the name now; what it leads to is unknown."""


async def dial(address: str, port: int, timeout_seconds: float) -> httpcore2.AsyncNetworkStream:
    """Connect to a literal address."""
    return await httpcore2.AnyIOBackend().connect_tcp(address, port, timeout=timeout_seconds)


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Connects one hop to an address that was judged, or not at all. Made anew for each hop."""

    def __init__(
        self,
        url: SafeUrl,
        policy: UrlPolicy,
        *,
        resolver: Resolver,
        dialer: Dialer,
        dns_timeout_seconds: float = DNS_TIMEOUT_SECONDS,
    ) -> None:
        self._url = url
        self._policy = policy
        self._resolver = resolver
        self._dialer = dialer
        self._dns_timeout_seconds = dns_timeout_seconds
        self._opened: list[httpcore2.AsyncNetworkStream] = []

    async def hang_up(self) -> None:
        """Close what is still open. httpcore2 forgets a connection that is canceled within its TLS handshake."""
        while self._opened:
            await self._opened.pop().aclose()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore2's
        local_address: str | None = None,  # noqa: ARG002 - the same
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,  # noqa: ARG002 - the same
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to a checked address of the hop's URL.

        Raises:
            SourceUnreachableError: the name has no addresses, one that is refused, or none that answers.
        """
        if (host, port) != (self._url.host, self._url.port):
            raise SourceUnreachableError(UNREACHABLE)
        addresses = await self.checked_addresses()
        budget_seconds = (CONNECT_TIMEOUT_SECONDS if timeout is None else timeout) / len(addresses)
        for address, verdict in addresses:
            try:
                stream = await self._dialer(address, port, budget_seconds)
            except (httpcore2.NetworkError, httpcore2.TimeoutException, OSError) as error:
                log.info("url_hop", host=host, port=port, address=address, verdict=f"no answer: {type(error).__name__}")
            else:
                self._opened.append(stream)
                log.info("url_hop", host=host, port=port, address=address, verdict=str(verdict))
                return stream
        raise SourceUnreachableError(UNREACHABLE)

    async def connect_unix_socket(
        self,
        path: str,  # noqa: ARG002 - the signature is httpcore2's
        timeout: float | None = None,  # noqa: ARG002, ASYNC109 - the same
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,  # noqa: ARG002 - the same
    ) -> httpcore2.AsyncNetworkStream:
        """Never: no URL leads to a Unix socket."""
        raise SourceUnreachableError(UNREACHABLE)

    async def sleep(self, seconds: float) -> None:
        """Wait; httpcore2's retries use it, and there are none."""
        await asyncio.sleep(seconds)

    async def checked_addresses(self) -> Sequence[tuple[str, AddressVerdict]]:
        """The addresses that may be dialled, after all of the name's have passed.

        Raises:
            SourceUnreachableError: the name has no addresses, or one that is refused.
        """
        addresses = await self._resolve(self._url.host) if self._url.literal is None else (self._url.host,)
        if not addresses or len(addresses) > MAX_ANSWERS:
            self._refuse(None, f"refused: {len(addresses)} answers")
        checked: list[tuple[str, AddressVerdict]] = []
        for address in addresses:
            # All must pass: a name that mixes good and bad answers means to be asked until the bad one comes first.
            verdict = judge_address(address, self._url, self._policy)
            if not verdict.is_allowed:
                self._refuse(address, verdict)
            checked.append((address, verdict))
        await self._refuse_named_endpoints(addresses)
        return checked[:MAX_TRIED]

    async def _refuse_named_endpoints(self, addresses: Sequence[str]) -> None:
        """Upstreams known by name: compared by what the name stands for now."""
        for name in named_endpoints(self._url, self._policy):
            if name == self._url.host:
                self._refuse(None, AddressVerdict.OWN)
            try:
                own = await self._resolve(name)
            except SourceUnreachableError:
                continue  # A name without addresses has none that could be reached.
            if shared := set(own) & set(addresses):
                self._refuse(min(shared), AddressVerdict.OWN)

    async def _resolve(self, host: str) -> Sequence[str]:
        try:
            async with asyncio.timeout(self._dns_timeout_seconds):
                return await self._resolver(host, self._url.port)
        except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
            log.info(
                "url_hop", host=host, port=self._url.port, address=None, verdict=f"unresolved: {type(error).__name__}"
            )
            kind = UnresolvedError if isinstance(error, OSError) else SourceUnreachableError
            raise kind(UNREACHABLE) from error

    def _refuse(self, address: str | None, verdict: str) -> None:
        log.warning("url_hop", host=self._url.host, port=self._url.port, address=address, verdict=str(verdict))
        raise SourceUnreachableError(UNREACHABLE)
