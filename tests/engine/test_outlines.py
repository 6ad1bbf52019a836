"""The outline of a video that lies elsewhere: all boxes but the pictures, each where it is in the video."""

from __future__ import annotations

import struct

import pytest

from gateway.engine import outlines
from gateway.engine.outlines import write_outline


def box(kind, body=b"", *, large=False, length=None):
    size = 8 + len(body) if length is None else length
    if large:
        return struct.pack(">I", 1) + kind + struct.pack(">Q", size + 8) + body
    return struct.pack(">I", size) + kind + body


class Remote:
    """A file elsewhere, and how much of it was read."""

    def __init__(self, data):
        self.data = data
        self.read_bytes = 0

    async def read(self, start, end):
        assert 0 <= start < end <= len(self.data), (start, end)
        self.read_bytes += end - start
        return self.data[start:end]


async def outline(data, path):
    remote = Remote(data)
    is_one = await write_outline(remote.read, len(data), path / "outline")
    return remote, (path / "outline").read_bytes() if is_one else None


FTYP, MOOV = box(b"ftyp", b"isom"), box(b"moov", b"the index")


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("index_first", [False, True])
async def test_everything_but_the_pictures_is_where_it_was(tmp_path, large, index_first):
    pictures = box(b"mdat", b"p" * 100_000, large=large)
    data = FTYP + (MOOV + pictures if index_first else pictures + MOOV)
    remote, written = await outline(data, tmp_path)
    assert len(written) == len(data)
    at = data.index(pictures) + 16
    blanked = data[:at] + bytes(len(pictures) - 16) + data[at + len(pictures) - 16 :]
    assert written == blanked
    assert remote.read_bytes < 300


async def test_pictures_that_go_on_to_the_end_do(tmp_path):
    data = FTYP + MOOV + box(b"mdat", b"p" * 1000, length=0)
    _, written = await outline(data, tmp_path)
    assert written[-900:] == bytes(900)


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"not a box at all",
        b"\x89PNG\r\n\x1a\n" + b"0" * 100,
        FTYP + box(b"mdat", b"p" * 100),
        FTYP + MOOV + box(b"mdat", b"p", length=1000),
        FTYP + MOOV + box(b"mdat", b"p", length=3),
        FTYP + MOOV + b"\0\0",
        FTYP + MOOV + struct.pack(">I", 1) + b"mdat",
        FTYP + MOOV + struct.pack(">I", 1) + b"mdat" + struct.pack(">Q", 2**63),
        FTYP + MOOV + struct.pack(">I", 1) + b"mdat" + struct.pack(">Q", 0),
        FTYP + (box(b"moof") + box(b"mdat", b"p")) * 40 + MOOV,
    ],
    ids=[
        "a letter", "text", "a PNG", "no index", "cut", "a box shorter than its head", "padding", "half a length",
        "a length beyond all bounds", "no length", "fragments",
    ],
)  # fmt: skip
async def test_what_is_no_such_video_has_none(tmp_path, data):
    _, written = await outline(data, tmp_path)
    assert written is None


async def test_an_index_beyond_the_bound_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(outlines, "MAX_INDEX_BYTES", 1000)
    remote, written = await outline(FTYP + box(b"moov", b"i" * 2000), tmp_path)
    assert written is None
    assert remote.read_bytes < 100
