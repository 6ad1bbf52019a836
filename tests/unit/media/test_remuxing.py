from __future__ import annotations

from fractions import Fraction
from itertools import accumulate

import av
import numpy as np
import pytest
from PIL import Image

from gateway.audit import KEEPS_ALL, Keeps, MediaFacts, wrong_facts
from gateway.errors import InvalidInputError
from gateway.media import child, movies, remuxing
from gateway.media.limits import Limits
from gateway.sniffing import GIF, MP4, QUICKTIME, WEBM

PROMPT = '{"3": {"inputs": {"image": "private-name.jpg"}}}'
#: Milliseconds, as a recording of a screen has them: still for a second, then all at once; the last one stays.
UNEVEN = [0, *accumulate([33, 17, 50, 1000, 33, 33, 400, 34, 33, 33, 900])]
FRAMES = len(UNEVEN)
KINDS = {"mp4": MP4, "webm": WEBM, "gif": GIF, "mov": QUICKTIME}


def kind_of(path):
    return KINDS[path.suffix[1:]]


def packets(path, *, sound):
    with movies.open_movie(path, kind_of(path)) as container:
        streams = container.streams.audio if sound else container.streams.video
        return [
            (packet.pts * packet.time_base, bytes(packet)) for packet in container.demux(list(streams)) if packet.size
        ]


def shown(path):
    return sorted(time for time, _ in packets(path, sound=False))


def frames(path):
    return [frame.to_ndarray(format="rgb24") for frame in movies.read_frames(path, kind_of(path))]


class Takes:
    """Targets whose frames and sound begin when the test says."""

    def __init__(self, studio) -> None:
        self.studio = studio

    def target(self, name, moments=UNEVEN, *, codec="libx264", sound=None, sound_at=0.0, sound_seconds=0.5):
        path = self.studio.folder / name
        with av.open(str(path), "w") as out:
            stream = out.add_stream(codec, rate=30)
            stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
            stream.codec_context.time_base = Fraction(1, 1000)
            track = out.add_stream(sound, rate=48_000, layout="stereo") if sound else None
            for moment, picture in zip(moments, self.studio.frames(len(moments)), strict=True):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = moment, Fraction(1, 1000)
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
            if track is not None:
                self._noise(out, track, sound_at, sound_seconds)
        return path

    def _noise(self, out, track, at, seconds):
        shape = track.codec_context.format.name
        for start in range(0, int(48_000 * seconds), 960):
            wave = (np.sin(np.arange(start, start + 960) * 0.06) * 9000).astype(np.int16)
            samples = np.repeat(wave, 2)[np.newaxis]
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
            frame.sample_rate, frame.pts = 48_000, start + int(at * 48_000)
            fifo = av.AudioResampler(format=shape, layout="stereo", rate=48_000, frame_size=track.frame_size or 960)
            for part in fifo.resample(frame) + fifo.resample(None):
                out.mux(track.encode(part))
        out.mux(track.encode(None))

    def result(self, name="result.mp4", count=FRAMES, *, audio=False, options=None):
        """What an upstream makes: the same number of frames at a constant rate, sound from the beginning, tags."""
        codec = "libvpx" if name.endswith("webm") else "libx264"
        return self.studio.video(
            name,
            self.studio.frames(count),
            codec=codec,
            rate=25,
            audio=audio,
            metadata={"comment": PROMPT},
            options=options,
        )

    def clean(self, result, target, keeps=KEEPS_ALL):
        out = self.studio.folder / f"clean{result.suffix}"
        like = remuxing.Like(target, kind_of(target), keeps)
        taken = remuxing.remux(result, kind_of(result), out, like=like)
        assert b"private-name" in result.read_bytes()
        assert b"private-name" not in out.read_bytes()
        return out, taken


@pytest.fixture
def takes(studio):
    return Takes(studio)


