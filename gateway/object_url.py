"""The address of a place in object storage, ``s3://bucket/prefix?endpoint=…&region=…``, read strictly.

Pure. It names no secret: credentials in it are refused, with the sentence that says where they belong. What bucket names
may be: Amazon S3 user guide, "General purpose bucket naming rules"; other servers take no more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

#: Addressing of a bucket: as a folder of the endpoint, or as a name below the endpoint's.
Addressing = Literal["path", "virtual"]

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
#: What needs no quoting anywhere and looks the same in every tool.
_SEGMENT: Final = re.compile(r"[A-Za-z0-9!_.*'()=@ -]+")
_REGION: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_ENDPOINT: Final = re.compile(r"https?://[^/?#\s@]+/?")
#: Keys have 1024 bytes at most; what we put behind the prefix has 200 at most.
_LONGEST_PREFIX: Final = 800
_OPTIONS: Final = frozenset({"endpoint", "region", "addressing"})


@dataclass(frozen=True, slots=True)
class ObjectUrl:
    """A bucket, and a prefix in it."""

    bucket: str
    #: Without slashes at its ends; "" for the whole bucket.
    prefix: str = ""
    #: Base URL of the server; None: Amazon's own of the region.
    endpoint: str | None = None
    #: None: as the environment says, else us-east-1.
    region: str | None = None
    addressing: Addressing = "path"

    def key(self, name: str) -> str:
        """The whole key of what is called ``name`` below the prefix."""
        return f"{self.prefix}/{name}" if self.prefix else name

    def location(self, name: str) -> str:
        """How people and tools call an object."""
        return f"s3://{self.bucket}/{self.key(name)}"


def parse_object_url(url: str, *, setting: str) -> ObjectUrl:
    """The place that a URL names.

    Args:
        url: ``s3://bucket/prefix``; as its query ``endpoint`` (http or https), ``region``, ``addressing`` (path or virtual:
            path with an endpoint, else virtual).
        setting: what the sentence of a refusal calls it, e.g. "STORAGE_URL".

    Raises:
        ValueError: with a sentence for the operator; it repeats no credentials.
    """
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ValueError(f"{setting} is no URL: write s3://bucket/prefix?endpoint=https://…&region=…") from None
    if parts.scheme != "s3":
        raise ValueError(f"{setting} takes s3://bucket/prefix?endpoint=…&region=…")
    if "@" in parts.netloc:
        raise ValueError(
            f"{setting} holds credentials: give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
        )
    if not _BUCKET.fullmatch(parts.netloc) or ".." in parts.netloc:
        raise ValueError(f"{setting}: {parts.netloc!r} is no name of a bucket")
    options = dict(pairs)
    if parts.fragment or len(options) != len(pairs) or not options.keys() <= _OPTIONS:
        raise ValueError(f"{setting} takes endpoint, region and addressing behind its question mark, each once")
    return ObjectUrl(
        parts.netloc,
        _prefix(unquote(parts.path), setting),
        _endpoint(options.get("endpoint"), setting),
        _region(options.get("region"), setting),
        _addressing(options.get("addressing"), setting, has_endpoint="endpoint" in options),
    )


def _prefix(path: str, setting: str) -> str:
    prefix = path.strip("/")
    segments = prefix.split("/") if prefix else []
    if len(prefix) > _LONGEST_PREFIX or any(
        not _SEGMENT.fullmatch(segment) or segment in {".", ".."} for segment in segments
    ):
        raise ValueError(
            f"{setting}: a prefix is made of letters, digits and -_.!*'()=@ between single slashes, "
            f"{_LONGEST_PREFIX} characters at most"
        )
    return prefix


def _endpoint(value: str | None, setting: str) -> str | None:
    if value is None:
        return None
    if not _ENDPOINT.fullmatch(value):
        raise ValueError(f"{setting}: its endpoint is a base URL such as https://s3.example.org, without a path")
    return value.rstrip("/")


def _region(value: str | None, setting: str) -> str | None:
    if value is not None and not _REGION.fullmatch(value):
        raise ValueError(f"{setting}: its region is a name such as eu-central-1")
    return value


def _addressing(value: str | None, setting: str, *, has_endpoint: bool) -> Addressing:
    if value == "path" or (value is None and has_endpoint):
        return "path"
    if value in {None, "virtual"}:
        return "virtual"
    raise ValueError(f"{setting}: its addressing is path or virtual")
