from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.embedded.nodes_video import target_size
from gateway.embedded.video import (
    Audio,
    FrameSelection,
    LazyAudio,
    UnreadableVideoError,
    add_audio,
    encode_h264,
    exact_rate,
    load_frames,
    open_media,
    resample,
)

NTSC = Fraction(30000, 1001)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """20 frames of 32x16 at 29.97, each of one grey that tells its number; a mono tone beside."""
    folder = tmp_path_factory.mktemp("clip")
    frames = [np.full((16, 32, 3), 40 + index * 8, np.uint8) for index in range(20)]
    silent, path = folder / "silent.mp4", folder / "clip.mp4"
    settings = {"fps": NTSC, "size": (32, 16), "pix_fmt": "yuv420p", "crf": 10, "metadata": {}}
    assert encode_h264(silent, frames, **settings) == 20
    tone = np.sin(np.arange(22050, dtype=np.float32) * 0.06)[None]
    add_audio(silent, path, Audio(tone, 22050), frames=20, fps=NTSC, trim=False)
    return path


def numbers(images: np.ndarray) -> list[int]:
    return [round((float(image.mean()) - 40) / 8) for image in images]


def load(path, *, tick=lambda *_: None, reserve=lambda *_: None, **selection):
    return load_frames(path, FrameSelection(**selection), resize=lambda p: p, reserve=reserve, tick=tick)


def test_frames_rate_size_and_sound_survive_encoding(clip):
    images, facts = load(clip)
    assert numbers(images) == list(range(20))
    assert (facts.fps, facts.frame_count, facts.width, facts.height) == (NTSC, 20, 32, 16)
    with open_media(clip) as container:
        sound = container.streams.audio[0]
        assert sound.codec_context.name == "aac"
        assert float(sound.duration * sound.time_base) == pytest.approx(20 / 29.97, abs=0.001)
        assert container.streams.video[0].codec_context.colorspace == 1


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"skip_first_frames": 5, "frame_load_cap": 7}, list(range(5, 12))),
        ({"select_every_nth": 3}, [0, 3, 6, 9, 12, 15, 18]),
        ({"skip_first_frames": 1, "select_every_nth": 4, "frame_load_cap": 2}, [1, 5]),
        ({"force_rate": 10}, [0, 3, 6, 9, 12, 15, 18]),
    ],
)
def test_selection_takes_the_frames_that_vhs_takes(clip, selection, expected):
    images, _ = load(clip, **selection)
    assert numbers(images) == expected


def test_each_frame_ticks_once_and_room_is_asked_for_first(clip):
    calls = []
    load(clip, tick=lambda *now: calls.append(now), reserve=lambda *size: calls.append(("reserve", *size)))
    assert calls == [("reserve", 20, 16, 32), *((done, 20) for done in range(1, 21))]


def test_selection_beyond_the_end_is_an_error(clip):
    with pytest.raises(RuntimeError, match="No frames generated"):
        load(clip, skip_first_frames=500)


@pytest.mark.parametrize("content", [b"", b"hello", b"ffconcat version 1.0\nfile clip.mp4\n", b"#EXTM3U\nclip.mp4\n"])
def test_script_or_junk_is_no_video_whatever_its_name(clip, content):
    path = clip.with_name("junk.mp4")
    path.write_bytes(content)
    with pytest.raises(UnreadableVideoError, match=r"junk\.mp4 could not be loaded with cv"):
        load(path)


def test_sound_of_a_segment_is_cut_by_samples(clip):
    audio = LazyAudio(clip, Fraction(1, 10), Fraction(2, 10)).load()
    assert audio.samples.shape == (1, 4410)
    assert LazyAudio(clip.with_name("silent.mp4")).load() is None


@pytest.mark.parametrize(
    ("rate", "exact"),
    [
        (30000 / 1001, NTSC),
        (24000 / 1001, Fraction(24000, 1001)),
        (29.97, Fraction(2997, 100)),
        (25, Fraction(25)),
        (12.5, Fraction(25, 2)),
    ],
)
def test_frame_rates_become_the_fraction_they_stand_for(rate, exact):
    assert exact_rate(rate) == exact


@pytest.mark.parametrize(
    ("custom", "align", "size"),
    [((0, 0), 1, (160, 120)), ((100, 0), 1, (100, 75)), ((0, 60), 1, (80, 60)), ((99, 0), 8, (96, 72))],
)
def test_target_size(custom, align, size):
    assert target_size((160, 120), *custom, align) == size


@given(st.integers(1, 200), st.integers(1, 60), st.integers(1, 60))
def test_resampling_keeps_order_and_length(count, source_fps, target_fps):
    picked = list(resample(iter(range(count)), Fraction(1, source_fps), Fraction(1, target_fps)))
    assert picked == sorted(picked)
    assert picked[0] == 0
    assert abs(Fraction(len(picked), target_fps) - Fraction(count, source_fps)) <= max(
        Fraction(1, target_fps), Fraction(1, source_fps)
    )


def test_rotation_is_applied():
    class Turned:
        rotation = 90

        def to_ndarray(self, format):  # noqa: A002 - PyAV's name
            return np.arange(6, dtype=np.uint8).reshape(1, 2, 3)

    from gateway.embedded.video import _to_rgb

    assert _to_rgb(Turned()).tolist() == [[[3, 4, 5]], [[0, 1, 2]]]
