"""Assets in the words of ``comfy_v2``: what clients send, what they are told, and as what bytes are served; pure.

Sources: the contract (Comfy API v2), and where it is silent its reference proxy, which takes file names and names below
``input/`` and refuses other folders.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from gateway.api.facade import Asset, AssetLink, Upload
from gateway.api.incoming import ReceivedFile
from gateway.api.shown import timestamp
from gateway.audit import PICTURES
from gateway.errors import InvalidInputError
from gateway.placed import placed_at
from gateway.strictjson import JsonValue

FILE: Final = "file"
TAGS: Final = "tags"
#: Seconds that a client may ask for: a minute to a week.
EXPIRES_IN: Final = range(60, 604_800 + 1)
MAX_TAGS: Final = 32
MAX_TAG_CHARACTERS: Final = 128
MAX_PATH_BYTES: Final = 512
#: Where an upload may be put: beside the inputs. Nothing is written among an upstream's models.
_INPUTS: Final = "input"
HASH: Final = re.compile(r"blake3:([0-9a-f]{64})", re.IGNORECASE)
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,127}"
#: RFC 9110 section 8.3.1.
CONTENT_TYPE: Final = re.compile(
    rf"{_WORD}/{_WORD}(?:[ \t]*;[ \t]*{_WORD}=(?:{_WORD}|\"[ !#-\[\]-~]{{0,127}}\")){{0,4}}"
)
#: Declared types that bytes are served as; others might be run by a browser.
_SERVED_AS_DECLARED: Final = re.compile(
    r"(?:audio|video|font)/.+|image/(?!svg).+|text/plain|application/(?:json|pdf|zip)"
)
_ANY_TYPE: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class FromHash:
    """A request to make an asset over bytes that are there."""

    #: As ``lookup_hash`` has it.
    blob_hash: str
    file_path: str | None
    tags: tuple[str, ...]
    expires_in_seconds: int | None


# ------------------------------------------------------------------------------------------------------------- reading


def read_upload(
    fields: Mapping[str, str], tags: Sequence[str], files: Mapping[str, ReceivedFile], owner: str
) -> Upload:
    """The upload that a form means.

    Args:
        fields: its texts, other than tags.
        tags: as often as they came.
        files: what came in the field ``file``.
        owner: whose it becomes.

    Raises:
        InvalidInputError: a field is missing or malformed.
    """
    file = files.get(FILE)
    if file is None:
        raise InvalidInputError("The form has no file in the field 'file'.", field=FILE)
    for name in ("content_type", "file_path"):
        if not fields.get(name):
            raise InvalidInputError(f"{name} is required.", field=name)
    expires_in, expected = fields.get("expires_in"), fields.get("expected_hash")
    return Upload(
        owner=owner,
        blob=file.blob,
        found=file.media_type,
        content_type=_content_type(fields["content_type"]),
        file_path=_file_path(fields["file_path"]),
        tags=_tags(tags),
        expected_hash=None if not expected else lookup_hash(expected),
        expires_in_seconds=None if not expires_in else _seconds(_number(expires_in)),
    )


def read_from_hash(body: Mapping[str, JsonValue]) -> FromHash:
    """What a JSON body asks for. Members that nobody knows are ignored. Raises InvalidInputError."""
    wanted, file_path = body.get("hash"), body.get("file_path")
    tags, expires_in = body.get(TAGS), body.get("expires_in")
    if not isinstance(wanted, str):
        raise InvalidInputError("hash is required, and a text.", field="hash")
    if not isinstance(file_path, str | None):
        raise InvalidInputError("file_path is a text.", field="file_path")
    if not isinstance(tags, list | None):
        raise InvalidInputError("tags is a list of texts.", field=TAGS)
    return FromHash(
        lookup_hash(wanted),
        None if file_path is None else _file_path(file_path),
        _tags([] if tags is None else tags),
        None if expires_in is None else _seconds(expires_in),
    )


def lookup_hash(text: str) -> str:
    """The hash in ``blake3:<64 hex digits>``, lower case; what is none becomes "", which is the hash of nothing."""
    match = HASH.fullmatch(text)
    return "" if match is None else match[1].lower()


def _file_path(text: str) -> str:
    parts = text.split("/")
    is_odd = not text.isprintable() or "\\" in text or len(text.encode("utf-8", "replace")) > MAX_PATH_BYTES
    if is_odd or any(part.strip() in {"", ".", ".."} for part in parts):
        raise InvalidInputError(
            f"file_path is a relative path of at most {MAX_PATH_BYTES} bytes, without '..', backslashes and "
            "control characters.",
            field="file_path",
        )
    if len(parts) > 1 and parts[0] != _INPUTS:
        raise InvalidInputError(
            "file_path is a file name, or lies below input/: nothing is placed in other folders of a pool.",
            field="file_path",
        )
    return text


def _content_type(text: str) -> str:
    if CONTENT_TYPE.fullmatch(text) is None:
        raise InvalidInputError("content_type is a media type such as image/png.", field="content_type")
    return text


def _tags(given: Sequence[object]) -> tuple[str, ...]:
    tags = tuple(tag for tag in given if isinstance(tag, str) and tag.isprintable() and tag)
    if len(tags) != len(given) or len(tags) > MAX_TAGS or any(len(tag) > MAX_TAG_CHARACTERS for tag in tags):
        raise InvalidInputError(
            f"tags are at most {MAX_TAGS} texts of 1 to {MAX_TAG_CHARACTERS} printable characters.", field=TAGS
        )
    return tags


def _number(text: str) -> object:
    return int(text) if _NUMBER.fullmatch(text) else None


def _seconds(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value not in EXPIRES_IN:
        raise InvalidInputError(
            f"expires_in is a whole number of seconds from {EXPIRES_IN.start} to {EXPIRES_IN.stop - 1}.",
            field="expires_in",
        )
    return value


# ------------------------------------------------------------------------------------------------------------- writing


def asset_body(asset: Asset, link: AssetLink, base: str, *, created_new: bool | None = None) -> dict[str, object]:
    """What is told of an asset.

    Args:
        asset: an upload or a result.
        link: opens its bytes for a while.
        base: what absolute links begin with.
        created_new: with answers to creates: whether its owner had no such bytes before.
    """
    body: dict[str, object] = {
        "id": asset.id,
        # Of bytes that were never here there is none; the contract has it null then.
        "hash": None if placed_at(asset.blob) is not None else f"blake3:{asset.blob}",
        "size_bytes": asset.size_bytes,
        "content_type": asset.content_type,
        "file_path": asset.file_path,
        "created_at": timestamp(asset.created_at),
        "url": content_url(asset.id, link, base),
        "url_expires_at": timestamp(link.expires_at),
        "expires_at": None if asset.expires_at is None else timestamp(asset.expires_at),
    }
    if created_new is not None:
        body["created_new"] = created_new
    if asset.job_id is not None:
        body["job_id"] = asset.job_id
    return body


def content_url(asset_id: str, link: AssetLink, base: str) -> str:
    """Where the bytes of an asset are, for whoever has this link."""
    return f"{base}/api/v2/assets/{asset_id}/content?{link.query}"


def served_type(asset: Asset) -> str:
    """The Content-Type of an asset's bytes: what they were found to be, else what is harmless of what was declared."""
    if asset.facts.kind in PICTURES:
        return asset.facts.content_type
    declared = asset.content_type.partition(";")[0].strip().lower()
    return declared if _SERVED_AS_DECLARED.fullmatch(declared) else _ANY_TYPE


def saved_name(asset: Asset) -> str:
    """What a browser calls the file."""
    return PurePosixPath(asset.file_path).name if asset.file_path else f"{asset.id}{asset.facts.suffix}"
