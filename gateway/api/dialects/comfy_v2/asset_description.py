"""What ``comfy_v2`` does with files, for the OpenAPI document: made of the rules that ``assets`` reads by."""

from __future__ import annotations

from typing import Any, Final

from gateway.api.dialects.comfy_v2 import assets, single_use
from gateway.api.dialects.comfy_v2.asset_handlers import EXPIRES
from gateway.api.openapi import samples
from gateway.api.openapi.files import ANY_FILE_ANSWERS, FILE_PARAMETERS
from gateway.api.openapi.vocabulary import (
    BYTES,
    JSON,
    MULTIPART,
    Answer,
    Body,
    Content,
    JobId,
    Model,
    Moment,
    Operation,
    Parameter,
    Schema,
    json_answer,
    nullable,
    opened,
)
from gateway.errors import (
    AssetInUseError,
    BlobNotFoundError,
    ConcurrencyLimitedError,
    HashMismatchError,
    IdempotencyReuseError,
    NotFoundError,
    StorageUnreachableError,
)
from gateway.idempotency import HEADER

#: In ECMA-262 nothing says that letters of both cases will do.
_SPELLED: Final = assets.HASH.pattern.replace("[0-9a-f]", "[0-9a-fA-F]")
_HASH: Final = "blake3:" + "c" * 64
_EXAMPLE: Final = {
    "id": samples.JOB_ID,
    "hash": _HASH,
    "size_bytes": 184_320,
    "content_type": "image/png",
    "file_path": "input/face.png",
    "created_at": "2025-06-18T15:00:00.000Z",
    "url": f"https://faces.example.org/api/v2/assets/{samples.JOB_ID}/content?expires=1750345200&signature=a1b2",
    "url_expires_at": "2025-06-19T15:00:00.000Z",
    "expires_at": "2025-06-19T15:00:00.000Z",
}
IDEMPOTENCY: Final = Parameter(
    HEADER,
    "Good for one request of its owner for a day, whatever that asked for.",
    {"type": "string", "pattern": f"^{single_use.KEY.pattern}$"},
    "header",
)
_ID: Final = Parameter("id", "Of the asset.", {"type": "string", "format": "uuid"}, "path", samples.JOB_ID)
_SECONDS: Final[Schema] = {
    "type": "integer",
    "minimum": assets.EXPIRES_IN.start,
    "maximum": assets.EXPIRES_IN.stop - 1,
    "description": "Seconds after which it goes.",
}
_TAGS: Final[Schema] = {
    "type": "array",
    "maxItems": assets.MAX_TAGS,
    "items": {"type": "string", "minLength": 1, "maxLength": assets.MAX_TAG_CHARACTERS},
}
_PATH: Final[Schema] = {
    "type": "string",
    "minLength": 1,
    "maxLength": assets.MAX_PATH_BYTES,
    "pattern": r"^(?:input(?:/[^/\\]+)+|[^/\\]+)$",
    "description": "A file name, or a relative path below input/.",
}
_HASH_TEXT: Final[Schema] = {"type": "string", "pattern": f"^{_SPELLED}$", "description": "blake3: and 64 hex digits."}


class ComfyAsset(Model):
    """A file of the caller's: an upload, or what a job made."""

    id: JobId
    hash: str
    """`blake3:` and 64 hex digits."""
    size_bytes: int
    content_type: str
    """Of an upload as it was declared."""
    file_path: str | None
    created_at: Moment
    url: str
    """Opens its bytes without a key, until `url_expires_at`."""
    url_expires_at: Moment
    expires_at: Moment | None
    created_new: bool | None = None
    """Of creates: whether the caller had no such bytes before."""
    job_id: JobId | None = None
    """Of the job that made it."""


def operations() -> dict[str, Operation]:
    """All of them."""
    return {**_creating(), **_having()}


def _upload_form() -> dict[str, Any]:
    members: dict[str, Schema] = {
        assets.FILE: {**BYTES, "description": "A file of any kind."},
        "content_type": {
            "type": "string",
            "pattern": f"^{assets.CONTENT_TYPE.pattern}$",
            "description": "Its media type.",
        },
        "file_path": _PATH,
        assets.TAGS: _TAGS,
        "expires_in": _SECONDS,
        "expected_hash": {**_HASH_TEXT, "description": "Refuse what has another one."},
    }
    return opened(members, (assets.FILE, "content_type", "file_path"))


def _creating() -> dict[str, Operation]:
    new, known = {**_EXAMPLE, "created_new": True}, {**_EXAMPLE, "created_new": False}
    form = Content(
        _upload_form(),
        {"picture": {"file": "(bytes of a PNG)", "content_type": "image/png", "file_path": "input/face.png"}},
        file_types={assets.FILE: "*/*"},
    )
    by_hash = opened(
        {
            "hash": _HASH_TEXT,
            "file_path": nullable(_PATH),
            assets.TAGS: nullable(_TAGS),
            "expires_in": nullable(_SECONDS),
        },
        ("hash",),
    )
    return {
        "POST /api/v2/assets": Operation(
            id="v2_upload_asset",
            summary="Upload a file of any kind",
            parameters=(IDEMPOTENCY,),
            body=Body({MULTIPART: form}),
            answers=(
                json_answer(
                    200, "The caller has had these bytes; this may be the same asset.", ComfyAsset, {"known": known}
                ),
                json_answer(201, "New bytes.", ComfyAsset, {"new": new}),
            ),
            raises=(ConcurrencyLimitedError, HashMismatchError, IdempotencyReuseError),
        ),
        "POST /api/v2/assets/from-hash": Operation(
            id="v2_asset_from_hash",
            summary="The same without the bytes, where the caller has sent them before",
            body=Body({JSON: Content(by_hash, {"again": {"hash": _HASH, "file_path": "input/again.png"}})}),
            answers=(
                json_answer(200, "It is there already.", ComfyAsset, {"known": known}),
                json_answer(201, "A new asset over the same bytes.", ComfyAsset, {"new": known}),
            ),
            raises=(BlobNotFoundError,),
        ),
    }


def _having() -> dict[str, Operation]:
    return {
        "HEAD /api/v2/assets/by-hash/{hash}": Operation(
            id="v2_has_hash",
            summary="Whether from-hash would find it",
            parameters=(Parameter("hash", "blake3: and 64 hex digits.", where="path", example=_HASH),),
            answers=(Answer(200, "It would."),),
            raises=(BlobNotFoundError,),
        ),
        "GET /api/v2/assets/{id}": Operation(
            id="v2_get_asset",
            summary="An asset",
            parameters=(_ID,),
            answers=(json_answer(200, "The asset.", ComfyAsset, {"upload": _EXAMPLE}),),
            raises=(NotFoundError,),
        ),
        "DELETE /api/v2/assets/{id}": Operation(
            id="v2_delete_asset",
            summary="Delete an asset",
            help="409 while a job needs it, or when it is what a job made.",
            parameters=(_ID,),
            answers=(Answer(204, "It is gone."),),
            raises=(NotFoundError, AssetInUseError),
        ),
        "GET /api/v2/assets/{id}/content": Operation(
            id="v2_asset_content",
            summary="The bytes of an asset",
            help="To its owner, and to whoever has a link that was signed: `url` of the asset.",
            parameters=(
                _ID,
                Parameter(EXPIRES, "Of a signed link: until when it opens, Unix seconds."),
                *FILE_PARAMETERS,
            ),
            answers=ANY_FILE_ANSWERS,
            raises=(NotFoundError, StorageUnreachableError),
        ),
    }
