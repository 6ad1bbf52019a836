"""GIFs taken apart, and given the timing of their target (``media/gif_blocks.py``)."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gateway.errors import ResultInvalidError
from gateway.media.gif_blocks import DELAY_WRITTEN, Gif, read_gif, timed_like
from tests.tools import gifs

GRAPH = Path(__file__).parents[3] / "workflows/faceswap_gif/graph.json"
COMMENT = b"\x21\xfe\x05words\x00"
BUFFERING = b"\x21\xff\x0bNETSCAPE2.0\x05\x02\0\0\1\0\0"


def colour(number: int) -> np.ndarray:
    """A frame of nine by seven pixels in one of several colours."""
    return np.full((7, 9, 3), (number * 40 % 256, 90, 200), dtype=np.uint8)


def made(numbers, delays, *, loop=None, transparent=False) -> bytes:
    return gifs.gif([colour(number) for number in numbers], delays, loop=loop, transparent=transparent)


def written(gif: Gif, folder: Path) -> Path:
    path = folder / "written.gif"
    path.write_bytes(b"".join(gif.written()))
    return path


def by_pillow(numbers, *, delay: int = DELAY_WRITTEN) -> bytes:
    """The frames as VideoHelperSuite writes them."""
    first, *others = [Image.fromarray(colour(number)) for number in numbers]
    buffer = io.BytesIO()
    first.save(
        buffer, "GIF", save_all=True, append_images=others, duration=10 * delay, loop=0, disposal=2, compress_level=4
    )
    return buffer.getvalue()


def timing(gif: Gif) -> tuple[int | None, list[int]]:
    return gif.loop, [frame.delay for frame in gif.frames]


def test_file_without_foreign_blocks_comes_out_as_it_went_in():
    data = made([1, 2, 3], [5, 0, 65535], loop=7)
    assert b"".join(read_gif(data).written()) == data


def test_words_and_blocks_of_other_programs_are_left_behind():
    data = made([1, 2], [5, 6], loop=3)
    at = data.index(gifs.CONTROL)
    other = b"\x21\xff\x0bXMP DataXMP\x03abc\0"
    text = b"\x21\x01\x01a\x02hi\x00"
    assert b"".join(read_gif(data[:at] + COMMENT + other + text + data[at:]).written()) == data


@pytest.mark.parametrize("name", [b"NETSCAPE2.0", b"ANIMEXTS1.0"])
def test_loop_is_read_by_either_name_and_after_a_block_about_buffering(name):
    data = made([1, 2], [5, 6], loop=513).replace(b"NETSCAPE2.0", name)
    assert read_gif(data[:13] + BUFFERING + data[13:]).loop == 513


def test_file_that_plays_once_has_no_loop():
    assert read_gif(made([1, 2], [5, 6])).loop is None


def test_delays_and_loop_are_the_targets_and_pictures_stay(tmp_path):
    target = read_gif(made([1, 2, 3], [5, 0, 1234], loop=9))
    result = made([4, 5, 6], [8, 8, 8], loop=0, transparent=True)
    (tmp_path / "result.gif").write_bytes(result)
    timed = timed_like(read_gif(result), target)
    path = written(timed, tmp_path)
    assert gifs.timing(path) == {"size": (9, 7), "frames": 3, "delays": [5, 0, 1234], "loop": 9}
    np.testing.assert_array_equal(gifs.pixels(path), gifs.pixels(tmp_path / "result.gif"))
    assert {frame.flags for frame in read_gif(path.read_bytes()).frames} == {gifs.TO_BACKGROUND | 1}


def test_loop_goes_when_the_target_plays_once():
    timed = timed_like(read_gif(made([1, 2], [5, 5], loop=0)), read_gif(made([1, 2], [5, 5])))
    assert timed.loop is None
    assert b"NETSCAPE" not in b"".join(timed.written())


def test_gif_of_1987_gets_a_delay_and_the_version_that_knows_delays():
    buffer = io.BytesIO()
    Image.fromarray(colour(1)).quantize(4).save(buffer, "GIF")
    assert buffer.getvalue().startswith(b"GIF87a")
    data = b"".join(timed_like(read_gif(buffer.getvalue()), read_gif(made([1], [25]))).written())
    assert data.startswith(b"GIF89a")
    assert timing(read_gif(data)) == (None, [25])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.data())
def test_frames_that_pillow_left_out_come_back_in_their_places(numbers, data):
    delays = data.draw(st.lists(st.integers(0, 65535), min_size=len(numbers), max_size=len(numbers)))
    target = Gif(b"", 5, tuple(frame_with(delay) for delay in delays))
    timed = timed_like(read_gif(by_pillow(numbers)), target)
    assert timing(timed) == (5, delays)
    with Image.open(io.BytesIO(b"".join(timed.written()))) as image:
        shown = []
        for index in range(len(numbers)):
            image.seek(index)
            shown.append(image.convert("RGB").getpixel((4, 3)))
    assert shown == [tuple(colour(number)[0, 0]) for number in numbers]


def frame_with(delay: int):
    (frame,) = read_gif(made([1], [delay])).frames
    return frame


@pytest.mark.parametrize(
    ("result", "frames"),
    [
        # A content filter dropped two of four: their time is in nobody's delay.
        (by_pillow([1, 2]), 4),
        (by_pillow([1, 1, 2, 2]), 2 + 1),
        # At another rate nothing tells how many were left out.
        (by_pillow([1, 1, 2, 3], delay=4), 4),
        (by_pillow([1, 1, 2, 2], delay=20), 4),
    ],
    ids=["dropped", "too many", "other rate", "twice the rate"],
)
def test_nothing_is_made_up_when_frames_are_missing(result, frames):
    assert timed_like(read_gif(result), read_gif(made(range(frames), [7] * frames))) is None


def test_graph_writes_the_delay_that_frames_are_counted_by():
    (combiner,) = [
        node["inputs"] for node in json.loads(GRAPH.read_text()).values() if node["class_type"] == "VHS_VideoCombine"
    ]
    assert combiner["format"] == "image/gif"
    assert 100 / combiner["frame_rate"] == DELAY_WRITTEN


# ------------------------------------------------------------------------------------------------------- damaged files


def test_lenient_reading_skips_what_decoders_skip():
    data = made([1, 2], [5, 6], loop=2)
    at = data.rindex(gifs.CONTROL)
    stray = data[:at] + b"\0\0" + data[at:]
    for odd in (stray, data[:-1]):
        assert timing(read_gif(odd, lenient=True)) == (2, [5, 6])
        with pytest.raises(ResultInvalidError):
            read_gif(odd)


@pytest.mark.parametrize("lenient", [False, True])
def test_file_cut_anywhere_is_damaged_or_ends_after_a_picture(lenient):
    data = made([1, 2], [5, 6], loop=2)
    for length in range(len(data)):
        try:
            gif = read_gif(data[:length], lenient=lenient)
        except ResultInvalidError:
            continue
        assert lenient
        assert gif.frames == read_gif(data).frames[: len(gif.frames)]


@given(st.binary(max_size=300), st.booleans(), st.booleans())
def test_no_bytes_raise_anything_else(data, has_head, lenient):
    head = b"GIF89a" if has_head else b""
    try:
        gif = read_gif(head + data, lenient=lenient)
    except ResultInvalidError:
        return
    assert read_gif(b"".join(gif.written())) == gif


@given(st.data(), st.booleans())
def test_no_flipped_byte_raises_anything_else(data, lenient):
    whole = bytearray(made([1, 2], [5, 6], loop=2))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        gif = read_gif(bytes(whole), lenient=lenient)
    except ResultInvalidError:
        return
    timed_like(gif, read_gif(made([1, 2], [5, 6])))
