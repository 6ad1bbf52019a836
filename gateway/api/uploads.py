"""Request bodies: forms and JSON, with files or without. Streamed, counted, and gone when anything is wrong.

A file goes from the socket straight into a blob writer (``incoming.py``), be it part of a form or a data URI in JSON;
nothing is spooled to a temporary folder, nothing is believed of what a part says about itself but its field's name.

Sources: RFC 7578 (multipart/form-data) over python-multipart's push parser, which limits part headers by itself.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from secrets import token_hex
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qsl

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from gateway.api.bodies import Body, BodyPace, too_large_body
from gateway.api.facade import Stopping
from gateway.api.incoming import IncomingFiles, ReceivedFile, TakenFiles, UploadBlobs
from gateway.audit import MediaKind
from gateway.errors import InvalidInputError, TooLargeError, UnsupportedMediaError
from gateway.lifting import Began, Ended, Lifter
from gateway.safety import spell_bytes
from gateway.strictjson import JsonValue, loads_object

_MIB: Final = 1024**2
#: What a file name may take for display; as long as a name on most file systems.
_NAME_BYTES: Final = 255
#: JSON larger than this is parsed in a thread: about a millisecond's work.
_INLINE_JSON_BYTES: Final = 64 * 1024
_PLAIN_ENCODINGS: Final = frozenset({b"", b"7bit", b"8bit", b"binary"})
#: A data URI's text, before it is decoded: 12 MiB of file in base64.
MAX_DATA_URI_BYTES: Final = 16 * _MIB
MAX_DATA_URIS: Final = 2
#: Beside the data URIs: what spelling "/" as "\/" adds to two of them, half a MiB, with room.
_SPELLING_BYTES: Final = 3 * _MIB


@dataclass(frozen=True, slots=True)
class FormLimits:
    """What a body may be."""

    max_body_bytes: int = 1100 * _MIB
    max_json_bytes: int = _MIB
    #: Kinds of file that are accepted, each with its largest size in bytes.
    caps: Mapping[MediaKind, int] = field(
        default_factory=lambda: MappingProxyType(
            {MediaKind.IMAGE: 25 * _MIB, MediaKind.GIF: 50 * _MIB, MediaKind.VIDEO: 1024 * _MIB}
        )
    )
    max_files: int = 4
    max_fields: int = 32
    max_field_bytes: int = 64 * 1024
    #: Fields of a multipart form that may come several times, and how often; beside ``max_fields``.
    repeatable: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    pace: BodyPace = field(default_factory=BodyPace)

    @property
    def max_lifted_body_bytes(self) -> int:
        """A JSON body with data URIs in it, as it comes: 36 MiB, unless the settings say otherwise."""
        return min(self.max_body_bytes, self.max_json_bytes + MAX_DATA_URIS * MAX_DATA_URI_BYTES + _SPELLING_BYTES)


class Form(TakenFiles):
    """A whole, well-formed form. Leave its context without ``keep`` and the files are taken back."""

    def __init__(
        self,
        blobs: UploadBlobs,
        fields: Mapping[str, str],
        files: Mapping[str, ReceivedFile],
        repeated: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    ) -> None:
        super().__init__(blobs, files)
        self.fields = fields
        #: The values of fields that may come several times, in order; not in ``fields``.
        self.repeated = repeated


class LiftedJson(TakenFiles):
    """A whole, strict JSON object, and the data URIs that stood in it, by the mark that stands there now."""

    def __init__(self, blobs: UploadBlobs, body: Mapping[str, JsonValue], files: Mapping[str, ReceivedFile]) -> None:
        super().__init__(blobs, files)
        self.body = body


async def receive_form(
    request: Request,
    blobs: UploadBlobs,
    limits: FormLimits,
    *,
    stopping: Stopping,
    monotonic: Callable[[], float] = time.monotonic,
) -> Form:
    """The form that a request carries: multipart, urlencoded, or a flat JSON object. An empty body is an empty form.

    Raises:
        TooLargeError: naming the limit; before a byte was read when Content-Length says so.
        InvalidInputError: malformed, cut off, too slow, a field twice, an empty file (with its field).
        UnsupportedMediaError: a body of another type, or a file of a kind that is not accepted (with its field).
        StorageFullError: no room for it.
        ShuttingDownError: the gateway stops.
        ClientDisconnect: the client left; Starlette's.
    """
    body = Body(request, limits.pace, monotonic, stopping)
    content_type, options = parse_options_header(request.headers.get("content-type"))
    match content_type.lower():
        case b"multipart/form-data":
            body.require_fit(limits.max_body_bytes)
            return await _receive_multipart(body, options.get(b"boundary", b""), blobs, limits)
        case b"application/x-www-form-urlencoded":
            fields = _urlencoded_fields(await body.read(limits.max_json_bytes), limits)
        case b"application/json":
            fields = _json_fields(await _load(await body.read(limits.max_json_bytes)), limits)
        case _:
            await body.read(0, UnsupportedMediaError("The body is neither a form nor JSON."))
            fields = {}
    return Form(blobs, fields, {})


async def receive_json(
    request: Request, limits: FormLimits, *, stopping: Stopping, monotonic: Callable[[], float] = time.monotonic
) -> dict[str, JsonValue]:
    """The JSON object that a request carries, whatever its Content-Type says.

    Raises:
        TooLargeError: larger than ``max_json_bytes``.
        InvalidInputError: not one strict JSON object, or too slow.
        ShuttingDownError: the gateway stops.
        ClientDisconnect: the client left; Starlette's.
    """
    return await _load(await Body(request, limits.pace, monotonic, stopping).read(limits.max_json_bytes))


async def receive_lifted_json(
    request: Request,
    blobs: UploadBlobs,
    limits: FormLimits,
    *,
    stopping: Stopping,
    monotonic: Callable[[], float] = time.monotonic,
) -> LiftedJson:
    """The JSON object that a request carries, whatever its Content-Type says, its data URIs as files.

    In memory stands ``max_json_bytes`` at most and the piece that just came; 64 KiB of base64 take about a millisecond,
    of anything else that a client can think of, ten at most.

    Raises:
        TooLargeError: the body, a data URI (with its field) or what stands beside them.
        InvalidInputError: not one strict JSON object, or too slow; a data URI malformed or empty (with its field).
        UnsupportedMediaError: a data URI is of a kind that is not accepted (with its field).
        StorageFullError: no room for it.
        ShuttingDownError: the gateway stops.
        ClientDisconnect: the client left; Starlette's.
    """
    body, cap = Body(request, limits.pace, monotonic, stopping), limits.max_lifted_body_bytes
    body.require_fit(cap)
    lifter = Lifter(
        f"{token_hex(16)}:",
        max_uris=MAX_DATA_URIS,
        max_uri_bytes=MAX_DATA_URI_BYTES,
        max_rest_bytes=limits.max_json_bytes,
    )
    async with IncomingFiles(blobs, limits.caps, body.announced_bytes) as intake:
        received = 0
        async for chunk in body.chunks():
            received += len(chunk)
            if received > cap:
                raise too_large_body(cap)
            await _take_lifted(lifter, chunk, intake)
        value = await _load(lifter.close())
        return LiftedJson(blobs, value, await intake.commit())


async def _take_lifted(lifter: Lifter, chunk: bytes, intake: IncomingFiles) -> None:
    # Some servers give a body that came at once in one piece: cut, so that others get their turn in between.
    for at in range(0, len(chunk), _INLINE_JSON_BYTES):
        for lifted in lifter.feed(chunk[at : at + _INLINE_JSON_BYTES]):
            if isinstance(lifted, Began):
                intake.begin(lifted.mark, lifted.field, lifted.field)
            elif isinstance(lifted, Ended):
                await intake.end()
            else:
                await intake.write(lifted)
        await asyncio.sleep(0)


# ---------------------------------------------------------------------------------------------------------- multipart


async def _receive_multipart(body: Body, boundary: bytes, blobs: UploadBlobs, limits: FormLimits) -> Form:
    if not boundary:
        raise InvalidInputError("The multipart body names no boundary.")
    async with IncomingFiles(blobs, limits.caps, body.announced_bytes) as intake:
        receiver = _Receiver(blobs, limits, intake)
        parts = _Parts(boundary)
        received = 0
        async for chunk in body.chunks():
            received += len(chunk)
            if received > limits.max_body_bytes:
                raise too_large_body(limits.max_body_bytes)
            for event, data in parts.feed(chunk):
                await receiver.take(event, data)
        if not parts.is_complete:
            raise InvalidInputError("The multipart body ends before its last boundary.")
        return await receiver.commit()


class _Parts:
    """python-multipart's callbacks as a list of (what, bytes) per chunk, so that the taker may await."""

    def __init__(self, boundary: bytes) -> None:
        self._events: list[tuple[str, bytes]] = []
        self.is_complete = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": lambda: self._events.append(("begin", b"")),
                    "on_header_field": self._note("header_name"),
                    "on_header_value": self._note("header_value"),
                    "on_header_end": lambda: self._events.append(("header_end", b"")),
                    "on_headers_finished": lambda: self._events.append(("headers_end", b"")),
                    "on_part_data": self._note("data"),
                    "on_part_end": lambda: self._events.append(("end", b"")),
                    "on_end": self._complete,
                },
            )
        except FormParserError:
            raise InvalidInputError("The boundary of the multipart body is malformed.") from None

    def feed(self, chunk: bytes) -> list[tuple[str, bytes]]:
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise InvalidInputError("The multipart body is malformed.") from None
        events, self._events = self._events, []
        return events

    def _note(self, what: str) -> Callable[[bytes, int, int], None]:
        def note(data: bytes, start: int, end: int) -> None:
            self._events.append((what, data[start:end]))

        return note

    def _complete(self) -> None:
        self.is_complete = True


