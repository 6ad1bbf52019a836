"""GIFs put together block by block, so that every frame is in the file: Pillow leaves out those that repeat the last."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CONTROL, LOOP = b"\x21\xf9\x04", b"\x21\xff\x0bNETSCAPE2.0\x03\x01"
LEAVE, TO_BACKGROUND = 1 << 2, 2 << 2


def control(delay: int, *, flags: int = LEAVE, transparent: int = 0) -> bytes:
    """A graphic control extension; the delay in hundredths of a second."""
    return CONTROL + bytes((flags,)) + delay.to_bytes(2, "little") + bytes((transparent, 0))


def picture(frame: np.ndarray, *, own_corner: bool = False) -> tuple[bytes, int]:
    """An image block with its own colours, and the colour of its lower right corner.

    Args:
        own_corner: give the corner a colour that no other pixel has.
    """
    reduced = Image.fromarray(frame).quantize(255)
    if own_corner:
        pixels = np.array(reduced)
        pixels[-16:, -16:] = 255
        palette = (reduced.getpalette() or []) + [0] * 768
        reduced = Image.fromarray(pixels)
        reduced.putpalette(palette[:768])
    buffer = io.BytesIO()
    reduced.save(buffer, "GIF")
    with Image.open(buffer) as saved:
        # Pillow numbers the colours anew.
        corner = int(np.asarray(saved)[-1, -1])
    data = buffer.getvalue()
    flags, table = data[10], 3 * 2 ** ((data[10] & 7) + 1)
    # Without extensions the descriptor follows the screen's colours.
    start = data.index(b"\x2c", 13 + table)
    descriptor = bytearray(data[start : start + 10])
    descriptor[9] = 0x80 | descriptor[9] & 0x40 | flags & 7  # Pillow interlaces
    return bytes(descriptor) + data[13 : 13 + table] + data[start + 10 : -1], corner


def gif(frames: Sequence[np.ndarray], delays: Sequence[int], *, loop: int | None, transparent: bool = False) -> bytes:
    """A whole file. Args: delays: in hundredths of a second; loop: None for a file that plays once."""
    height, width = frames[0].shape[:2]
    blocks = [b"GIF89a" + width.to_bytes(2, "little") + height.to_bytes(2, "little") + bytes((0x70, 0, 0))]
    if loop is not None:
        blocks.append(LOOP + loop.to_bytes(2, "little") + b"\0")
    flags = TO_BACKGROUND | 1 if transparent else LEAVE
    # Equal frames are equal blocks, and finding 255 colours takes most of the time.
    made: dict[bytes, tuple[bytes, int]] = {}
    for frame, delay in zip(frames, delays, strict=True):
        block, corner = made.get(frame.tobytes()) or picture(frame, own_corner=transparent)
        made[frame.tobytes()] = (block, corner)
        blocks += [control(delay, flags=flags, transparent=corner if transparent else 0), block]
    return b"".join([*blocks, b";"])


def portraits(positions: Sequence[int], *, size: tuple[int, int] = (161, 121), scale: int = 240) -> list[np.ndarray]:
    """Views of a portrait, each from as many pixels further right; equal positions are equal frames."""
    from skimage import data

    width, height = size
    whole = np.asarray(Image.fromarray(data.astronaut()).resize((scale, scale)))
    left = round(0.43 * scale - width / 2)
    return [np.ascontiguousarray(whole[:height, left + x : left + x + width]) for x in positions]


def timing(path: Path) -> dict[str, Any]:
    """What Pillow reads: size, frames, the delay of each in hundredths, the loop."""
    with Image.open(path) as image:
        delays = []
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            delays.append(image.info.get("duration", 0) // 10)
        return {"size": image.size, "frames": len(delays), "delays": delays, "loop": image.info.get("loop")}


def pixels(path: Path) -> np.ndarray:
    """All frames as they are shown, (frame, row, column, RGB)."""
    with Image.open(path) as image:
        shown = []
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            shown.append(np.asarray(image.convert("RGB")))
        return np.stack(shown)


def holes(path: Path) -> np.ndarray:
    """Where each frame, as it is shown, is transparent: (frame, row, column)."""
    with Image.open(path) as image:
        found = []
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            found.append(np.asarray(image.convert("RGBA"))[..., 3] == 0)
        return np.stack(found)
