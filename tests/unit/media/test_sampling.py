from __future__ import annotations

import av
import numpy as np
import pytest
from PIL import Image

from gateway.errors import InvalidInputError
from gateway.media import movies, sampling
from gateway.screening import frames_to_look_at
from gateway.sniffing import GIF, JPEG, MP4, PNG, WEBM, WEBP

SIDE = 1024
HALVES = (slice(4, 28), slice(36, 60))


@pytest.fixture
def look(tmp_path):
    """The pictures of a file."""

    def look(path, kind, most=16, longest_side=SIDE):
        into = tmp_path / "into"
        into.mkdir()
        count = sampling.sample(path, kind, into, most=most, longest_side=longest_side)
        pictures = []
        for number in range(count):
            with Image.open(into / f"{number:04}.png") as picture:
                pictures.append(picture.copy())
        assert len(list(into.iterdir())) == count
        assert {picture.mode for picture in pictures} <= {"RGB"}
        return pictures

    return look


def numbered(count):
    """Frames that say which they are: tens by how bright the upper half is, ones by the lower."""
    frames = np.zeros((count, 64, 96, 3), np.uint8)
    for index in range(count):
        frames[index, :32], frames[index, 32:] = 10 + 24 * (index // 10), 10 + 24 * (index % 10)
    return list(frames)


def numbers(pictures):
    halves = [(float(np.asarray(picture)[half].mean()) - 10) / 24 for picture in pictures for half in HALVES]
    return [10 * round(tens) + round(ones) for tens, ones in zip(halves[::2], halves[1::2], strict=True)]


# --------------------------------------------------------------------------------------------------------------- stills


def test_a_still_is_looked_at_whole_and_upright(studio, look):
    left_is_red = Image.new("RGB", (90, 60), (0, 0, 255))
    left_is_red.paste((255, 0, 0), (0, 0, 45, 60))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = studio.folder / "phone.jpg"
    left_is_red.save(path, exif=exif, quality=95)
    [picture] = look(path, JPEG)
    assert picture.size == (60, 90)
    assert picture.getpixel((30, 5))[0] > 200
    assert picture.getpixel((30, 85))[2] > 200


def test_a_large_still_is_made_small_by_all_its_pixels(studio, look):
    """Every fourth pixel white, the others black: a filter that leaves pixels out could see a white picture."""
    pixels = np.zeros((400, 800, 3), np.uint8)
    pixels[::4, ::4] = 255
    path = studio.folder / "grid.png"
    Image.fromarray(pixels).save(path)
    [picture] = look(path, PNG, longest_side=200)
    assert picture.size == (200, 100)
    assert np.asarray(picture).mean() == pytest.approx(255 / 16, abs=3)


def test_what_one_can_see_through_is_looked_at_bare_on_white_and_on_black(studio, look):
    path = studio.folder / "cut.png"
    Image.new("RGBA", (8, 8), (200, 0, 0, 0)).save(path)
    assert [picture.getpixel((4, 4)) for picture in look(path, PNG)] == [(200, 0, 0), (255, 255, 255), (0, 0, 0)]


@pytest.mark.parametrize(("mode", "opaque"), [("RGBA", (9, 9, 9, 255)), ("LA", (9, 255))])
def test_alpha_that_hides_nothing_is_looked_at_once(studio, look, mode, opaque):
    path = studio.folder / "full.png"
    Image.new(mode, (8, 8), opaque).save(path)
    assert len(look(path, PNG)) == 1


@pytest.mark.parametrize(("suffix", "kind"), [("png", PNG), ("webp", WEBP)])
def test_a_still_that_moves_is_looked_at_in_several_places(studio, look, suffix, kind):
    """Templates refuse it; a client's own workflow may take it, and all its frames."""
    pictures = [Image.fromarray(frame) for frame in numbered(12)]
    path = studio.folder / f"moves.{suffix}"
    more = {"lossless": True} if suffix == "webp" else {}
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=50, **more)
    assert numbers(look(path, kind, most=4)) == list(frames_to_look_at(range(12), 4))


def test_deep_greys_are_looked_at_clipped_and_scaled(studio, look):
    path = studio.folder / "deep.png"
    Image.fromarray(np.full((8, 8), 30_000, np.uint16)).save(path)
    clipped, scaled = look(path, PNG)
    assert clipped.getpixel((4, 4))[0] >= 200 or clipped.getpixel((4, 4)) == scaled.getpixel((4, 4))
    assert scaled.getpixel((4, 4)) == (116, 116, 116)


