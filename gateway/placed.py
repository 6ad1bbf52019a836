"""Files that lie at a delivery target and not with us: the name that stands in a blob's place, and what is in it.

Everywhere else a blob is named by the blake3 of its bytes. Bytes that were never here have none; their name says where they
are and which they are, by the SHA-256 that was verified when they were taken over. So nothing has to be kept beside it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_NAME: Final = re.compile(r"placed:([0-9a-f]{64}):([a-z0-9][a-z0-9_-]{0,31}):([A-Za-z0-9._/-]+)")


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a file lies."""

    #: Name of the operator's target.
    target: str
    #: Below its prefix.
    key: str
    #: Of its bytes, 64 hex digits.
    sha256: str

    @property
    def name(self) -> str:
        """What stands where the hash of a blob would."""
        return f"placed:{self.sha256}:{self.target}:{self.key}"

    @property
    def file_name(self) -> str:
        """What it is called there."""
        return self.key.rpartition("/")[2]


def shown_hash(blob_hash: str) -> str:
    """What may be told of a blob's name: a hash alone, and not where it lies."""
    placed = placed_at(blob_hash)
    return blob_hash if placed is None else placed.sha256


def placed_at(blob_hash: str) -> Placed | None:
    """Where a blob of this name lies; None where it is one of ours."""
    found = _NAME.fullmatch(blob_hash)
    return None if found is None else Placed(found[2], found[3], found[1])
