from __future__ import annotations

import av
import numpy as np
import pytest
from PIL import Image, ImageSequence

from gateway.audit import movement_limit
from gateway.media import child, comparing, movies
from gateway.media.limits import Limits
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


# ----------------------------------------------------------------------------------------- a first look, while cleaning


@pytest.fixture
def looked_at(studio):
    """Whether a copy's first frame shows that it is changed, as the child says."""

    def ask(target, result, *, is_compared=True):
        task = {
            "do": "clean",
            "path": str(result),
            "out": str(studio.folder / "copy"),
            "like": str(target),
            "keeps": ["audio", "fps"],
            "limits": Limits().for_results().to_json(),
            "is_compared": is_compared,
            "compared_at_crf": 18,
        }
        return child.answer(task)["done"]["is_changed"]

    return ask


def test_a_first_look_tells_a_swap_from_what_was_only_encoded_anew(studio, target, looked_at):
    pictures = reread(target)
    swap = studio.video("swap.mp4", [swapped(picture) for picture in pictures])
    again = studio.video("again.mp4", pictures)
    assert looked_at(target, swap)
    assert not looked_at(target, again)
    assert not looked_at(target, swap, is_compared=False)


def test_a_first_look_sees_the_first_frame_only(studio, target, looked_at):
    first, *others = reread(target)
    late = studio.video("late.mp4", [first, *map(swapped, others)])
    assert not looked_at(target, late)
    assert compare(target, late).changed


def test_a_first_look_at_a_still_sees_all_of_it(studio, looked_at):
    picture = studio.frames(1)[0]
    target, same, other = (studio.folder / name for name in ("target.png", "same.png", "other.png"))
    Image.fromarray(picture).save(target)
    Image.fromarray(picture).save(same, compress_level=1)
    Image.fromarray(swapped(picture)).save(other)
    assert looked_at(target, other)
    assert not looked_at(target, same)


def test_a_first_look_agrees_with_a_second_one_of_large_files_it_takes_none(studio, target, looked_at, monkeypatch):
    swap = studio.video("swap.mp4", [swapped(picture) for picture in reread(target)])
    monkeypatch.setattr(movies, "KEPT_BYTES", 0)
    assert not looked_at(target, swap)
    assert compare(target, swap).changed


def test_a_target_that_cannot_be_decoded_is_no_fault_of_its_result(studio, target, looked_at):
    data = bytearray(target.read_bytes())
    with av.open(str(target)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for at, size in packets:
        data[at : at + size] = b"\xff" * size
    assert not looked_at(studio.write("broken.mp4", bytes(data)), studio.video("swap.mp4", reread(target)))
