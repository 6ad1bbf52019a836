"""Transparency of a target put back into the GIF that was made of it (``media/gif_holes.py``)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gateway.media.gif_blocks import Gif, read_gif
from gateway.media.gif_holes import is_see_through, with_holes_of
from tests.tools import gifs

WHITE = 255
DELAYS = [10, 0, 33]


def frames(count: int, colours: int = 200, size=(24, 40)) -> list[np.ndarray]:
    """Pictures of so many colours, every one of them other."""
    pixels = np.arange(size[0] * size[1]).reshape(size) % colours
    return [
        np.stack([pixels, (pixels * 7 + index) % 256, pixels % 3], axis=-1).astype(np.uint8) for index in range(count)
    ]


def laid_on_white(target: Path, drawn: list[np.ndarray]) -> list[np.ndarray]:
    """What a worker makes of a target: other pictures, opaque."""
    made = [picture.copy() for picture in drawn]
    for picture, hole in zip(made, gifs.holes(target), strict=True):
        picture[hole] = WHITE
    return made


def saved(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def written(folder: Path, gif: Gif) -> Path:
    return saved(folder, "written.gif", b"".join(gif.written()))


@pytest.mark.parametrize("count", [1, 3])
def test_holes_come_back_and_every_colour_around_them_stays(tmp_path, count):
    target = saved(tmp_path, "t.gif", gifs.gif(frames(count, 30), DELAYS[:count], loop=4, transparent=True))
    result = gifs.gif(laid_on_white(target, frames(count)), DELAYS[:count], loop=4)
    out = written(tmp_path, with_holes_of(read_gif(result), target))
    holes = gifs.holes(target)
    assert holes.any(axis=(1, 2)).all()
    np.testing.assert_array_equal(gifs.holes(out), holes)
    shown = gifs.pixels(saved(tmp_path, "r.gif", result))
    np.testing.assert_array_equal(gifs.pixels(out)[~holes], shown[~holes])
    assert gifs.timing(out) == gifs.timing(target)


def test_frames_that_are_drawn_over_others_are_as_a_viewer_sees_them(tmp_path):
    """The first frame covers a part, the second another, and both stay: the holes of the second are fewer."""
    first, second = Image.new("RGBA", (40, 24)), Image.new("RGBA", (40, 24))
    first.paste((200, 0, 0, 255), (0, 0, 10, 24))
    second.paste((200, 0, 0, 255), (0, 0, 10, 24))
    second.paste((0, 0, 200, 255), (20, 0, 30, 24))
    target = tmp_path / "t.gif"
    first.save(target, save_all=True, append_images=[second], duration=100, loop=0, disposal=1)
    before = gifs.holes(target)
    assert before.sum(axis=(1, 2)).tolist() == [30 * 24, 20 * 24]
    result = gifs.gif(laid_on_white(target, frames(2)), [10, 10], loop=0)
    out = written(tmp_path, with_holes_of(read_gif(result), target))
    np.testing.assert_array_equal(gifs.holes(out), before)


def test_a_frame_of_more_colours_than_fit_beside_a_hole_stays_near(tmp_path):
    target = saved(tmp_path, "t.gif", gifs.gif(frames(1, 30), [10], loop=None, transparent=True))
    ramp = np.stack([np.arange(960).reshape(24, 40) % 256] * 3, axis=-1).astype(np.uint8)
    picture = Image.fromarray(ramp).quantize(256)
    picture.save(tmp_path / "r.gif")
    result = tmp_path / "r.gif"
    out = written(tmp_path, with_holes_of(read_gif(result.read_bytes()), target))
    seen = ~gifs.holes(target)
    assert np.abs(gifs.pixels(out)[seen].astype(int) - gifs.pixels(result)[seen]).max() <= 2


def test_a_frame_that_shows_nothing_is_all_hole(tmp_path):
    Image.new("RGBA", (40, 24)).save(tmp_path / "t.gif")
    out = written(tmp_path, with_holes_of(read_gif(gifs.gif(frames(1), [10], loop=None)), tmp_path / "t.gif"))
    assert gifs.holes(out).all()


@pytest.mark.parametrize(
    ("count", "size", "transparent"), [(3, (24, 40), False), (2, (24, 40), True), (3, (24, 42), True)]
)
def test_a_result_is_left_as_it_came_where_there_is_no_hole_or_no_like_frame(tmp_path, count, size, transparent):
    made = gifs.gif(frames(count, 30, size), DELAYS[:count], loop=0, transparent=transparent)
    result = read_gif(gifs.gif(frames(3), DELAYS, loop=0))
    assert with_holes_of(result, saved(tmp_path, "t.gif", made)) is result


def test_a_frame_says_whether_something_shows_through_it(tmp_path):
    for transparent in (False, True):
        path = saved(tmp_path, "t.gif", gifs.gif(frames(2), [5, 5], loop=0, transparent=transparent))
        with Image.open(path) as image:
            image.seek(1)
            assert is_see_through(image) is transparent
