"""URL inputs: fetched without reaching anything the operator did not mean to be reached, and without being drowned.

What may be asked for is decided in ``safety.py``, who is dialled in ``dialing.py``; here stand the hops, the limits in
bytes and seconds, and what counts as a usable answer. Bytes go straight into a blob writer, so an error leaves nothing.

httpcore2 is spoken to directly: between the parser that judged a URL and the wire stands no second parser that could
read it differently, and there are no cookies, proxies from the environment, redirects or decompression to switch off.
Every cause that depends on the other side ends as the same ``SourceUnreachableError``; what is said beyond it depends
only on bytes that the caller could have uploaded just as well.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import certifi
import httpcore2

from gateway.audit import MediaKind
from gateway.blobs.dialing import (
    CONNECT_TIMEOUT_SECONDS,
    DNS_TIMEOUT_SECONDS,
    HTTPCORE_ERRORS,
    Dialer,
    GuardedBackend,
    Resolver,
    UnresolvedError,
    dial,
)
from gateway.errors import CallerError, SourceUnreachableError, TooLargeError, UnsupportedMediaError
from gateway.interfaces import Blob, Blobs
from gateway.safety import MAX_REDIRECTS, UNREACHABLE, SafeUrl, UrlPolicy, parse_url, redirect_url, spell_bytes
from gateway.sniffing import HEAD_BYTES, MediaType, sniff

#: Fetches under way at once; each may hold a connection and half a MiB.
MAX_CONCURRENT: Final = 16
_OK: Final = 200
_REDIRECTS: Final = range(300, 400)
_MARKUP_TYPES: Final = frozenset({b"text/html", b"application/xhtml+xml", b"image/svg+xml"})


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How long the other side may take. A time-out per read ends nothing that drips, so the whole has a deadline."""

    image_deadline_seconds: float = 30.0
    video_deadline_seconds: float = 300.0
    dns_timeout_seconds: float = DNS_TIMEOUT_SECONDS
    connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS
    #: The body may be slower than the least rate for this long.
    slow_start_seconds: float = 10.0
    least_bytes_per_second: float = 32 * 1024


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that lies in the blob store now."""

    blob: Blob
    #: By its first bytes; whether it decodes is for ``media/`` to say.
    media_type: MediaType


def tls_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """What certificates of URL inputs are checked against: the system's authorities, certifi's, and those of CA_FILE.

    Raises:
        OSError: the file cannot be read or holds no certificate.
    """
    context = ssl.create_default_context()
    # Slim images ship no authorities of their own.
    context.load_verify_locations(certifi.where())
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


class UrlFetcher:
    """Judges URL inputs (``check``, at once) and fetches them (``fetch``, later).

    Args:
        blobs: where the bytes go.
        policy: asked for each URL and each hop, since upstreams come and go.
        resolver: asks for a name's addresses; nothing else is believed.
        dialer: connects to a literal address.
        tls: see ``tls_context``.
        limits: seconds and rates.
        monotonic: seconds that never jump.
    """

    def __init__(
        self,
        blobs: Blobs,
        *,
        policy: Callable[[], UrlPolicy],
        resolver: Resolver,
        tls: ssl.SSLContext,
        dialer: Dialer = dial,
        limits: FetchLimits | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._blobs = blobs
        self._policy = policy
        self._resolver = resolver
        self._tls = tls
        self._dialer = dialer
        self._limits = limits or FetchLimits()
        self._monotonic = monotonic
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)

    def check(self, url: str, *, field: str, https_only: bool = False) -> SafeUrl:
        """The URL, judged without touching the network.

        Raises:
            InvalidInputError: with the field and a sentence for the client.
        """
        return parse_url(url, self._policy(), field=field, https_only=https_only)

    async def require_public(self, url: SafeUrl, *, field: str) -> None:
        """Resolve a checked URL's host and judge every address, and dial none: for what is called later.

        A name that nobody answers for now passes: what it leads to is judged again when it is called.

        Raises:
            SourceUnreachableError: the name has no address, or one that is refused.
        """
        try:
            await self._backend(url).checked_addresses()
        except UnresolvedError:
            return
        except SourceUnreachableError as error:
            error.field = field
            raise

    async def fetch(
        self,
        url: SafeUrl,
        *,
        caps: Mapping[MediaKind, int],
        field: str,
        https_only: bool = False,
        deadline_seconds: float | None = None,
    ) -> Fetched:
        """The file behind a checked URL, stored.

        Args:
            url: what ``check`` returned.
            caps: the kinds that are accepted, each with its largest size in bytes.
            field: the request field, for errors.
            https_only: redirects to http are refused even where the allow-list permits it.
            deadline_seconds: for the whole of it, where that is less than what ``limits`` allow.

        Raises:
            SourceUnreachableError: it could not be fetched; one sentence for every cause.
            TooLargeError: naming the limit.
            UnsupportedMediaError: not of an accepted kind, or encoded.
            StorageFullError: no room for it.
        """
        limits = self._limits
        longest = limits.video_deadline_seconds if MediaKind.VIDEO in caps else limits.image_deadline_seconds
        try:
            async with asyncio.timeout(longest if deadline_seconds is None else min(longest, deadline_seconds)):
                async with self._slots:
                    return await self._follow(url, caps, https_only=https_only)
        except TimeoutError as error:
            raise SourceUnreachableError(UNREACHABLE, field=field) from error
        except CallerError as error:
            error.field = field
            raise

    async def _follow(self, url: SafeUrl, caps: Mapping[MediaKind, int], *, https_only: bool) -> Fetched:
        for _ in range(MAX_REDIRECTS + 1):
            async with self._ask(url) as response:
                if response.status not in _REDIRECTS:
                    return await self._save(response, caps)
                location = _header(response, b"location")
            url = redirect_url(url, response.status, location, self._policy(), https_only=https_only)
        raise SourceUnreachableError(UNREACHABLE)

    @asynccontextmanager
    async def _ask(self, url: SafeUrl) -> AsyncIterator[httpcore2.Response]:
        """One hop: a connection of its own, one GET, no state that another request could see."""
        limits = self._limits
        backend = self._backend(url)
        pool = httpcore2.AsyncConnectionPool(
            ssl_context=self._tls, max_connections=1, max_keepalive_connections=0, network_backend=backend
        )
        patience = limits.slow_start_seconds
        timeouts = {"connect": limits.connect_timeout_seconds, "read": patience, "write": patience, "pool": patience}
        request = httpcore2.Request(
            "GET",
            httpcore2.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target),
            headers={
                "Host": url.host_header,
                "User-Agent": "comfygate",
                "Accept": "image/*, video/*",
                "Accept-Encoding": "identity",
                "Connection": "close",
            },
            extensions={"timeout": timeouts},
        )
        try:
            async with pool:
                try:
                    response = await pool.handle_async_request(request)
                except (*HTTPCORE_ERRORS, OSError, ValueError) as error:  # ValueError: a name that TLS cannot spell
                    raise SourceUnreachableError(UNREACHABLE) from error
                try:
                    yield response
                finally:
                    await response.aclose()
        finally:
            await backend.hang_up()

    def _backend(self, url: SafeUrl) -> GuardedBackend:
        return GuardedBackend(
            url,
            self._policy(),
            resolver=self._resolver,
            dialer=self._dialer,
            dns_timeout_seconds=self._limits.dns_timeout_seconds,
        )

    async def _save(self, response: httpcore2.Response, caps: Mapping[MediaKind, int]) -> Fetched:
        announced = _announced_bytes(response)
        _require_usable(response, announced)
        _require_fit(announced or 0, max(caps.values()))
        async with aclosing(self._body(response)) as body:
            head = await _head(body)
            if not head:
                raise SourceUnreachableError(UNREACHABLE)
            media_type = sniff(head[:HEAD_BYTES])
            if media_type is None or media_type.kind not in caps:
                raise UnsupportedMediaError(f"The file behind this URL is not {_wanted(caps)}.")
            cap = caps[media_type.kind]
            _require_fit(announced or len(head), cap)
            return Fetched(await self._store(head, body, cap, announced), media_type)

    async def _store(self, head: bytes, body: AsyncIterator[bytes], cap: int, announced: int | None) -> Blob:
        async with await self._blobs.writer(expected_bytes=announced) as writer:
            received = len(head)
            await writer.write(head)
            async for chunk in body:
                received += len(chunk)
                _require_fit(received, cap)
                await writer.write(chunk)
            return await writer.commit()

    async def _body(self, response: httpcore2.Response) -> AsyncGenerator[bytes]:
        """The body as it comes, never decoded: a few hundred bytes can decompress into gigabytes."""
        started = self._monotonic()
        received = 0
        # httpcore2's stream, with its errors told apart from those of whoever takes the chunks.
        chunks = aiter(response.aiter_stream())
        while True:
            try:
                chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except HTTPCORE_ERRORS as error:
                raise SourceUnreachableError(UNREACHABLE) from error
            received += len(chunk)
            seconds = self._monotonic() - started
            if seconds > self._limits.slow_start_seconds and received < seconds * self._limits.least_bytes_per_second:
                raise SourceUnreachableError(UNREACHABLE)
            yield chunk


async def _head(body: AsyncIterator[bytes]) -> bytes:
    """Enough of the body to be recognised; nothing is stored before that."""
    head = b""
    async for chunk in body:
        head += chunk
        if len(head) >= HEAD_BYTES:
            break
    return head


def _require_usable(response: httpcore2.Response, announced: int | None) -> None:
    if response.status != _OK or announced == 0:
        raise SourceUnreachableError(UNREACHABLE)
    encodings = {value.strip().lower() for name, value in response.headers if name.lower() == b"content-encoding"}
    if encodings - {b"identity", b""}:
        raise UnsupportedMediaError("The file behind this URL is sent compressed, which was not asked for.")
    declared = (_header(response, b"content-type") or b"").partition(b";")[0].strip().lower()
    if declared in _MARKUP_TYPES:
        raise UnsupportedMediaError("Behind this URL is a page or a drawing, not a picture or a video file.")


def _require_fit(size_bytes: int, cap: int) -> None:
    if size_bytes > cap:
        raise TooLargeError(f"The file behind this URL is larger than {spell_bytes(cap)}.")


def _announced_bytes(response: httpcore2.Response) -> int | None:
    text = _header(response, b"content-length")
    return int(text) if text is not None else None  # h11 has checked that it is a number


def _header(response: httpcore2.Response, wanted: bytes) -> bytes | None:
    return next((value for name, value in response.headers if name.lower() == wanted), None)


def _wanted(caps: Mapping[MediaKind, int]) -> str:
    names = {
        MediaKind.IMAGE: "a JPEG, PNG or WebP picture",
        MediaKind.GIF: "a GIF",
        MediaKind.VIDEO: "an MP4, MOV or WebM video",
    }
    return " or ".join(names[kind] for kind in MediaKind if kind in caps)
