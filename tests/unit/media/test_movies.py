from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from gateway.audit import MediaFacts, MediaKind
from gateway.errors import InvalidInputError
from gateway.media import movies, remuxing
from gateway.media.limits import Limits
from gateway.sniffing import MP4, WEBM


def facts(answer):
    assert "done" in answer, answer
    return MediaFacts.from_json(answer["done"])


def test_facts_of_a_video_with_audio_at_the_ntsc_rate(studio, probe):
    found = facts(probe(studio.video(rate=Fraction(30000, 1001), audio=True)))
    assert found.kind is MediaKind.VIDEO
    assert (found.content_type, found.suffix, found.video_codec) == ("video/mp4", ".mp4", "h264")
    assert (found.width, found.height, found.frames) == (96, 64, 12)
    assert found.fps == Fraction(30000, 1001)
    assert found.duration_seconds == pytest.approx(12 * 1001 / 30000, abs=1e-4)
    assert found.has_audio


def test_a_silent_video_has_no_audio(studio, probe):
    assert not facts(probe(studio.video())).has_audio


@pytest.mark.parametrize("audio", [True, False])
def test_the_index_alone_says_what_decoding_says(studio, probe, audio):
    whole = studio.video(rate=Fraction(30000, 1001), audio=audio)
    data = whole.read_bytes()
    at = data.index(b"mdat") + 4
    length = int.from_bytes(data[at - 8 : at - 4], "big") - 8
    hollow = studio.write("hollow.mp4", data[:at] + bytes(length) + data[at + length :])
    assert movies.skim_movie(hollow, MP4, Limits()) == facts(probe(whole))


def test_an_index_that_says_more_than_there_is_is_refused(studio):
    cut = studio.write("cut.mp4", studio.video().read_bytes()[:-1])
    with pytest.raises(InvalidInputError, match="cut short"):
        movies.skim_movie(cut, MP4, Limits())


def test_what_has_no_index_is_not_skimmed(studio):
    with pytest.raises(InvalidInputError, match="no MP4"):
        movies.skim_movie(studio.video("clip.webm", codec="libvpx"), WEBM, Limits())


def test_odd_sizes_are_told_as_they_are(studio, probe):
    found = facts(probe(studio.video(frames=studio.frames(size=(65, 97)), pix_fmt="yuv444p")))
    assert (found.width, found.height) == (97, 65)


def test_a_turned_video_is_measured_upright(studio, probe):
    found = facts(probe(studio.turned(studio.video())))
    assert (found.width, found.height) == (64, 96)


def test_frames_are_read_the_way_up_that_a_player_shows_them(studio):
    """The matrix of a phone held upright: the stored picture's left side becomes the top."""
    bright_left = np.zeros((64, 96, 3), np.uint8)
    bright_left[:, :32] = 255
    turned = studio.turned(studio.video(frames=[bright_left] * 3))
    frame = movies.upright_rgb(next(movies.read_frames(turned, MP4)))
    assert frame.shape == (96, 64, 3)
    assert frame[:20].mean() > 200
    assert frame[-20:].mean() < 50


def _clips(studio):
    """Key frames often, seldom and with frames before them that are shown later; sound first; hidden frames."""
    pictures = studio.frames(30)
    often = studio.video("often.mp4", pictures, options={"g": "5", "bf": "2"})
    open_groups = studio.video("open.mp4", pictures, options={"x264-params": "keyint=8:bframes=2:open-gop=1"})
    gradual = studio.video("gradual.mp4", pictures, options={"x264-params": "intra-refresh=1:keyint=10"})
    webm = studio.video("often.webm", pictures, codec="libvpx", options={"g": "7", "auto-alt-ref": "1"}, audio=True)
    sound_first = studio.sound_first(studio.video("sound.mp4", pictures, audio=True))
    return [often, open_groups, gradual, webm, sound_first, studio.turned(studio.video("one.mp4", pictures))]


def test_a_small_file_has_the_facts_it_has_when_it_is_opened_anew_for_each_step(studio, probe, monkeypatch):
    clips = _clips(studio)
    kept = [facts(probe(clip)) for clip in clips]
    monkeypatch.setattr(movies, "KEPT_BYTES", 0)
    assert [facts(probe(clip)) for clip in clips] == kept


@pytest.mark.parametrize("most_kept", [movies.KEPT_BYTES, 0])
def test_a_video_whose_last_frames_are_damaged_is_refused_whether_its_packets_are_kept(
    studio, probe, monkeypatch, most_kept
):
    path = studio.video("groups.mp4", studio.frames(20), options={"g": "5", "bf": "0"})
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for at, size in packets[-2:]:
        data[at + 4 : at + size] = bytes(size - 4)
    monkeypatch.setattr(movies, "KEPT_BYTES", most_kept)
    assert probe(studio.write("bad.mp4", bytes(data)))["refused"] == "validation_error"


def test_a_small_file_is_opened_once(studio, probe, monkeypatch):
    opened = []
    opening = movies.open_movie
    monkeypatch.setattr(movies, "open_movie", lambda *given: opened.append(given) or opening(*given))
    facts(probe(studio.video(options={"g": "5"})))
    assert len(opened) == 1


