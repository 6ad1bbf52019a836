"""What a result is called: the client's wish made harmless.

Pure. The name is for people; where a file lies never depends on it, and the link adds random bits of its own.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime

MAX_CHARACTERS = 80
#: The task whose results have been called otherwise since before there were others.
FACE_SWAP = "face_swap"
_OUTSIDE = re.compile(r"[^A-Za-z0-9._-]")


def safe_output_name(wish: str | None, now: float, task: str = FACE_SWAP) -> str:
    """The name without extension: NFC, anything outside ``[A-Za-z0-9._-]`` made ``_``, at most 80 characters.

    Without a wish ``faceswap_<UTC date>_<UTC time>``; of any other task, its name in front.
    """
    if wish:
        return _OUTSIDE.sub("_", unicodedata.normalize("NFC", wish))[:MAX_CHARACTERS]
    stem = "faceswap" if task == FACE_SWAP else _OUTSIDE.sub("_", task)
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y%m%d_%H%M%S")
    return f"{stem[: MAX_CHARACTERS - len(moment) - 1]}_{moment}"
