"""A stored file as an HTTP response: conditions, ranges, names, and headers that keep it from running in a page.

The caller has looked the file up by its link; no part of a URL is ever a path here. Bytes come from
``interfaces.Blobs`` chunk by chunk. Preconditions come first, then ranges, in the order of RFC 9110 section 13.2.2.
Starlette's FileResponse is not used because it never answers 304, refuses ranges that the RFC says to ignore, and
names a file in one form only. Source: RFC 9110, sections 13 and 14.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime
from http import HTTPStatus
from secrets import token_hex
from typing import Final, Literal, Protocol

import structlog
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.errors import NotFoundError, StorageUnreachableError
from gateway.naming import content_disposition
from gateway.placed import shown_hash

#: More ranges than this are answered with the whole file: each costs a part with its own header.
MAX_RANGES: Final = 10
#: Fields of requests that are not sent on.
_STAYING: Final = ("if-match", "if-unmodified-since", "if-range", "x-api-key")
_RANGE: Final = re.compile(r"([0-9]{0,19})\s*-\s*([0-9]{0,19})")
_TAG: Final = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')

log = structlog.get_logger(__name__)


class FileBytes(Protocol):
    """The part of ``interfaces.Blobs`` that downloads need."""

    def stream(self, blob_hash: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Bytes from ``start`` up to but without ``end``."""
        ...

    async def exists(self, blob_hash: str) -> bool:
        """Whether it is there."""
        ...

    async def link(self, blob_hash: str, *, filename: str, content_type: str) -> str | None:
        """Where it may be fetched without us, for a while, to be saved under that name; None: nowhere."""
        ...


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes from ``start`` up to but without ``end``; never empty."""

    start: int
    end: int

    def content_range(self, size_bytes: int) -> str:
        """As the Content-Range field says it."""
        return f"bytes {self.start}-{self.end - 1}/{size_bytes}"


def file_response(
    request: Request,
    *,
    blobs: FileBytes,
    blob_hash: str,
    size_bytes: int,
    content_type: str,
    filename: str,
    last_modified: float,
    max_age_seconds: int,
    disposition: Literal["attachment", "inline"] = "attachment",
) -> Response:
    """The answer to GET or HEAD for a stored file: 200, 206, 304, 412 or 416.

    Args:
        request: its method and conditional fields are read, nothing else.
        blobs: where the bytes are.
        blob_hash: their name; it is the entity tag too.
        size_bytes: how many there are.
        content_type: by our own look at the bytes, never what a client or an upstream declared.
        filename: what it should be called when saved; any text.
        last_modified: Unix seconds.
        max_age_seconds: how long a private cache may keep it.
        disposition: whether browsers save it or show it.

    Raises:
        NotFoundError: while sending, when the bytes are gone and nothing was sent yet.
    """
    etag = f'"{shown_hash(blob_hash)}"'
    headers = {
        "ETag": etag,
        "Last-Modified": formatdate(int(last_modified), usegmt=True),
        "Cache-Control": f"private, max-age={max_age_seconds}",
        "Accept-Ranges": "bytes",
        "Content-Disposition": content_disposition(filename, disposition),
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
    }
    refusal = precondition_status(request.headers, etag, int(last_modified))
    if refusal is not None:
        return Response(status_code=int(refusal), headers=headers)
    ranges = None
    if request.method == "GET" and if_range_holds(request.headers, etag, int(last_modified)):
        ranges = requested_ranges(request.headers.get("range"), size_bytes)
    if ranges is not None and not ranges:
        return Response(
            status_code=int(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE),
            headers=headers | {"Content-Range": f"bytes */{size_bytes}"},
        )
    body = _Body(blobs, blob_hash, size_bytes, content_type, ranges)
    goes_elsewhere = disposition == "attachment" and may_go_elsewhere(request, ranges)
    return _FileResponse(body, headers, filename if goes_elsewhere else None)


def may_go_elsewhere(request: Request, ranges: Sequence[ByteRange] | None) -> bool:
    """Whether this request may be sent on to object storage, where that is wanted at all.

    What stays here: HEAD, since a link is good for one method; conditions that the storage would hold against tags and times
    of its own; several ranges, which it does not know; our own pages, whose policy lets them fetch from us alone; and
    requests with a key in a header that clients take along to wherever they are sent.
    """
    fields = request.headers
    return (
        request.method == "GET"
        and not any(name in fields for name in _STAYING)
        and fields.get("sec-fetch-site") != "same-origin"
        and (ranges is None or len(ranges) == 1)
    )


def precondition_status(headers: Headers, etag: str, last_modified: int) -> HTTPStatus | None:
    """412 or 304 when a condition of the request ends it; None to go on.

    Args:
        headers: of a GET or HEAD.
        etag: the file's, with quotes.
        last_modified: Unix seconds.
    """
    if (tags := headers.get("if-match")) is not None:
        if not _matches(tags, etag, weakly=False):
            return HTTPStatus.PRECONDITION_FAILED
    elif (moment := _unix_seconds(headers.get("if-unmodified-since"))) is not None and last_modified > moment:
        return HTTPStatus.PRECONDITION_FAILED
    if (tags := headers.get("if-none-match")) is not None:
        return HTTPStatus.NOT_MODIFIED if _matches(tags, etag, weakly=True) else None
    if (moment := _unix_seconds(headers.get("if-modified-since"))) is not None and last_modified <= moment:
        return HTTPStatus.NOT_MODIFIED
    return None


def if_range_holds(headers: Headers, etag: str, last_modified: int) -> bool:
    """Whether a Range field counts: there is no If-Range, or it names exactly this file."""
    condition = headers.get("if-range")
    if condition is None:
        return True
    if '"' in condition:
        return condition.strip() == etag  # a weak tag never matches: RFC 9110 section 13.1.5
    return _unix_seconds(condition) == last_modified


def requested_ranges(field: str | None, size_bytes: int) -> Sequence[ByteRange] | None:
    """What a Range field asks for.

    Returns:
        None when the field is to be ignored (absent, another unit, malformed, more than ``MAX_RANGES``, or more bytes
        in all than the file has); else the ranges that can be satisfied, none of them meaning 416.
    """
    unit, equals, spec = (field or "").partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return None
    parts = [part.strip() for part in spec.split(",") if part.strip()]
    if not 0 < len(parts) <= MAX_RANGES:
        return None
    ranges: list[ByteRange] = []
    for part in parts:
        match = _RANGE.fullmatch(part)
        if match is None or part == "-":
            return None
        first, last = match[1], match[2]
        if first and last and int(last) < int(first):
            return None
        start = int(first) if first else max(size_bytes - int(last), 0)
        end = min(int(last) + 1, size_bytes) if first and last else size_bytes
        if start < end:
            ranges.append(ByteRange(start, end))
    # Overlapping ranges would make a small request cost many times the file.
    if sum(part.end - part.start for part in ranges) > size_bytes:
        return None
    return ranges


class _BrokenFileError(Exception):
    """The bytes ended before their announced end."""


class _Body:
    """What is sent, in the order it is sent, and how much that is."""

    def __init__(
        self,
        blobs: FileBytes,
        blob_hash: str,
        size_bytes: int,
        content_type: str,
        ranges: Sequence[ByteRange] | None,
    ) -> None:
        self._blobs = blobs
        self.blob_hash = blob_hash
        self._size_bytes = size_bytes
        self.status = HTTPStatus.OK if ranges is None else HTTPStatus.PARTIAL_CONTENT
        self._content_type = content_type
        self.headers = {"Content-Type": content_type}
        #: Bytes to say before a range, and the range.
        self._pieces: list[tuple[bytes, ByteRange]] = [(b"", ByteRange(0, size_bytes))]
        self._closing = b""
        if ranges is not None and len(ranges) == 1:
            self._pieces = [(b"", ranges[0])]
            self.headers["Content-Range"] = ranges[0].content_range(size_bytes)
        elif ranges is not None:
            self._make_multipart(ranges, content_type)
        length = sum(len(prefix) + part.end - part.start for prefix, part in self._pieces) + len(self._closing)
        self.headers["Content-Length"] = str(length)

    def _make_multipart(self, ranges: Sequence[ByteRange], content_type: str) -> None:
        boundary = token_hex(16)
        self.headers["Content-Type"] = f"multipart/byteranges; boundary={boundary}"
        self._pieces = []
        for part in ranges:
            content_range = part.content_range(self._size_bytes)
            prefix = f"\r\n--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: {content_range}\r\n\r\n"
            self._pieces.append((prefix.encode("latin-1"), part))
        self._closing = f"\r\n--{boundary}--\r\n".encode("ascii")

    async def require(self) -> None:
        """Raise NotFoundError when the bytes are not there (any more)."""
        if not await self._blobs.exists(self.blob_hash):
            raise NotFoundError("This file is not here (any more).")

    async def link(self, filename: str) -> str | None:
        """Where else it is to be had."""
        return await self._blobs.link(self.blob_hash, filename=filename, content_type=self._content_type)

    async def chunks(self) -> AsyncIterator[bytes]:
        for prefix, part in self._pieces:
            if prefix:
                yield prefix
            at = part.start
            try:
                async for chunk in self._blobs.stream(self.blob_hash, part.start, part.end):
                    at += len(chunk)
                    yield chunk
            except (FileNotFoundError, StorageUnreachableError) as error:
                raise _BrokenFileError from error
            if at != part.end:
                raise _BrokenFileError
        if self._closing:
            yield self._closing


class _FileResponse(Response):
    """Sends a ``_Body``, or to where it is; breaks off rather than pretend that a part is the whole.

    Args:
        body: what is asked for.
        headers: that come with it.
        filename: what it is to be called elsewhere; None: it is sent from here.
    """

    def __init__(self, body: _Body, headers: dict[str, str], filename: str | None) -> None:
        self._body = body
        self._filename = filename
        super().__init__(status_code=int(body.status), headers=headers | body.headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the file."""
        if self._filename is not None and (place := await self._body.link(self._filename)) is not None:
            await _elsewhere(place)(scope, receive, send)
            return
        await self._body.require()
        if scope["method"] == "HEAD":
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": b""})
            return
        stream = StreamingResponse(self._body.chunks(), status_code=self.status_code, headers=dict(self.headers))
        try:
            await stream(scope, receive, send)
        except _BrokenFileError:
            # Returning with bytes still owed makes the server close the connection: the client sees a broken download.
            log.warning("download_broken_off", blob=shown_hash(self._body.blob_hash))


def _elsewhere(place: str) -> Response:
    """To a link that is good for minutes, and for whoever has it: nobody keeps it, and no page is told where one came from."""
    headers = {"Location": place, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return Response(status_code=int(HTTPStatus.FOUND), headers=headers)


def _matches(field: str, etag: str, *, weakly: bool) -> bool:
    """Whether a list of entity tags names this one; a weak tag does only under weak comparison."""
    if field.strip() == "*":
        return True
    return any((weakly or not match[1]) and f'"{match[2]}"' == etag for match in _TAG.finditer(field))


def _unix_seconds(field: str | None) -> int | None:
    """An HTTP date; None when there is none or it is no date, which is to be ignored."""
    try:
        moment = parsedate_to_datetime(field) if field is not None else None
        return None if moment is None else int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())
    except (ValueError, OverflowError):
        return None