@pytest.fixture
def answered(studio):
    """Facts of a cleaned result as the child tells them."""

    def ask(result, target):
        answer = child.answer(
            {
                "do": "clean",
                "path": str(result),
                "out": str(studio.folder / "answered"),
                "like": str(target),
                "keeps": sorted(KEEPS_ALL),
                "limits": Limits().for_results().to_json(),
            }
        )
        assert "done" in answer, answer
        return MediaFacts.from_json(answer["done"]["facts"])

    return ask


# ---------------------------------------------------------------------------------------------------- without a target


@pytest.mark.parametrize(("name", "codec"), [("x.mp4", "libx264"), ("x.webm", "libvpx")])
def test_a_video_loses_its_tags_and_keeps_every_packet(studio, name, codec):
    tags = {"prompt": PROMPT, "workflow": PROMPT, "comment": PROMPT}
    path = studio.video(name, codec=codec, rate=Fraction(30000, 1001), audio=True, metadata=tags)
    assert b"private-name" in path.read_bytes()
    out = studio.folder / f"clean{path.suffix}"
    remuxing.remux(path, kind_of(path), out)
    assert b"private-name" not in out.read_bytes()
    for sound in (False, True):
        assert packets(out, sound=sound) == packets(path, sound=sound)
    with av.open(str(out)) as cleaned:
        assert not {"prompt", "workflow", "comment"} & {tag.lower() for tag in cleaned.metadata}


def test_a_turned_video_stays_turned(studio):
    turned = studio.turned(studio.video())
    out = studio.folder / "clean.mp4"
    remuxing.remux(turned, MP4, out)
    assert next(movies.read_frames(out, MP4)).rotation == next(movies.read_frames(turned, MP4)).rotation != 0


# -------------------------------------------------------------------------------------------------------------- timing


@pytest.mark.parametrize(("name", "codec"), [("t.mp4", "libx264"), ("t.webm", "libvpx"), ("t.mov", "libx264")])
@pytest.mark.parametrize("b_frames", ["0", "3"])
def test_an_uneven_rate_comes_back_frame_for_frame(takes, answered, probe, name, codec, b_frames):
    target, result = takes.target(name, codec=codec), takes.result(options={"bf": b_frames})
    assert shown(result) != shown(target)
    out, taken = takes.clean(result, target)
    assert shown(out) == shown(target)
    assert shown(out) == [Fraction(moment, 1000) for moment in UNEVEN]
    assert [data for _, data in packets(out, sound=False)] == [data for _, data in packets(result, sound=False)]
    np.testing.assert_array_equal(frames(out), frames(result))
    assert not taken.given_up
    assert wrong_facts(MediaFacts.from_json(probe(target)["done"]), answered(result, target)) == ()


def test_a_constant_rate_comes_back_exactly(takes, studio, answered, probe):
    target = studio.video("t.mp4", studio.frames(12), rate=Fraction(30000, 1001), audio=True)
    result = takes.result(audio=True)
    out, _ = takes.clean(result, target)
    assert shown(out) == shown(target) == [index * Fraction(1001, 30000) for index in range(12)]
    assert packets(out, sound=True) == packets(target, sound=True)
    facts = answered(result, target)
    assert facts.fps == Fraction(30000, 1001)
    assert wrong_facts(MediaFacts.from_json(probe(target)["done"]), facts) == ()


def test_the_header_stays_in_front_and_the_length_is_the_targets(takes, probe):
    target = takes.target("t.mp4")
    out, _ = takes.clean(takes.result(options={"bf": "3"}), target)
    data = out.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert probe(out)["done"]["duration_seconds"] == pytest.approx(probe(target)["done"]["duration_seconds"])


def test_the_delays_of_a_gif_come_back_in_the_video(takes, studio, answered, probe):
    target = studio.folder / "t.gif"
    pages = [Image.fromarray(frame) for frame in studio.frames(5)]
    pages[0].save(target, save_all=True, append_images=pages[1:], duration=[40, 120, 200, 20, 500], loop=0)
    result = takes.result(count=5)
    out, _ = takes.clean(result, target)
    assert shown(out) == [Fraction(ms, 1000) for ms in (0, 40, 160, 360, 380)]
    facts = answered(result, target)
    assert (facts.duration_seconds, facts.fps) == (0.88, Fraction(5000, 880))
    assert wrong_facts(MediaFacts.from_json(probe(target)["done"]), facts) == ()


