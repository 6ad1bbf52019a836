"""The first function of the dialect ``swaps_v1``: a JSON body as what is asked for; pure.

``read_swap`` holds every rule that the published document states for the create body; where the document is silent the
rule is ours, and ``docs/dialects.md`` says so. URLs are not judged here: that is for the guard behind ``Service``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gateway.api.members import Members
from gateway.api.url_inputs import UrlInput
from gateway.audit import MediaKind
from gateway.consent import FIELD as CONSENT
from gateway.consent import Attestation, by_field
from gateway.errors import InvalidInputError
from gateway.strictjson import JsonValue

MAX_METADATA_BYTES: Final = 16 * 1024
MAX_METADATA_DEPTH: Final = 8
#: Whole numbers that can be kept: those of 64 bits, with a sign or without.
METADATA_INTEGERS: Final = range(-(2**63), 2**64)
#: As many faces as the shipped templates put into one job.
MAX_FACES: Final = 10
#: Places of faces have two digits in the templates.
LAST_FACE: Final = 99

#: The target's name among the ``urls``.
TARGET: Final = "target"
_STILL: Final = frozenset({MediaKind.IMAGE})


class SwapType(StrEnum):
    """``type``: what the target is, and how faces are named."""

    IMAGE = "image"
    MULTI_FACE_IMAGE = "multi_face_image"
    GIF = "gif"
    VIDEO = "video"


TARGETS: Final[Mapping[SwapType, MediaKind]] = {
    SwapType.IMAGE: MediaKind.IMAGE,
    SwapType.MULTI_FACE_IMAGE: MediaKind.IMAGE,
    SwapType.GIF: MediaKind.GIF,
    SwapType.VIDEO: MediaKind.VIDEO,
}
_MOVING: Final = frozenset({SwapType.GIF, SwapType.VIDEO})
_MANY: Final = frozenset({SwapType.MULTI_FACE_IMAGE, SwapType.VIDEO})
#: Members that belong to some types only: elsewhere they would promise what is not done.
ONLY_OF: Final[Mapping[str, frozenset[SwapType]]] = {
    "reference_frame_time_seconds": _MOVING,
    "duration_seconds": _MOVING,
    "file_size_bytes": _MOVING,
    "keep_audio": frozenset({SwapType.VIDEO}),
    "face_swaps": _MANY,
}
#: Said for each mapping in ``face_swaps`` by the mapping itself.
OF_ONE_FACE: Final = ("source_url", "target_face_index", "reference_frame_time_seconds")


@dataclass(frozen=True, slots=True)
class FaceSwap:
    """One face to replace."""

    #: Which of the request's ``urls`` leads to the photo of the new face.
    source: str
    #: Place in the target: by size, 0 is the largest.
    face_index: int
    #: Where in a moving target that place is looked up; None: the beginning.
    frame_time_seconds: float | None
    enhance: bool


@dataclass(frozen=True, slots=True)
class SwapRequest:
    """What a client asks for, checked as far as its own words go."""

    type: SwapType
    #: "target", and the photos: each once, however many faces are taken from it.
    urls: Mapping[str, UrlInput]
    faces: tuple[FaceSwap, ...]
    #: ``face_swaps`` named the faces; otherwise there is one.
    names_each_face: bool
    keep_audio: bool
    webhook_url: str | None
    metadata: Mapping[str, JsonValue] | None
    #: What the client says of the target's length and size: kept, never believed.
    declared: Mapping[str, float]
    #: What is said of the people in the pictures.
    consent: Attestation | None = None


def read_swap(body: Mapping[str, JsonValue]) -> SwapRequest:
    """The body of a create.

    Raises:
        InvalidInputError: naming the member that is missing, of the wrong type, out of range, or not of this type.
    """
    members = Members(body)
    kind = _type(members)
    for member, types in ONLY_OF.items():
        if members.has(member) and kind not in types:
            raise members.refused(member, f"is for type {' or '.join(sorted(types))} only")
    sources: dict[str, UrlInput] = {}
    names_each_face = members.has("face_swaps") or kind is SwapType.MULTI_FACE_IMAGE
    faces = _mapped_faces(members, kind, sources) if names_each_face else (_one_face(members, sources),)
    target = UrlInput(_required_text(members, "target_url"), "target_url", frozenset({TARGETS[kind]}))
    keep_audio = members.flag("keep_audio")
    return SwapRequest(
        type=kind,
        # In the order of the document, which is the order in which the first that cannot be had is named.
        urls={**sources, TARGET: target},
        faces=faces,
        names_each_face=names_each_face,
        keep_audio=True if keep_audio is None else keep_audio,
        webhook_url=members.text("webhook_url"),
        metadata=_metadata(members),
        declared=_declared(members),
        consent=by_field(body.get(CONSENT)),
    )


def read_detection(body: Mapping[str, JsonValue]) -> UrlInput:
    """The body of a face detection. Raises InvalidInputError."""
    return UrlInput(_required_text(Members(body), "target_url"), "target_url", _STILL)


def _type(members: Members) -> SwapType:
    text = members.text("type")
    try:
        return SwapType(text or "")
    except ValueError:
        raise members.refused("type", f"must be one of {', '.join(SwapType)}") from None


def _one_face(members: Members, sources: dict[str, UrlInput]) -> FaceSwap:
    return FaceSwap(
        source=_source(members, sources),
        face_index=members.integer("target_face_index", least=0, most=LAST_FACE) or 0,
        frame_time_seconds=members.number("reference_frame_time_seconds"),
        enhance=members.flag("enable_face_enhancer") or False,
    )


def _mapped_faces(members: Members, kind: SwapType, sources: dict[str, UrlInput]) -> tuple[FaceSwap, ...]:
    mappings = members.list("face_swaps")
    if mappings is None:
        raise members.refused("face_swaps", f"is required for type {kind}")
    if not 1 <= len(mappings) <= MAX_FACES:
        raise members.refused("face_swaps", f"must hold 1 to {MAX_FACES} mappings")
    for member in OF_ONE_FACE:
        if members.has(member):
            raise members.refused(member, "does not go with face_swaps, whose mappings say it each for itself")
    enhance = members.flag("enable_face_enhancer") or False
    faces = tuple(
        _mapped_face(_mapping(members, value, number), kind, sources, enhance=enhance)
        for number, value in enumerate(mappings)
    )
    _refuse_twice(members, faces)
    return faces


def _mapping(members: Members, value: JsonValue, number: int) -> Members:
    if not isinstance(value, dict):
        raise members.refused(f"face_swaps[{number}]", "must be an object")
    return Members(value, f"face_swaps[{number}].")


def _mapped_face(mapping: Members, kind: SwapType, sources: dict[str, UrlInput], *, enhance: bool) -> FaceSwap:
    index = mapping.integer("face_index", least=0, most=LAST_FACE)
    if index is None:
        raise mapping.refused("face_index", "is required")
    moment = mapping.number("frame_time_seconds") if kind is SwapType.VIDEO else None
    if kind is SwapType.VIDEO and moment is None:
        raise mapping.refused("frame_time_seconds", "is required")
    wish = mapping.flag("enable_face_enhancer")
    return FaceSwap(_source(mapping, sources), index, moment, enhance if wish is None else wish)


def _source(members: Members, sources: dict[str, UrlInput]) -> str:
    """Which photo a ``source_url`` names; one photo for several faces is fetched once."""
    url = _required_text(members, "source_url")
    for name, known in sources.items():
        if known.url == url:
            return name
    name = f"source {len(sources)}"
    sources[name] = UrlInput(url, members.name("source_url"), _STILL)
    return name


def _refuse_twice(members: Members, faces: Sequence[FaceSwap]) -> None:
    seen: set[tuple[int, float | None]] = set()
    for number, face in enumerate(faces):
        place = (face.face_index, face.frame_time_seconds)
        if place in seen:
            raise members.refused(f"face_swaps[{number}].face_index", "names a face that another mapping replaces")
        seen.add(place)


def _required_text(members: Members, member: str) -> str:
    text = members.text(member)
    if not text:
        raise members.refused(member, "is required")
    return text


def _declared(members: Members) -> dict[str, float]:
    duration = members.number("duration_seconds", may_be_zero=False)
    size = members.integer("file_size_bytes", least=1)
    return {
        name: value for name, value in (("duration_seconds", duration), ("file_size_bytes", size)) if value is not None
    }


def _metadata(members: Members) -> Mapping[str, JsonValue] | None:
    value = members.object("metadata")
    if value is None:
        return None
    if _depth(value) > MAX_METADATA_DEPTH:
        raise members.refused("metadata", f"must not be nested deeper than {MAX_METADATA_DEPTH} levels")
    if not _can_be_kept(value):
        raise members.refused("metadata", "must not hold whole numbers of more than 64 bits")
    if len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()) > MAX_METADATA_BYTES:
        raise members.refused("metadata", f"must not be larger than {MAX_METADATA_BYTES} bytes")
    return value


def _depth(value: JsonValue) -> int:
    """Levels of nesting; recursion ends at the depth that a body may have."""
    return isinstance(value, dict | list) + max(map(_depth, _within(value)), default=0)


def _can_be_kept(value: JsonValue) -> bool:
    """Whether no whole number in it is too large; of a depth that was looked at."""
    is_fit = not isinstance(value, int) or value in METADATA_INTEGERS
    return is_fit and all(map(_can_be_kept, _within(value)))


def _within(value: JsonValue) -> Sequence[JsonValue]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ()


def wants_wait(values: Sequence[str]) -> bool:
    """The query's ``wait``. Raises InvalidInputError."""
    if len(values) > 1 or (values and values[0] not in {"true", "false"}):
        raise InvalidInputError("wait takes true or false.", field="wait")
    return bool(values) and values[0] == "true"
