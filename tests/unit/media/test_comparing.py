from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageSequence

from gateway.audit import movement_limit
from gateway.media import comparing, movies
from gateway.sniffing import GIF, JPEG, MP4, PNG


def compare(target, result, *, crf=20, all_frames=False):
    kinds = {".mp4": MP4, ".gif": GIF, ".png": PNG, ".jpg": JPEG}
    files = [(path, kinds[path.suffix]) for path in (target, result)]
    return comparing.compare_files(*files, crf=crf, all_frames=all_frames)


def swapped(picture, top=16, left=24, size=32, contrast=30):
    """A stand-in for a swap: other light and shade in a square, at the contrast of one face on another."""
    out = picture.copy()
    y, x = np.mgrid[0:size, 0:size]
    shade = (contrast * np.sin(y / 5) * np.cos(x / 7))[..., None]
    area = out[top : top + size, left : left + size].astype(float) + shade
    out[top : top + size, left : left + size] = np.clip(area, 0, 255).astype(np.uint8)
    return out


@pytest.fixture
def target(studio):
    return studio.video("target.mp4")


def reread(path):
    return [movies.upright_rgb(frame).copy() for frame in movies.read_frames(path, MP4)]


@pytest.mark.parametrize("all_frames", [False, True])
def test_a_file_is_the_same_as_itself(target, all_frames):
    found = compare(target, target, all_frames=all_frames)
    assert (found.changed, found.largest_movement, found.frames_compared) == (False, 0.0, 12)


@pytest.mark.parametrize("crf", [18, 20, 23])
def test_a_plain_re_encode_is_unchanged(studio, target, crf):
    result = studio.video("result.mp4", reread(target), crf=crf)
    found = compare(target, result, crf=crf, all_frames=True)
    assert not found.changed
    assert found.largest_movement > 0
    assert found.frames_compared == 12


def test_a_swap_on_every_frame_is_seen_on_the_first(studio, target, monkeypatch):
    """Before packets are counted, for which both files are read whole."""
    monkeypatch.setattr(movies, "count_frames", lambda *_: pytest.fail("counted"))
    result = studio.video("result.mp4", [swapped(picture) for picture in reread(target)], crf=20)
    found = compare(target, result)
    assert (found.changed, found.frames_compared) == (True, 1)


def test_a_swap_in_one_frame_of_many_is_seen_only_when_all_are_compared(studio):
    target = studio.video("target.mp4", studio.frames(130), crf=18)
    pictures = reread(target)
    pictures[1] = swapped(pictures[1])
    result = studio.video("result.mp4", pictures, crf=18)
    sampled = compare(target, result)
    assert (sampled.changed, sampled.frames_compared) == (False, 64)
    every = compare(target, result, all_frames=True)
    assert (every.changed, every.frames_compared) == (True, 2)


def test_an_odd_size_padded_to_even_is_compared_without_the_padding(studio):
    target = studio.video("target.mp4", studio.frames(size=(65, 97)), pix_fmt="yuv444p")
    padded = [np.pad(picture, ((0, 1), (0, 1), (0, 0)), mode="edge") for picture in reread(target)]
    result = studio.video("result.mp4", padded, crf=20)
    assert not compare(target, result).changed


def test_a_result_of_another_size_is_another_picture(studio, target):
    result = studio.video("result.mp4", studio.frames(size=(128, 192)))
    assert compare(target, result).changed


def test_a_shorter_result_is_compared_as_far_as_it_goes(studio, target):
    result = studio.video("result.mp4", reread(target)[:5], crf=20)
    found = compare(target, result, all_frames=True)
    assert (found.changed, found.frames_compared) == (False, 5)


def test_a_turned_target_is_compared_upright(studio):
    turned = studio.turned(studio.video("flat.mp4"))
    result = studio.video("result.mp4", reread(turned), crf=20)
    assert not compare(turned, result).changed


def save_gif(path, pictures, **options):
    pages = [Image.fromarray(picture) for picture in pictures]
    pages = [page.quantize(256) for page in pages] if options.pop("quantize", True) else pages
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=40, loop=0)
    return path


def test_a_gif_of_an_unchanged_video_is_unchanged(studio, target):
    assert not compare(target, save_gif(studio.folder / "result.gif", reread(target)), crf=None).changed


def test_a_gif_of_a_swap_is_changed(studio, target):
    pictures = [swapped(picture, contrast=60) for picture in reread(target)]
    assert compare(target, save_gif(studio.folder / "result.gif", pictures), crf=None).changed


def test_stills_are_compared_by_their_pixels(studio):
    picture = studio.frames(1)[0]
    photo = studio.folder / "photo.jpg"
    Image.fromarray(picture).save(photo, quality=80)
    same, other = studio.folder / "same.png", studio.folder / "other.png"
    decoded = np.asarray(Image.open(photo)).copy()
    Image.fromarray(decoded).save(same)
    assert compare(photo, same).changed is False
    decoded[5, 5, 0] ^= 1
    Image.fromarray(decoded).save(other)
    found = compare(photo, other)
    assert (found.changed, found.largest_movement) == (True, 1.0)


def test_a_photo_is_compared_as_comfyui_loads_it(studio):
    """Upright and without its alpha channel."""
    picture = studio.frames(1)[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).convert("RGBA").save(studio.folder / "phone.png", exif=exif)
    Image.fromarray(np.rot90(picture, -1)).save(studio.folder / "result.png")
    assert not compare(studio.folder / "phone.png", studio.folder / "result.png").changed


def written_by_pillow(path, pictures):
    """As VideoHelperSuite writes a GIF."""
    first, *others = [Image.fromarray(picture) for picture in pictures]
    first.save(path, save_all=True, append_images=others, duration=100, loop=0, disposal=2)
    return path


def test_a_gif_written_anew_from_a_gif_is_unchanged_and_a_faint_swap_in_it_is_seen(studio):
    before = written_by_pillow(studio.folder / "target.gif", studio.frames(4))
    with Image.open(before) as image:
        pictures = [np.asarray(page.convert("RGB")).copy() for page in ImageSequence.Iterator(image)]
    again = written_by_pillow(studio.folder / "again.gif", pictures)
    assert not compare(before, again, crf=None, all_frames=True).changed
    faint = [swapped(picture, contrast=20) for picture in pictures]
    found = compare(before, written_by_pillow(studio.folder / "faint.gif", faint), crf=None)
    assert found.changed
    # What reducing a video's colours moves would have hidden it.
    assert found.largest_movement < movement_limit(None, palette=True)