def test_a_result_in_webm_gets_the_times_to_the_millisecond(takes, answered, probe):
    target, result = takes.target("t.mp4", sound="aac", sound_at=0.4), takes.result("r.webm", audio=True)
    out, _ = takes.clean(result, target)
    assert shown(out) == [Fraction(moment, 1000) for moment in UNEVEN]
    # AAC has no place in a WebM: the upstream's own sound stays.
    assert [data for _, data in packets(out, sound=True)] == [data for _, data in packets(result, sound=True)]
    assert wrong_facts(MediaFacts.from_json(probe(target)["done"]), answered(result, target)) == ()


def test_a_picture_that_begins_late_still_does(takes):
    target = takes.target("t.mp4", [moment + 250 for moment in UNEVEN], sound="aac")
    assert shown(target)[0] == Fraction(1, 4)
    out, _ = takes.clean(takes.result(audio=True), target)
    assert shown(out) == shown(target)
    assert packets(out, sound=True) == packets(target, sound=True)


def test_a_turned_target_does_not_turn_a_result_that_is_upright(takes, studio):
    target = studio.turned(takes.target("t.mp4"))
    out, _ = takes.clean(takes.result(), target)
    assert next(movies.read_frames(out, MP4)).rotation == 0
    assert shown(out) == shown(target)


def test_another_number_of_frames_leaves_the_result_as_it_came(takes, answered, probe):
    target, result = takes.target("t.mp4", sound="aac"), takes.result(count=11, audio=True)
    out, taken = takes.clean(result, target)
    assert shown(out) == shown(result)
    assert packets(out, sound=True) == packets(result, sound=True)
    assert "number of frames" in taken.given_up
    sentences = [f.sentence for f in wrong_facts(MediaFacts.from_json(probe(target)["done"]), answered(result, target))]
    assert "expected a result of 12 frames, got 11" in sentences


def test_frames_that_an_edit_list_hides_in_the_target_do_not_count(takes, studio):
    """A clip that was trimmed without encoding it anew begins in the middle of a group of pictures."""
    whole = studio.video("whole.mp4", studio.frames(24), rate=24, options={"bf": "0", "g": "24"})
    data = bytearray(whole.read_bytes())
    at = data.index(b"elst") + 4 + 4 + 4
    # The only edit: begin six frames later.
    began = int.from_bytes(data[at + 4 : at + 8], "big")
    data[at + 4 : at + 8] = (began + 6 * 512).to_bytes(4, "big")
    data[at : at + 4] = (750).to_bytes(4, "big")
    target = studio.write("t.mp4", bytes(data))
    times = sorted(movies.tally_movie(target, MP4, Limits())[0].pts)
    assert len(times) == 18
    out, taken = takes.clean(takes.result(count=18), target)
    assert not taken.given_up
    assert shown(out) == [index * Fraction(1, 24) for index in range(18)]


# --------------------------------------------------------------------------------------------------------------- sound


@pytest.mark.parametrize(
    ("name", "codec", "sound"),
    [
        ("t.mp4", "libx264", "aac"),
        ("t.mp4", "libx264", "libmp3lame"),
        ("t.mp4", "libx264", "ac3"),
        ("t.mp4", "libx264", "alac"),
        ("t.mp4", "libx264", "flac"),
        ("t.mov", "libx264", "aac"),
        ("t.webm", "libvpx", "libopus"),
    ],
)
@pytest.mark.parametrize("late", [0.0, 0.4])
def test_the_sound_is_the_targets_own_and_begins_with_it(takes, probe, name, codec, sound, late):
    target = takes.target(name, codec=codec, sound=sound, sound_at=late)
    result = takes.result(audio=True)
    out, taken = takes.clean(result, target)
    assert taken.sound
    before, after = packets(target, sound=True), packets(out, sound=True)
    assert [data for _, data in after] == [data for _, data in before]
    assert [data for _, data in after] != [data for _, data in packets(result, sound=True)]
    assert max(abs(now - then) for (now, _), (then, _) in zip(after, before, strict=True)) <= Fraction(1, 48_000)
    assert probe(out)["done"]["has_audio"]


