"""How many bytes a container says it has: a file that was cut short is told by that alone, without a decoder.

Reads the outermost structure only. Sources: ISO/IEC 14496-12, section 4.2 (boxes); RFC 8794, sections 4 and 5 (EBML
variable-size integers and elements) with the Segment of RFC 9559.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Final

_BOX_HEAD_BYTES: Final = 8
_TO_THE_END, _LARGE_SIZE = 0, 1
#: A file has a handful of outer boxes; one in fragments has two for each fragment.
_MOST_BOXES: Final = 100_000
_EBML_HEADER: Final = 0x1A45DFA3
_SEGMENT: Final = 0x18538067


def is_cut_short(path: Path, demuxer: str) -> bool:
    """Whether the file ends before its outermost structure says.

    Args:
        path: the file.
        demuxer: ``mov`` or ``matroska``; others are never said to be cut.
    """
    with path.open("rb") as file:
        size_bytes = file.seek(0, 2)
        file.seek(0)
        if demuxer == "mov":
            return _end_of_boxes(file, size_bytes) > size_bytes
        if demuxer == "matroska":
            return _end_of_segment(file) > size_bytes
    return False


def _end_of_boxes(file: BinaryIO, size_bytes: int) -> int:
    at = 0
    for _ in range(_MOST_BOXES):
        if at + _BOX_HEAD_BYTES > size_bytes:
            # The end, or beyond it; fewer bytes than a box has are padding that some recorders leave.
            return at
        file.seek(at)
        length = int.from_bytes(file.read(4), "big")
        if length == _LARGE_SIZE:
            file.seek(at + _BOX_HEAD_BYTES)
            length = int.from_bytes(file.read(8), "big")
        if length == _TO_THE_END:
            return size_bytes
        at += max(length, _BOX_HEAD_BYTES)
    return at


def _end_of_segment(file: BinaryIO) -> int:
    if _read_integer(file, keep_marker=True) != _EBML_HEADER:
        return 0
    header_bytes = _read_integer(file)
    file.seek(header_bytes or 0, 1)
    if _read_integer(file, keep_marker=True) != _SEGMENT:
        return 0
    segment_bytes = _read_integer(file)
    # A live recording does not know its size.
    return 0 if segment_bytes is None else file.tell() + segment_bytes


def _read_integer(file: BinaryIO, *, keep_marker: bool = False) -> int | None:
    """A variable-size integer, or None for the one of all ones, which says unknown; an id keeps its marker bit."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    extra_bytes = 8 - first[0].bit_length()
    whole = int.from_bytes(first + file.read(extra_bytes), "big")
    if keep_marker:
        return whole
    value_bits = 7 * (extra_bytes + 1)
    value = whole & ((1 << value_bits) - 1)
    return None if value == (1 << value_bits) - 1 else value
