"""GIFs taken apart into blocks and put together again: without words of the upstream, with the target's own timing.

Pure: bytes in, bytes out, and no picture is decoded or encoded. Block layout: GIF89a specification, sections 17 to 27;
the loop is Netscape's application extension, which the specification does not know.

VideoHelperSuite 4ee72c0 loads a GIF at its average rate and writes one by Pillow, with one delay for all frames. Pillow
(13.0, and every version since 5) leaves a frame out that looks like the one before it, and adds its delay to that one's.
At a delay known beforehand that can be undone: the sum tells how many frames there were, each delay how many it stands
for. A content filter that dropped frames leaves another sum, so nothing is made up for those.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from gateway.errors import ResultInvalidError

#: Delay that a template's graph gives each frame of a GIF, so that left out ones can be counted: 10 frames a second.
#: The longest delay, 65535 hundredths, then stands for more frames than a GIF may have here.
DELAY_WRITTEN: Final = 10

_VERSIONS: Final = (b"GIF87a", b"GIF89a")
_HEAD_BYTES: Final = 13
_EXTENSION, _IMAGE, _END = 0x21, 0x2C, 0x3B
_CONTROL, _APPLICATION = 0xF9, 0xFF
_CONTROL_BYTES: Final = 4
_LOOPS: Final = (b"NETSCAPE2.0", b"ANIMEXTS1.0")
_LOOP_BLOCK, _LOOP_BYTES = 1, 3
_BROKEN: Final = "The result cannot be taken apart: it is damaged."


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture."""

    #: descriptor, colour table and coded pixels, as they stand in the file.
    picture: memoryview
    #: hundredths of a second, as written: what a player makes of 0 is its own affair.
    delay: int = 0
    #: how it goes and whether it has a transparent colour, as written.
    flags: int = 0
    transparent: int = 0


@dataclass(frozen=True, slots=True)
class Gif:
    """What makes the picture; comments, plain text and other programs' blocks are not in it."""

    #: after the version: size and colour table of the whole.
    screen: bytes
    #: rounds, 0 for ever; None to play it once.
    loop: int | None
    frames: tuple[Frame, ...]

    def written(self) -> Iterator[bytes | memoryview]:
        """The file, in pieces."""
        yield _VERSIONS[1] + self.screen
        if self.loop is not None:
            lap = bytes((_LOOP_BYTES, _LOOP_BLOCK)) + self.loop.to_bytes(2, "little")
            yield bytes((_EXTENSION, _APPLICATION, len(_LOOPS[0]))) + _LOOPS[0] + lap + b"\0"
        for frame in self.frames:
            control = bytes((frame.flags,)) + frame.delay.to_bytes(2, "little") + bytes((frame.transparent,))
            yield bytes((_EXTENSION, _CONTROL, _CONTROL_BYTES)) + control + b"\0"
            yield frame.picture
        yield bytes((_END,))


def read_gif(data: bytes, *, lenient: bool = False) -> Gif:
    """Take a file apart.

    Args:
        data: the whole file.
        lenient: as decoders are with other people's files: bytes between blocks are skipped, and the end may be missing.

    Raises:
        ResultInvalidError: it does not hold together.
    """
    try:
        return _read(data, lenient=lenient)
    except IndexError as error:
        raise ResultInvalidError(_BROKEN) from error


def timed_like(result: Gif, target: Gif) -> Gif | None:
    """The result with the target's delays, frame by frame, and its loop; None when it has other frames."""
    frames = result.frames
    if len(frames) != len(target.frames):
        frames = _as_drawn(frames)
    if len(frames) != len(target.frames):
        return None
    timed = (replace(frame, delay=like.delay) for frame, like in zip(frames, target.frames, strict=True))
    return replace(result, loop=target.loop, frames=tuple(timed))


def _as_drawn(frames: Sequence[Frame]) -> tuple[Frame, ...]:
    """The frames before Pillow left some out, or the same ones when it did not.

    Drawn twice in a row, a frame looks as it does drawn once, whatever its disposal.
    """
    if any(frame.delay % DELAY_WRITTEN for frame in frames):
        return tuple(frames)
    return tuple(frame for frame in frames for _ in range(frame.delay // DELAY_WRITTEN))


def _read(data: bytes, *, lenient: bool) -> Gif:
    at = _HEAD_BYTES + _colour_table_bytes(data[10])
    if data[:6] not in _VERSIONS:
        raise ResultInvalidError(_BROKEN)
    loop: int | None = None
    control = (0, 0, 0)
    frames: list[Frame] = []
    whole = memoryview(data)
    while not _is_end(data, at, lenient=lenient and bool(frames)):
        end = at + 1
        if data[at] == _IMAGE:
            # Ten bytes of descriptor, a colour table perhaps, the code size, then the picture's blocks.
            end = _end_of_blocks(data, at + 10 + _colour_table_bytes(data[at + 9]) + 1)
            frames.append(Frame(whole[at:end], *control))
            control = (0, 0, 0)
        elif data[at] == _EXTENSION:
            end = _end_of_blocks(data, at + 2)
            control = _control(data, at) or control
            loop = _loop(data, at) if loop is None else loop
        elif not lenient:
            raise ResultInvalidError(_BROKEN)
        at = end
    return Gif(data[6 : _HEAD_BYTES + _colour_table_bytes(data[10])], loop, tuple(frames))


def _is_end(data: bytes, at: int, *, lenient: bool) -> bool:
    if at >= len(data) and lenient:
        return True
    return data[at] == _END


def _control(data: bytes, at: int) -> tuple[int, int, int] | None:
    """Delay, flags and transparent colour of the next picture, if the extension tells them."""
    if data[at + 1] != _CONTROL or data[at + 2] < _CONTROL_BYTES:
        return None
    return int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 3], data[at + 6]


def _loop(data: bytes, at: int) -> int | None:
    if data[at + 1] != _APPLICATION or data[at + 3 : at + 14] not in _LOOPS:
        return None
    if data[at + 14] < _LOOP_BYTES or data[at + 15] != _LOOP_BLOCK:
        return None
    return int.from_bytes(data[at + 16 : at + 18], "little")


def _colour_table_bytes(flags: int) -> int:
    return 3 * 2 ** ((flags & 0x07) + 1) if flags & 0x80 else 0


def _end_of_blocks(data: bytes, at: int) -> int:
    while data[at]:
        at += 1 + data[at]
    return at + 1