def test_sound_that_outlasts_the_pictures_is_whole(takes, probe):
    target = takes.target("t.mp4", sound="aac", sound_seconds=4)
    out, _ = takes.clean(takes.result(audio=True), target)
    assert packets(out, sound=True) == packets(target, sound=True)
    assert probe(out)["done"]["frames"] == len(UNEVEN)


def test_sound_that_the_container_does_not_take_stays_the_upstreams(takes):
    target = takes.target("t.mov", sound="pcm_s16le")
    result = takes.result(audio=True)
    out, taken = takes.clean(result, target)
    assert [data for _, data in packets(out, sound=True)] == [data for _, data in packets(result, sound=True)]
    assert not taken.sound
    assert shown(out) == shown(target)


def test_a_result_that_lost_its_sound_gets_the_targets(takes):
    target = takes.target("t.mp4", sound="aac")
    out, _ = takes.clean(takes.result(), target)
    assert packets(out, sound=True) == packets(target, sound=True)


def test_only_what_is_kept_is_taken(takes):
    target, result = takes.target("t.mp4", sound="aac", sound_at=0.4), takes.result(audio=True)
    out, _ = takes.clean(result, target, frozenset({Keeps.FPS}))
    assert shown(out) == shown(target)
    assert packets(out, sound=True) == packets(result, sound=True)
    out, _ = takes.clean(result, target, frozenset({Keeps.AUDIO}))
    assert shown(out) == shown(result)
    assert packets(out, sound=True) == packets(target, sound=True)


@pytest.mark.parametrize("most_kept", [movies.KEPT_BYTES, 0])
def test_sound_may_be_the_first_stream_of_a_result(takes, monkeypatch, most_kept):
    monkeypatch.setattr(movies, "KEPT_BYTES", most_kept)
    result = takes.studio.sound_first(takes.result(audio=True))
    out = takes.studio.folder / "clean.mp4"
    remuxing.remux(result, MP4, out)
    assert packets(out, sound=True) == packets(result, sound=True)
    assert packets(out, sound=False) == packets(result, sound=False)


def test_a_small_result_is_opened_once_and_so_are_its_target_and_its_copy(takes, monkeypatch):
    target, result = takes.target("t.mp4"), takes.result()
    opened = []
    opening = movies.open_movie
    monkeypatch.setattr(movies, "open_movie", lambda *given: opened.append(given[0].name) or opening(*given))
    _, taken = takes.clean(result, target)
    assert taken.fps is not None
    assert sorted(opened) == ["clean.mp4", "result.mp4", "t.mp4"]


def test_a_copy_that_is_not_as_planned_falls_back_step_by_step(takes, monkeypatch):
    """Whatever a hostile target does to the muxer, the result itself still arrives."""
    target, result = takes.target("t.mp4", sound="aac"), takes.result(audio=True)
    tried = []
    check = remuxing._check

    def fail_twice(copy, out, plan, source, limits):
        tried.append((plan.stamps is not None, plan.sound is not None))
        if len(tried) < 3:
            raise remuxing._NotAsPlannedError("as the test wants it")
        return check(copy, out, plan, source, limits)

    monkeypatch.setattr(remuxing, "_check", fail_twice)
    out, taken = takes.clean(result, target)
    assert tried == [(True, True), (True, False), (False, False)]
    assert taken == remuxing.Taken(given_up="as the test wants it")
    assert packets(out, sound=True) == packets(result, sound=True)


def test_a_copy_with_other_packets_is_not_handed_out(takes, monkeypatch):
    target, result = takes.target("t.mp4", sound="aac"), takes.result(audio=True)
    monkeypatch.setattr(remuxing, "_sounds", lambda *_: iter(()))
    with pytest.raises(remuxing.ResultInvalidError):
        takes.clean(result, target)