def test_invisible_reference_frames_of_vp8_are_not_counted(studio, probe):
    """VP8 keeps them in packets of their own: bit 4 of the first byte says whether a frame is shown."""
    path = studio.video("clip.webm", studio.frames(10), codec="libvpx")
    with av.open(str(path)) as container:
        hidden = [bytes(packet) for packet in container.demux(video=0) if packet.size][4]
    assert hidden[0] & 0x10
    data = path.read_bytes()
    assert data.count(hidden) == 1
    data = data.replace(hidden, bytes([hidden[0] & ~0x10]) + hidden[1:])
    found = studio.write("hidden.webm", data)
    assert facts(probe(found)).frames == 9
    assert sum(1 for _ in movies.read_frames(found, WEBM)) == 9


def test_a_video_without_video_stream_is_refused(studio, probe):
    answer = probe(studio.sound_only())
    assert answer["refused"] == "validation_error"
    assert "no video stream" in answer["message"]


def test_two_video_streams_are_refused(studio, probe):
    answer = probe(studio.video(videos=2))
    assert answer["refused"] == "validation_error"
    assert "2 video streams" in answer["message"]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("name", ["clip.mp4", "clip.webm"])
def test_a_video_cut_short_is_refused(studio, probe, name, share):
    """The header of both still claims the whole length: in the mp4 it comes first."""
    codec = "libx264" if name.endswith("mp4") else "libvpx"
    whole = studio.video(name, studio.frames(48), codec=codec)
    if name.endswith("mp4"):
        remuxing.remux(whole, MP4, studio.folder / "fast.mp4")
        whole = studio.folder / "fast.mp4"
    data = whole.read_bytes()
    assert "done" in probe(whole)
    cut = studio.write("cut.mp4", data[: int(len(data) * share)])
    assert probe(cut)["refused"] == "validation_error"


def test_an_mp4_without_its_index_is_refused(studio, probe):
    """The index of an ordinary mp4 comes last, so it is the first thing that a lost connection takes."""
    data = studio.video().read_bytes()
    cut = studio.write("cut.mp4", data[: data.index(b"moov") - 4])
    assert probe(cut)["refused"] == "validation_error"


def test_a_last_frame_that_does_not_decode_is_refused(studio, probe):
    path = studio.video(codec="mpeg4", frames=studio.frames(10), options={"g": "1"})
    with av.open(str(path)) as container:
        last = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size][-1]
    data = bytearray(path.read_bytes())
    data[last[0] : last[0] + last[1]] = bytes(last[1])
    assert probe(studio.write("bad.mp4", bytes(data)))["refused"] == "validation_error"


def test_codecs_beyond_the_list_are_refused(studio, probe):
    answer = probe(studio.video(codec="mjpeg", pix_fmt="yuvj420p"))
    assert answer["refused"] == "unsupported_media_type"
    assert "h264" in answer["message"]


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        (Limits(video_frames=11), "more than 11 frames"),
        (Limits(video_fps=23), "at most 23"),
        (Limits(video_long_side=95), "at most 95x2304"),
        (Limits(video_short_side=63), "at most 4096x63"),
    ],
)
def test_the_sentence_names_the_limit_that_was_passed(studio, probe, limits, named):
    answer = probe(studio.video(), limits=limits)
    assert answer["refused"] == "too_large"
    assert named in answer["message"]


def test_a_tall_video_may_be_as_large_as_a_wide_one(studio, probe):
    limits = Limits(video_long_side=96, video_short_side=64)
    assert "done" in probe(studio.video(frames=studio.frames(size=(96, 64))), limits=limits)


def test_the_frame_limit_itself_is_accepted(studio, probe):
    assert "done" in probe(studio.video(), limits=Limits(video_frames=12))


def test_a_declared_rate_that_the_packets_deny_is_not_believed(studio, probe):
    """Variable rate: 48 frames a second are declared, 24 frames take two."""
    path = studio.folder / "varying.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=48)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 48)
        for index, picture in enumerate(studio.frames(24)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index * (2 if index < 12 else 4), Fraction(1, 48)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    found = facts(probe(path))
    assert found.frames == 24
    assert found.duration_seconds == pytest.approx(96 / 48, abs=0.1)
    assert float(found.fps) == pytest.approx(24 / found.duration_seconds, rel=0.01)


def test_frames_that_an_edit_list_hides_are_neither_counted_nor_missed(studio, probe):
    """A trimmed clip begins at the key frame before its cut; the file holds 12 frames of which 8 are shown."""
    whole = studio.video(options={"bf": "0"})
    path = studio.folder / "trimmed.mp4"
    with av.open(str(whole)) as source, av.open(str(path), "w") as out:
        copy = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts -= 4 * packet.duration
                packet.dts = packet.pts
                packet.stream = copy
                out.mux(packet)
    with av.open(str(path)) as trimmed:
        assert trimmed.streams.video[0].frames == 12
        assert sum(1 for _ in trimmed.decode(video=0)) == 8
    assert facts(probe(path)).frames == 8


def test_the_rate_of_uneven_times_counts_the_last_frame_once(studio, probe):
    """With B-frames the frame shown last is not the one decoded last, and an MP4 keeps only how long decoding takes."""
    path = studio.folder / "uneven.mp4"
    moments = [0, 40, 80, 120, 160, 1160, 1200]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"bf": "3", "b-adapt": "0"})
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for moment, picture in zip(moments, studio.frames(len(moments)), strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = moment, Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with movies.open_movie(path, MP4) as container:
        decoded = [packet.pts for packet in container.demux(container.streams.video) if packet.size]
    assert decoded[-1] != max(decoded)
    found = facts(probe(path))
    assert found.duration_seconds == pytest.approx(1.24, abs=0.04)
    assert found.fps == pytest.approx(7 / 1.24, rel=0.04)