class _Receiver:
    """Takes a multipart body's events and makes fields and files of them."""

    def __init__(self, blobs: UploadBlobs, limits: FormLimits, intake: IncomingFiles) -> None:
        self._blobs = blobs
        self._limits = limits
        self._intake = intake
        self._header_name = b""
        self._header_value = b""
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._fields: dict[str, bytearray] = {}
        self._repeated: dict[str, list[bytearray]] = {}
        #: Of the field that is being read.
        self._value = bytearray()
        self._is_file = False

    async def take(self, event: str, data: bytes) -> None:
        match event:
            case "begin":
                self._headers = {}
            case "header_name":
                self._header_name += data
            case "header_value":
                self._header_value += data
            case "header_end":
                self._headers[self._header_name.lower()] = self._header_value
                self._header_name = self._header_value = b""
            case "headers_end":
                self._begin_part()
            case "data":
                await self._take_data(data)
            case "end":
                await self._end_part()

    async def commit(self) -> Form:
        """Make everything durable. What was committed before one fails is taken back."""
        fields = {name: _text(name, value) for name, value in self._fields.items()}
        repeated = {name: tuple(_text(name, value) for value in values) for name, values in self._repeated.items()}
        return Form(self._blobs, fields, await self._intake.commit(), repeated)

    def _begin_part(self) -> None:
        disposition, options = parse_options_header(self._headers.get(b"content-disposition"))
        if disposition.lower() != b"form-data" or not options.get(b"name"):
            raise InvalidInputError("A part of the multipart body has no field name.")
        if self._headers.get(b"content-transfer-encoding", b"").strip().lower() not in _PLAIN_ENCODINGS:
            raise InvalidInputError("A part of the multipart body is encoded; send it as it is.")
        self._name = _text("name", options[b"name"])
        if self._name in self._fields or self._name in self._intake:
            raise InvalidInputError(f"The field {self._name!r} stands in the body twice.", field=self._name)
        if (filename := options.get(b"filename")) is None:
            self._begin_field()
        else:
            self._begin_file(_display_name(filename))

    def _begin_field(self) -> None:
        self._is_file = False
        self._value = bytearray()
        if (most := self._limits.repeatable.get(self._name)) is not None:
            values = self._repeated.setdefault(self._name, [])
            if len(values) == most:
                raise _too_many(most, f"fields {self._name!r}")
            values.append(self._value)
            return
        if len(self._fields) == self._limits.max_fields:
            raise _too_many(self._limits.max_fields, "fields")
        self._fields[self._name] = self._value

    def _begin_file(self, display_name: str) -> None:
        if len(self._intake) == self._limits.max_files:
            raise _too_many(self._limits.max_files, "files")
        self._is_file = True
        self._intake.begin(self._name, self._name, display_name)

    async def _take_data(self, data: bytes) -> None:
        if self._is_file:
            await self._intake.write(data)
            return
        self._value += data
        _require_short(self._name, len(self._value), self._limits)

    async def _end_part(self) -> None:
        if self._is_file:
            await self._intake.end()


