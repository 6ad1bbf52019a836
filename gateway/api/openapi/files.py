"""Files over HTTP, described: those that are fetched, with ranges and conditions, and the types of those that are sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from gateway.api.openapi.vocabulary import BYTES, Answer, Content, Parameter
from gateway.audit import MediaKind
from gateway.sniffing import GIF, JPEG, MP4, PNG, QUICKTIME, WEBM, WEBP

_TYPES: Final = (JPEG, PNG, WEBP, GIF, MP4, QUICKTIME, WEBM)
_VALIDATORS: Final[Mapping[str, str]] = {
    "ETag": "Of the bytes.",
    "Last-Modified": "When the job ended.",
    "Cache-Control": "private, for as long as the file is kept.",
    "Accept-Ranges": "bytes",
    "Content-Disposition": "The name to save it under.",
}
_RANGE: Final = {"Content-Range": "Which part it is, of how many bytes."}
_BYTES: Final = Content(BYTES)

FILE_PARAMETERS: Final = (
    Parameter(
        "Range",
        "Parts of the file; several are answered as multipart/byteranges.",
        where="header",
        example="bytes=0-1023",
    ),
    Parameter("If-None-Match", "Answer 304 when the file is still this one.", where="header"),
    Parameter("If-Range", "Answer the whole file unless it is still this one.", where="header"),
)


def _answers(*types: str) -> tuple[Answer, ...]:
    whole = dict.fromkeys(types, _BYTES)
    return (
        Answer(200, "The whole file.", whole, _VALIDATORS),
        # Of several parts each has its own Content-Range.
        Answer(206, "The parts that were asked for.", {**whole, "multipart/byteranges": _BYTES}, _VALIDATORS),
        Answer(
            302,
            "Where the file is to be fetched, with the same `Range`: object storage, when `GATEWAY_STORAGE_DOWNLOADS` is redirect.",
            {},
            {"Location": "A link that opens for five minutes.", "Cache-Control": "no-store"},
        ),
        Answer(304, "It is the file that the client has.", {}, _VALIDATORS),
        Answer(412, "It is not the file that the client wants.", {}, _VALIDATORS),
        Answer(416, "The file has no such part.", {}, {**_VALIDATORS, **_RANGE}),
    )


#: Results of jobs: pictures and videos.
FILE_ANSWERS: Final = _answers("image/*", "video/*")
#: Whatever was uploaded, too.
ANY_FILE_ANSWERS: Final = _answers("*/*")


def types_of(kinds: Iterable[MediaKind]) -> str:
    """The content types of kinds of file, with commas between them."""
    wanted = frozenset(kinds)
    return ", ".join(known.content_type for known in _TYPES if known.kind in wanted)
