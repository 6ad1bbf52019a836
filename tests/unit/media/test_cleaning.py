from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageSequence
from PIL.PngImagePlugin import PngInfo

from gateway.audit import KEEPS_ALL, Keeps
from gateway.errors import ResultInvalidError
from gateway.media import child, cleaning
from gateway.media.limits import Limits
from gateway.media.remuxing import Like
from gateway.sniffing import GIF, JPEG, PNG, WEBP
from tests.tools import gifs

PROMPT = '{"3": {"inputs": {"image": "private-name.jpg"}}}'


def exif(orientation: int | None = None) -> Image.Exif:
    made = Image.Exif()
    made[0x010F] = PROMPT
    if orientation:
        made[0x0112] = orientation
    return made


@pytest.fixture
def clean(studio):
    def run(path, kind):
        assert b"private-name" in path.read_bytes(), "nothing was planted, so this would show nothing"
        out = studio.folder / f"clean{kind.suffix}"
        cleaning.clean_picture(path, kind, out)
        assert b"private-name" not in out.read_bytes()
        return out

    return run


def pixels(path):
    with Image.open(path) as image:
        return [np.asarray(frame.convert("RGBA")).copy() for frame in ImageSequence.Iterator(image)]


@pytest.fixture
def picture(studio):
    return Image.fromarray(studio.frames(1)[0])


def icc(space: str = "RGB ") -> bytes:
    """A profile, of which only the header matters here."""
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    made[16:20] = space.encode()
    return bytes(made)


def test_a_png_gets_the_colours_of_its_target_and_nothing_else_changes(studio, clean, picture):
    path = studio.folder / "x.png"
    picture.save(path)
    out = studio.folder / "out.png"
    cleaning.clean_picture(path, PNG, out, profile=icc())
    np.testing.assert_array_equal(pixels(out), pixels(path))
    with Image.open(out) as cleaned:
        cleaned.load()
        assert cleaned.info == {"icc_profile": icc()}


def test_the_colours_are_those_of_the_target_that_the_task_names(studio, picture):
    path, target, out = (studio.folder / name for name in ("x.png", "target.jpg", "out.png"))
    picture.save(path)
    picture.save(target, icc_profile=icc())
    task = {"do": "clean", "path": str(path), "out": str(out), "keeps": [], "limits": Limits().to_json()}
    assert "done" in child.answer({**task, "like": str(target)})
    with Image.open(out) as cleaned:
        assert cleaned.info == {"icc_profile": icc()}
    assert "done" in child.answer({**task, "like": None})
    with Image.open(out) as cleaned:
        assert cleaned.info == {}


@pytest.mark.parametrize("more", [{"icc_profile": icc()[:-1] + b"x"}, {"gamma": 0.5}])
def test_a_png_that_says_which_colours_it_has_keeps_them(studio, picture, more):
    path, out = studio.folder / "x.png", studio.folder / "out.png"
    info = PngInfo()
    if "gamma" in more:
        info.add(b"gAMA", (50000).to_bytes(4, "big"))
        picture.save(path, pnginfo=info)
    else:
        picture.save(path, **more)
    cleaning.clean_picture(path, PNG, out, profile=icc())
    with Image.open(out) as cleaned:
        assert cleaned.info == more


def test_a_png_loses_its_prompt_and_keeps_its_pixels(studio, clean, picture):
    path = studio.folder / "x.png"
    info = PngInfo()
    info.add_text("prompt", PROMPT)
    info.add_text("workflow", PROMPT, zip=True)
    info.add_itxt("parameters", PROMPT)
    picture.save(path, pnginfo=info, exif=exif(), dpi=(72, 72))
    out = clean(path, PNG)
    np.testing.assert_array_equal(pixels(out), pixels(path))
    with Image.open(out) as cleaned:
        cleaned.load()
        assert set(cleaned.info) == {"dpi"}


def test_a_jpeg_loses_exif_and_comments_and_keeps_its_pixels_and_profile(studio, clean, picture):
    path = studio.folder / "x.jpg"
    picture.save(path, exif=exif(), comment=PROMPT.encode(), icc_profile=b"a profile", progressive=True)
    out = clean(path, JPEG)
    np.testing.assert_array_equal(pixels(out), pixels(path))
    with Image.open(out) as cleaned:
        assert cleaned.info["icc_profile"] == b"a profile"
        assert not cleaned.getexif()


