"""Links that open one file for an hour without a key: what is signed, and whether a signature holds. Pure.

A signature says "these bytes, until then" with HMAC-SHA256 over both, under a key of 32 bytes that lies in the data
directory. Nothing is stored of a link: it ends by itself, with the file, or with the key.
"""

from __future__ import annotations

import base64
import hmac
import re
from dataclasses import dataclass
from typing import Final

#: How long a link opens: long enough to hand it to somebody who fetches, too short to be a place to keep it.
LIFE_SECONDS: Final = 3600
KEY_BYTES: Final = 32
#: Seconds since 1970 in decimal, until the year 5138.
_MOMENT: Final = re.compile(r"[1-9][0-9]{0,10}")


@dataclass(frozen=True, slots=True)
class AssetLink:
    """What makes a link of a path."""

    #: Unix seconds, whole.
    expires_at: int
    signature: str

    @property
    def query(self) -> str:
        """The query of the link."""
        return f"expires={self.expires_at}&signature={self.signature}"


class AssetLinks:
    """Signs, and knows what it has signed.

    Args:
        key: secret, 32 bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def make(self, asset_id: str, *, now: float, until: float | None = None) -> AssetLink:
        """A link that opens from now on.

        Args:
            asset_id: what it opens.
            now: Unix seconds.
            until: when the file goes, if it goes: the link promises no more.
        """
        end = int(now) + LIFE_SECONDS
        expires_at = end if until is None else min(end, int(until))
        return AssetLink(expires_at, self._signature(asset_id, str(expires_at)))

    def opens(self, asset_id: str, expires: str, signature: str, *, now: float) -> bool:
        """Whether a link that somebody shows was made here for this file, and still holds. Takes any text."""
        if _MOMENT.fullmatch(expires) is None or not signature.isascii():
            return False
        is_ours = hmac.compare_digest(self._signature(asset_id, expires), signature)
        return is_ours and now < int(expires)

    def _signature(self, asset_id: str, expires: str) -> str:
        # The moment is digits alone, so that no two pairs make one text.
        text = f"asset {expires} {asset_id}".encode("utf-8", "surrogatepass")
        return base64.urlsafe_b64encode(hmac.digest(self._key, text, "sha256")).decode("ascii").rstrip("=")