# ----------------------------------------------------------------------------------------------------------- what moves


@pytest.mark.parametrize("gop", [1, 7, 250])
def test_frames_of_a_video_are_the_ones_chosen_wherever_its_key_frames_are(studio, look, gop):
    path = studio.video(frames=numbered(60), options={"g": str(gop), "bf": "2"})
    pictures = look(path, MP4, most=7)
    assert numbers(pictures) == list(frames_to_look_at(range(60), 7))


def test_a_short_video_is_looked_at_frame_by_frame(studio, look):
    assert numbers(look(studio.video(frames=numbered(9)), MP4)) == list(range(9))


def test_hidden_frames_of_vp8_are_not_looked_at(studio, look):
    path = studio.video("clip.webm", numbered(40), codec="libvpx")
    assert numbers(look(path, WEBM, most=5)) == list(frames_to_look_at(range(40), 5))


def test_a_turned_video_is_looked_at_upright(studio, look):
    assert look(studio.turned(studio.video()), MP4, most=1)[0].size == (64, 96)


def test_key_frames_that_are_skipped_are_not_decoded(studio, look, monkeypatch):
    path = studio.video(frames=numbered(100), options={"g": "10", "bf": "0", "sc_threshold": "0"})
    decoded = []
    monkeypatch.setattr(sampling.movies, "read_frames", lambda *_: pytest.fail("all of it is decoded"))
    real = sampling.movies.only_video_stream

    def counting(container):
        stream = real(container)
        decoded.append(stream)
        return stream

    monkeypatch.setattr(sampling.movies, "only_video_stream", counting)
    assert numbers(look(path, MP4, most=3)) == [0, 49, 99]
    assert len(decoded) == 2


def test_times_that_a_decoder_tells_otherwise_are_counted_instead(studio, look, monkeypatch):
    path = studio.video(frames=numbered(30))
    shown = sampling._shown

    def shifted(path, kind):
        return [(start + 1, key) for start, key in shown(path, kind)]

    monkeypatch.setattr(sampling, "_shown", shifted)
    found = numbers(look(path, MP4, most=4))
    assert found[-4:] == list(frames_to_look_at(range(30), 4))


def test_what_cannot_be_decoded_to_its_last_look_is_refused(studio, look, monkeypatch):
    path = studio.video(frames=numbered(30))
    monkeypatch.setattr(sampling, "_shown", lambda *_: [(10**9 + tick, tick == 0) for tick in range(40)])
    with pytest.raises(InvalidInputError, match="cannot be looked at"):
        look(path, MP4, most=4)


def gif(studio, delays, *, transparent=False):
    """Squares that walk from left to right; what they stand on is white, or nothing."""
    path = studio.folder / "walk.gif"
    pictures = []
    for index in range(len(delays)):
        ground = (0, 0, 0, 0) if transparent else (255, 255, 255, 255)
        picture = Image.new("RGBA", (40 * len(delays), 40), ground)
        picture.paste((255, 0, 0, 255), (40 * index, 0, 40 * index + 40, 40))
        pictures.append(picture)
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=delays, loop=0, disposal=2)
    return path


def test_a_gif_is_looked_at_frame_by_frame_as_it_is_painted(studio, look):
    pictures = look(gif(studio, [100] * 4), GIF)
    assert [int(np.asarray(picture)[20, :, 1].argmin()) // 40 for picture in pictures] == [0, 1, 2, 3]


def test_a_gif_that_one_can_see_through_is_looked_at_on_white_and_black(studio, look):
    pictures = look(gif(studio, [100] * 2, transparent=True), GIF, most=1)
    assert [picture.getpixel((5, 5)) for picture in pictures[1:]] == [(255, 255, 255), (0, 0, 0)]
    assert len(pictures) == 3


def test_moving_pictures_of_one_frame_are_looked_at(studio, look):
    assert len(look(studio.video(frames=numbered(1)), MP4)) == 1
    assert movies.count_frames(studio.folder / "clip.mp4", MP4) == 1


def test_library_still_says_which_packets_are_key_frames(studio):
    with av.open(str(studio.video(frames=numbered(30), options={"g": "10", "sc_threshold": "0"}))) as container:
        assert sum(packet.is_keyframe for packet in container.demux(video=0) if packet.size) == 3
