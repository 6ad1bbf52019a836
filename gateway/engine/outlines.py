"""What can be told of a video without its bytes: its index, in a file that has a hole where pictures and sound are.

An MP4 or QuickTime file is a row of boxes, each with its length in front. The largest holds pictures and sound and is left
out; all others are read, so the file tells a demuxer everything but what the pictures show.

Source: ISO/IEC 14496-12, sections 4.2 (boxes) and 8.1.1 (mdat).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from gateway.engine.scratch import finished

#: A length of 1 says that the real one follows behind the kind.
_HEAD_BYTES: Final = 16
_LARGE, _TO_THE_END = 1, 0
_PICTURES: Final = b"mdat"
#: Boxes of a file that was made in one go; one in fragments has thousands, and its index lies between them.
MAX_BOXES: Final = 32
#: An index takes some 20 bytes for each frame and each piece of sound: this is enough for days.
MAX_INDEX_BYTES: Final = 64 * 1024**2

#: Bytes from the first position up to but without the second.
Read = Callable[[int, int], Awaitable[bytes]]


async def write_outline(read: Read, size_bytes: int, path: Path) -> bool:
    """Write the outline of a video; False when it is none of this kind, or more than is read here.

    Args:
        read: reads it where it is.
        size_bytes: of the video, and then of the file at ``path``, though that takes no more than the index on most disks.
        path: written anew.
    """
    pieces: list[tuple[int, bytes]] = []
    at = index_bytes = 0
    for _ in range(MAX_BOXES):
        if at >= size_bytes:
            await finished(_write, path, size_bytes, pieces)
            return at == size_bytes and any(data[4:8] == b"moov" for _, data in pieces)
        head = await read(at, min(at + _HEAD_BYTES, size_bytes))
        length = _length(head, size_bytes - at)
        if length is None:
            return False
        if head[4:8] == _PICTURES:
            pieces.append((at, head))
        else:
            index_bytes += length
            if index_bytes > MAX_INDEX_BYTES:
                return False
            pieces.append((at, await read(at, at + length)))
        at += length
    return False


def _length(head: bytes, left_bytes: int) -> int | None:
    """Of a whole box, with its head; None where it is no box, or ends behind the file."""
    length, least = int.from_bytes(head[:4], "big"), 8
    if length == _LARGE:
        length, least = int.from_bytes(head[8:], "big"), _HEAD_BYTES
    elif length == _TO_THE_END:
        length = left_bytes
    return length if len(head) >= least and least <= length <= left_bytes else None


def _write(path: Path, size_bytes: int, pieces: list[tuple[int, bytes]]) -> None:
    with path.open("wb") as file:
        file.truncate(size_bytes)
        for at, data in pieces:
            file.seek(at)
            file.write(data)