def test_a_target_that_is_no_video_is_said_to_be_none(takes, studio):
    with pytest.raises(InvalidInputError):
        takes.clean(takes.result(), studio.sound_only("t.mp4"))


# ---------------------------------------------------------------------------------------------------------- large files


def boxes(path):
    """Names and sizes of the outermost boxes (ISO/IEC 14496-12, section 4.2)."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], size))
        at += size
    return found


def watch_headers(monkeypatch):
    """Ways in which headers are written from now on."""
    headers = []
    options = remuxing._options
    monkeypatch.setattr(remuxing, "_options", lambda *given: headers.append(given[-1]) or options(*given))
    return headers


@pytest.fixture
def all_are_large(monkeypatch):
    monkeypatch.setattr(remuxing, "_LARGE_BYTES", 0)
    monkeypatch.setattr(remuxing, "_LEAST_PER_RESERVED", 0)


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize("sound", [None, "aac"])
@pytest.mark.usefixtures("all_are_large")
def test_a_large_copy_is_written_once_with_room_for_its_header_in_front(takes, suffix, sound, monkeypatch):
    target, result = takes.target("t.mp4", sound=sound), takes.result(f"result.{suffix}", audio=True)
    headers = watch_headers(monkeypatch)
    out, taken = takes.clean(result, target)
    assert [list(header) for header in headers] == [["moov_size"]]
    names = [name for name, _ in boxes(out)]
    assert names.index(b"moov") < names.index(b"free") < names.index(b"mdat")
    assert shown(out) == shown(target)
    assert [data for _, data in packets(out, sound=False)] == [data for _, data in packets(result, sound=False)]
    assert [data for _, data in packets(out, sound=True)] == [
        data for _, data in packets(target if sound else result, sound=True)
    ]
    assert taken.given_up == ""
    reserved, used = int(headers[0]["moov_size"]), dict(boxes(out))[b"moov"]
    assert used < reserved < used + 3 * remuxing._HEADER_BYTES + 48 * (FRAMES + 60)


@pytest.mark.usefixtures("all_are_large")
def test_a_header_larger_than_reckoned_with_is_moved_to_the_front_after_all(takes, monkeypatch):
    monkeypatch.setattr(remuxing, "_HEADER_BYTES_PER_PACKET", 0)
    monkeypatch.setattr(remuxing, "_HEADER_BYTES", 8)
    headers = watch_headers(monkeypatch)
    target = takes.target("t.mp4", sound="aac")
    out, taken = takes.clean(takes.result(), target)
    names = [name for name, _ in boxes(out)]
    assert names.index(b"moov") < names.index(b"mdat")
    assert [list(header) for header in headers] == [["moov_size"], ["movflags"]]
    assert (shown(out), taken.sound, taken.given_up) == (shown(target), True, "")


@pytest.mark.usefixtures("all_are_large")
def test_room_is_kept_only_where_the_packets_are_counted(takes):
    counted, uncounted = takes.result(), takes.target("t.webm", codec="libvpx", sound="libopus")
    assert remuxing._reserved_bytes(counted, MP4, remuxing._Plan())
    assert not remuxing._reserved_bytes(counted, MP4, remuxing._Plan(sound=(uncounted, WEBM)))
    assert not remuxing._reserved_bytes(uncounted, WEBM, remuxing._Plan())


def test_small_copies_are_not_padded(takes):
    out, _ = takes.clean(takes.result(), takes.target("t.mp4"))
    assert sum(size for name, size in boxes(out) if name == b"free") <= 8


def test_packets_of_the_copy_are_read_back_once(takes, answered, monkeypatch):
    """By the check, whose account serves for the facts."""
    read = []
    demux = movies._demux

    def watched(container, *rest):
        read.append(container.name.rpartition("/")[2])
        return demux(container, *rest)

    monkeypatch.setattr(movies, "_demux", watched)
    facts = answered(takes.result(), takes.target("t.mp4"))
    assert facts.frames == FRAMES
    assert read == ["t.mp4", "answered"]