def test_what_follows_the_end_of_a_jpeg_is_dropped(studio, clean, picture):
    path = studio.folder / "x.jpg"
    picture.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole + PROMPT.encode())
    assert clean(path, JPEG).read_bytes() == whole


@pytest.mark.parametrize("lossless", [False, True])
def test_a_webp_loses_its_prompt_and_keeps_its_pixels(studio, clean, picture, lossless):
    path = studio.folder / "x.webp"
    picture.save(path, exif=exif(), xmp=PROMPT.encode(), lossless=lossless)
    out = clean(path, WEBP)
    np.testing.assert_array_equal(pixels(out), pixels(path))
    with Image.open(out) as cleaned:
        assert not cleaned.getexif()
        assert "xmp" not in cleaned.info


def test_an_animated_webp_keeps_its_frames(studio, clean, picture):
    path = studio.folder / "x.webp"
    picture.save(path, save_all=True, append_images=[picture.rotate(180)], duration=40, exif=exif())
    np.testing.assert_array_equal(pixels(clean(path, WEBP)), pixels(path))


def test_a_gif_loses_its_comment_and_keeps_frames_delays_and_loop(studio, clean):
    path = studio.folder / "x.gif"
    pages = [Image.fromarray(frame).quantize(64) for frame in studio.frames(4)]
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=[40, 80, 40, 40], loop=0, comment=PROMPT)
    out = clean(path, GIF)
    np.testing.assert_array_equal(pixels(out), pixels(path))
    with Image.open(out) as cleaned:
        assert cleaned.info["loop"] == 0
        cleaned.seek(1)
        assert cleaned.info["duration"] == 80


@pytest.mark.parametrize(("suffix", "kind"), [("png", PNG), ("jpg", JPEG), ("gif", GIF), ("webp", WEBP)])
def test_a_result_cut_short_is_said_to_be_damaged(studio, picture, suffix, kind):
    path = studio.folder / f"x.{suffix}"
    picture.save(path)
    data = path.read_bytes()
    for share in (0.1, 0.5, 0.9):
        cut = studio.write("cut", data[: int(len(data) * share)])
        with pytest.raises(ResultInvalidError):
            cleaning.clean_picture(cut, kind, studio.folder / "out")


def like_a_gif(studio, result: bytes, target: bytes, keeps=KEEPS_ALL) -> tuple[str, dict[str, object]]:
    """Why the result was left as it came, and its timing afterwards."""
    out = studio.folder / "out.gif"
    like = Like(studio.write("target.gif", target), GIF, keeps)
    given_up = cleaning.clean_picture(studio.write("result.gif", result), GIF, out, like)
    return given_up, gifs.timing(out)


def test_a_gif_takes_the_delays_and_the_loop_of_its_target(studio):
    target = gifs.gif(studio.frames(3), [5, 77, 9], loop=4)
    given_up, timing = like_a_gif(studio, gifs.gif(studio.frames(3), [10] * 3, loop=0), target)
    assert (given_up, timing["delays"], timing["loop"]) == ("", [5, 77, 9], 4)


def test_a_gif_is_transparent_where_its_target_is(studio):
    target = gifs.gif(studio.frames(3), [5, 77, 9], loop=4, transparent=True)
    like_a_gif(studio, gifs.gif(studio.frames(3), [10] * 3, loop=0), target)
    holes = gifs.holes(studio.folder / "target.gif")
    assert holes.any()
    np.testing.assert_array_equal(gifs.holes(studio.folder / "out.gif"), holes)


@pytest.mark.parametrize(
    ("frames", "keeps", "reason"),
    [(2, KEEPS_ALL, "another number of frames"), (3, frozenset({Keeps.FRAMES}), "")],
    ids=["other frames", "timing not promised"],
)
def test_a_gif_keeps_its_own_timing_otherwise(studio, frames, keeps, reason):
    result = gifs.gif(studio.frames(3), [10] * 3, loop=0)
    given_up, timing = like_a_gif(studio, result, gifs.gif(studio.frames(frames), [7] * frames, loop=4), keeps)
    assert (given_up, timing["delays"], timing["loop"]) == (reason, [10] * 3, 0)


def test_a_target_that_cannot_be_taken_apart_is_no_fault_of_the_result(studio):
    target = gifs.gif(studio.frames(1), [7], loop=4)[:-20]
    given_up, timing = like_a_gif(studio, gifs.gif(studio.frames(1), [10], loop=0), target)
    assert (given_up, timing["delays"]) == ("the target cannot be taken apart", [10])
