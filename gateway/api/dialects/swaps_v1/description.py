"""What the dialect ``swaps_v1`` is, for the OpenAPI document: made of the tables that ``reading`` reads by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from gateway.api.dialects.swaps_v1 import detection, translation
from gateway.api.dialects.swaps_v1.reading import (
    LAST_FACE,
    MAX_FACES,
    MAX_METADATA_BYTES,
    ONLY_OF,
    SwapType,
)
from gateway.api.dialects.swaps_v1.refusals import CODES
from gateway.api.members import LARGEST_INTEGER
from gateway.api.once import REPLAYED
from gateway.api.openapi import samples
from gateway.api.openapi.agreement import IN_HEADER, IN_JSON
from gateway.api.openapi.vocabulary import (
    JSON,
    Answer,
    Body,
    Content,
    Description,
    JobId,
    Model,
    Moment,
    Operation,
    Parameter,
    Schema,
    World,
    json_answer,
    nullable,
    opened,
)
from gateway.consent import FIELD as CONSENT
from gateway.errors import (
    ApiDisabledError,
    ConcurrencyLimitedError,
    GatewayError,
    InsufficientCreditsError,
    NotFoundError,
    QueueFullError,
    SourceUnreachableError,
    UnsafeContentError,
)
from gateway.idempotency import HEADER, KEY
from gateway.limits import WINDOW_SECONDS
from gateway.outbox import FIELD as WEBHOOK

# ------------------------------------------------------------------------------------------------------------- answers


class PublicSwap(Model):
    """A swap."""

    id: JobId
    type: SwapType
    status: Literal["queued", "preparing", "processing", "done", "failed", "canceled"]
    credit_cost: int
    progress: int
    """Percent; 100 only when it is done."""
    created_at: Moment
    result_url: str | None
    error: str | None
    metadata: dict[str, Any] | None
    webhook_url: str | None
    warnings: list[str]


class SwapPage(Model):
    """Swaps, newest first."""

    data: list[PublicSwap]
    next_cursor: JobId | None
    """Of the next page; null on the last."""


class V1Credits(Model):
    """What there is to spend."""

    permanent: int
    monthly: int
    subscription: int
    total: int


class V1RateLimit(Model):
    """How much may still be asked."""

    limit: int
    window_seconds: int
    remaining: int


class Me(Model):
    """Whose key it is."""

    user_id: str
    email_verified: bool
    subscription_tier: str
    credits: V1Credits
    rate_limit: V1RateLimit


class DetectionAccepted(Model):
    """A detection was made."""

    task_id: JobId
    status: Literal["queued"]
    poll_url: str
    note: str


class BoundingBox(Model):
    """Where a face is, in pixels."""

    x: float
    y: float
    width: float
    height: float


class DetectedFace(Model):
    """A face."""

    index: int
    bounding_box: BoundingBox


class Detection(Model):
    """A detection."""

    task_id: JobId
    status: Literal["queued", "processing", "done", "failed"]
    faces_detected: int | None
    faces: list[DetectedFace] | None
    error: str | None
    created_at: Moment
    completed_at: Moment | None


class V1Reason(Model):
    """Why not."""

    code: str
    """A word for programs, of a closed list."""
    message: str
    """A sentence for people, which names the member at fault."""
    request_id: str
    """As in `X-Request-ID`."""


class V1Error(Model):
    """An error over HTTP."""

    error: V1Reason


# ------------------------------------------------------------------------------------------------------------- requests

_TEXT: Final[Schema] = {"type": "string", "minLength": 1}
_NUMBER: Final[Schema] = {"type": "number", "minimum": 0, "maximum": LARGEST_INTEGER}
_FLAG: Final[Schema] = {"type": "boolean"}


def _url(says: str) -> Schema:
    return {**_TEXT, "format": "uri", "description": f"{says}: a public https URL."}


def _face(says: str) -> Schema:
    return {"type": "integer", "minimum": 0, "maximum": LAST_FACE, "description": says}


def _mapping(kind: SwapType) -> Schema:
    """One of ``face_swaps``."""
    members: dict[str, Schema] = {
        "source_url": _url("The photo of the new face"),
        "face_index": _face("Which face is replaced; the largest is 0."),
        "enable_face_enhancer": nullable(_FLAG),
    }
    if kind is SwapType.VIDEO:
        moment = {**_NUMBER, "description": "Where in the video faces are numbered."}
        return opened({**members, "frame_time_seconds": moment}, ("source_url", "face_index", "frame_time_seconds"))
    return opened(members, ("source_url", "face_index"))


def _members(kind: SwapType) -> dict[str, Schema]:
    mappings: Schema = {"type": "array", "minItems": 1, "maxItems": MAX_FACES, "items": _mapping(kind)}
    by_name: dict[str, Schema] = {
        "target_url": _url("What receives the face"),
        "source_url": _url("The photo of the new face"),
        "target_face_index": nullable(_face("Which face is replaced; the largest is 0.")),
        "reference_frame_time_seconds": nullable({**_NUMBER, "description": "Where in it faces are numbered."}),
        "face_swaps": mappings if kind is SwapType.MULTI_FACE_IMAGE else nullable(mappings),
        "enable_face_enhancer": nullable(_FLAG),
        "keep_audio": nullable({**_FLAG, "default": True}),
        "duration_seconds": nullable({"type": "number", "exclusiveMinimum": 0, "maximum": LARGEST_INTEGER}),
        "file_size_bytes": nullable({"type": "integer", "minimum": 1, "maximum": LARGEST_INTEGER}),
        WEBHOOK: nullable({"type": "string", "format": "uri", "description": "Called when the swap has ended."}),
        CONSENT: IN_JSON,
        "metadata": nullable(
            {"type": "object", "description": f"Given back; at most {MAX_METADATA_BYTES} bytes as JSON."}
        ),
    }
    # A member that is for other types only may be null here.
    closed_here: Schema = {"type": "null"}
    shown = {
        name: closed_here if kind not in ONLY_OF.get(name, frozenset({kind})) else schema
        for name, schema in by_name.items()
    }
    return {"type": {"const": kind.value}, **shown}


def swap_schema(kind: SwapType) -> Schema:
    """A create of one type."""
    members = _members(kind)
    of_many = {name: {"type": "null"} for name in ("source_url", "target_face_index", "reference_frame_time_seconds")}
    with_mappings: dict[str, Any] = {
        "required": ["face_swaps"],
        "properties": {"face_swaps": {"type": "array"}, **of_many},
    }
    of_one: dict[str, Any] = {
        "required": ["source_url"],
        "properties": {"face_swaps": {"type": "null"}, "source_url": _TEXT},
    }
    if kind is SwapType.MULTI_FACE_IMAGE:
        members |= of_many
        return {**opened(members, ("type", "target_url", "face_swaps")), "title": kind.value}
    schema = {**opened(members, ("type", "target_url")), "title": kind.value}
    if kind in ONLY_OF["face_swaps"]:
        members["source_url"] = nullable(members["source_url"])
        return {**schema, "properties": members, "anyOf": [of_one, with_mappings]}
    return {**schema, "required": ["type", "target_url", "source_url"]}


def _swap_body() -> Body:
    image = {
        "type": "image",
        "source_url": "https://media.example.org/face.jpg",
        "target_url": "https://media.example.org/photo.jpg",
    }
    group = {
        "type": "multi_face_image",
        "target_url": "https://media.example.org/group.jpg",
        "face_swaps": [
            {"source_url": "https://media.example.org/ada.jpg", "face_index": 0},
            {"source_url": "https://media.example.org/grace.jpg", "face_index": 1},
        ],
    }
    video = {
        "type": "video",
        "source_url": "https://media.example.org/face.jpg",
        "target_url": "https://media.example.org/clip.mp4",
        "keep_audio": True,
        "metadata": {"order": 42},
    }
    schema = {"oneOf": [swap_schema(kind) for kind in SwapType]}
    return Body({JSON: Content(schema, {"image": image, "several faces": group, "video": video})})


# ----------------------------------------------------------------------------------------------------------- operations

_BASE: Final = "https://faces.example.org"
_CREATING: Final[tuple[type[GatewayError], ...]] = (
    ApiDisabledError,
    ConcurrencyLimitedError,
    InsufficientCreditsError,
    QueueFullError,
    SourceUnreachableError,
)


def describe(world: World) -> Description:
    """The dialect."""
    del world
    return Description(
        tag=translation.NAME,
        help="Swaps of pictures, GIFs and videos by URL, and where the faces of a picture are; every request carries a key.",
        operations={**_swaps(), **_create(), **_detections()},
        envelope=V1Error,
        code_at=("error", "code"),
        code_of=_code,
        told_outside=PublicSwap,
    )


def _code(ours: str) -> str:
    return CODES.get(ours, ours)


def _swaps() -> dict[str, Operation]:
    ident = Parameter("id", "Of the swap.", {"type": "string", "format": "uuid"}, "path", samples.JOB_ID)
    shown = _swap_examples()
    limit: Schema = {
        "type": "integer",
        "minimum": 1,
        "maximum": translation.MAX_LIMIT,
        "default": translation.DEFAULT_LIMIT,
    }
    return {
        "GET /api/v1/me": Operation(
            id="v1_me",
            summary="Whose key it is, what there is to spend, how much may still be asked",
            answers=(json_answer(200, "The key's user.", Me, {"me": _ME}),),
            raises=(ApiDisabledError,),
        ),
        "GET /api/v1/swaps": Operation(
            id="v1_list_swaps",
            summary="The key's swaps, newest first",
            parameters=(
                Parameter("limit", "How many at most.", limit),
                Parameter("cursor", "`next_cursor` of an earlier page."),
            ),
            answers=(json_answer(200, "A page.", SwapPage, {"page": {"data": [shown["done"]], "next_cursor": None}}),),
            raises=(ApiDisabledError,),
        ),
        "GET /api/v1/swaps/{id}": Operation(
            id="v1_get_swap",
            summary="A swap",
            parameters=(ident,),
            answers=(json_answer(200, "The swap.", PublicSwap, shown),),
            raises=(ApiDisabledError, NotFoundError),
        ),
        "DELETE /api/v1/swaps/{id}": Operation(
            id="v1_cancel_swap",
            summary="Cancel a swap that no worker has heard of",
            help="Always 200, with the swap as it is then.",
            parameters=(ident,),
            answers=(json_answer(200, "The swap.", PublicSwap, shown),),
            raises=(ApiDisabledError, NotFoundError),
        ),
    }


def _create() -> dict[str, Operation]:
    wait: Schema = {"type": "string", "enum": ["true", "false"], "default": "false"}
    return {
        "POST /api/v1/swaps": Operation(
            id="v1_create_swap",
            summary="Create a swap",
            help="What the URLs lead to is fetched first.",
            parameters=(
                IN_HEADER,
                Parameter("wait", "Answer when it has ended, or after 50 s.", wait),
                Parameter(
                    HEADER,
                    "The same request with the same key is done once; the answer is told again for a day.",
                    {"type": "string", "pattern": f"^{KEY.pattern}$"},
                    "header",
                ),
            ),
            body=_swap_body(),
            answers=(
                Answer(
                    201,
                    "The swap is stored.",
                    {JSON: Content(PublicSwap, _swap_examples())},
                    {"Location": "Path of the swap."},
                    {REPLAYED: "true where the answer is told again."},
                ),
            ),
            raises=(*_CREATING, UnsafeContentError),
        ),
    }


def _detections() -> dict[str, Operation]:
    ident = Parameter("id", "Of the detection.", {"type": "string", "format": "uuid"}, "path", samples.JOB_ID)
    poll_url = f"/api/v1/face-detect/{samples.JOB_ID}"
    accepted = Content(DetectionAccepted, {"accepted": detection.accepted_body(samples.QUEUED, poll_url, "reactor")})
    body = opened({"target_url": _url("The picture")}, ("target_url",))
    return {
        "POST /api/v1/face-detect": Operation(
            id="v1_detect_faces",
            summary="Find the faces of a picture",
            body=Body({JSON: Content(body, {"picture": {"target_url": "https://media.example.org/group.jpg"}})}),
            answers=(
                Answer(
                    202,
                    "The detection is stored.",
                    {JSON: accepted},
                    {"Location": "Path of the detection.", "Retry-After": "Seconds until it makes sense to ask."},
                ),
            ),
            raises=_CREATING,
        ),
        "GET /api/v1/face-detect/{id}": Operation(
            id="v1_get_detection",
            summary="A detection",
            parameters=(ident,),
            answers=(
                json_answer(
                    200,
                    "The detection.",
                    Detection,
                    {
                        "queued": detection.snapshot_body(samples.QUEUED, None),
                        "done": detection.snapshot_body(samples.SUCCEEDED, samples.REPORT),
                        "failed": detection.snapshot_body(samples.FAILED, None),
                    },
                ),
            ),
            raises=(ApiDisabledError, NotFoundError),
        ),
    }


_ME: Final[Mapping[str, object]] = {
    "user_id": "01978b6e-0000-7000-8000-000000000001",
    "email_verified": True,
    "subscription_tier": "free",
    "credits": {"permanent": 100, "monthly": 0, "subscription": 0, "total": 100},
    "rate_limit": {"limit": 60, "window_seconds": WINDOW_SECONDS, "remaining": 59},
}


def _swap_examples() -> dict[str, object]:
    jobs = {
        "queued": samples.QUEUED,
        "processing": samples.RUNNING,
        "done": samples.SUCCEEDED,
        "failed": samples.FAILED,
    }
    return {
        name: translation.swap_body(
            job, samples.PROGRESS if job is samples.RUNNING else None, _BASE, is_preparing=False
        )
        for name, job in jobs.items()
    }