# ------------------------------------------------------------------------------------------------- bodies without files


def _urlencoded_fields(body: bytes, limits: FormLimits) -> dict[str, str]:
    fields: dict[str, str] = {}
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=limits.max_fields
        )
    except ValueError:  # UnicodeDecodeError is one, too many fields another
        raise InvalidInputError(f"The form is malformed or has more than {limits.max_fields} fields.") from None
    for name, value in pairs:
        if name in fields:
            raise InvalidInputError(f"The field {name!r} stands in the body twice.", field=name)
        _require_short(name, len(value.encode()), limits)
        fields[name] = value
    return fields


def _json_fields(body: Mapping[str, JsonValue], limits: FormLimits) -> dict[str, str]:
    """A flat object as a form: true is "true", 1 is "1", null is a field that is not there."""
    if len(body) > limits.max_fields:
        raise _too_many(limits.max_fields, "fields")
    fields: dict[str, str] = {}
    for name, value in body.items():
        if isinstance(value, list | dict):
            raise InvalidInputError(f"The field {name!r} must be a text, a number or a truth value.", field=name)
        if value is not None:
            fields[name] = value if isinstance(value, str) else json.dumps(value)
            _require_short(name, len(fields[name].encode()), limits)
    return fields


async def _load(body: bytes) -> dict[str, JsonValue]:
    if len(body) <= _INLINE_JSON_BYTES:
        return loads_object(body)
    return await asyncio.to_thread(loads_object, body)


# ------------------------------------------------------------------------------------------------------ pieces of these


def _text(name: str, value: bytes | bytearray) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInputError("A field of the body is not UTF-8.", field=name) from None


def _display_name(raw: bytes) -> str:
    """What to show: the last part of a path, no control characters, cut at a whole character."""
    last = raw.decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
    shown = "".join(char for char in last if char.isprintable())
    return shown.encode()[:_NAME_BYTES].decode("utf-8", "ignore")


def _require_short(name: str, size_bytes: int, limits: FormLimits) -> None:
    if size_bytes > limits.max_field_bytes:
        raise TooLargeError(f"The field {name!r} is longer than {spell_bytes(limits.max_field_bytes)}.", field=name)


def _too_many(limit: int, what: str) -> InvalidInputError:
    return InvalidInputError(f"The body has more than {limit} {what}.")
