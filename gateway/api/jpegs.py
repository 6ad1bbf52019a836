"""Previews as the Comfy API v2 has them: JPEG, in base64, small; each picture made once however many watch.

An upstream sends JPEG or PNG, as its nodes like. What is a JPEG of a bounded size goes through as it is; anything else is
decoded, bounded, and written as one, in a thread. What cannot be decoded is no preview.
"""

from __future__ import annotations

import asyncio
import base64
import io
from typing import Final
from weakref import WeakKeyDictionary

import structlog
from PIL import Image

from gateway.api.following import Frame
from gateway.events import PreviewImage

CONTENT_TYPE: Final = "image/jpeg"
#: Of what is sent on as it is. A JPEG of 512 pixels a side, the usual size, has a tenth of it.
MAX_JPEG_BYTES: Final = 512 * 1024
#: Of what is decoded at all; how many bytes a preview may have, the bus says.
MAX_PIXELS: Final = 4096 * 4096
#: Of what is made; ComfyUI's own previews are not larger.
LONGEST_SIDE: Final = 1024
_QUALITY: Final = 85
_JPEG_MARK: Final = b"\xff\xd8\xff"
_FORMATS: Final = ("JPEG", "PNG", "WEBP")

log = structlog.get_logger(__name__)


class JpegPreviews:
    """The frames of previews, each made once and forgotten with its picture."""

    def __init__(self) -> None:
        self._made: WeakKeyDictionary[PreviewImage, asyncio.Task[Frame | None]] = WeakKeyDictionary()

    async def of(self, picture: PreviewImage) -> Frame | None:
        """Its frame, the same object for all who ask; None for what is no picture that can be shown."""
        making = self._made.get(picture)
        if making is None:
            making = self._made[picture] = asyncio.create_task(_frame(picture), name="preview as JPEG")
        # Somebody who leaves does not take it from the others.
        return await asyncio.shield(making)


async def _frame(picture: PreviewImage) -> Frame | None:
    data = await asyncio.to_thread(as_jpeg, picture.data)
    if data is None:
        log.debug("preview_unreadable", job=picture.job_id, size_bytes=len(picture.data))
        return None
    body: dict[str, object] = {
        "node_id": picture.node or "",
        "content_type": CONTENT_TYPE,
        "data_base64": base64.b64encode(data).decode(),
    }
    return Frame("preview", body)


def as_jpeg(data: bytes) -> bytes | None:
    """A picture as a JPEG of a bounded size; None where it is none, or too large to be looked at. Takes its time."""
    if data.startswith(_JPEG_MARK) and len(data) <= MAX_JPEG_BYTES:
        return data
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            return None if picture.width * picture.height > MAX_PIXELS else _written(picture)
    # Pillow raises what its decoders happen to raise; whatever it is, this is no picture to show.
    except Exception:  # noqa: BLE001
        return None


def _written(picture: Image.Image) -> bytes:
    picture.draft("RGB", (LONGEST_SIDE, LONGEST_SIDE))
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    out = io.BytesIO()
    picture.convert("RGB").save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()
