from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.media.timing import Shown, Times, first_moment, restamp

#: Short enough to be written as it is.
TICK = Fraction(1, 128_000)


def times(*starts: int, time_base: Fraction = TICK, last: int = 500) -> Times:
    return Times(time_base, starts, last)


@st.composite
def clips(draw):
    """A target's times and a result's packets: groups of pictures, each with its B-frames after the one they lead to."""
    steps = draw(st.lists(st.integers(1, 20_000), min_size=1, max_size=40))
    starts = [sum(steps[:index]) for index in range(len(steps))]
    order: list[int] = []
    left = list(range(len(steps)))
    while left:
        ahead = draw(st.integers(0, min(3, len(left) - 1)))
        order += [left[ahead], *left[:ahead]]
        left = left[ahead + 1 :]
    return Times(TICK, tuple(starts), steps[-1]), [Shown(512 * rank) for rank in order]


@given(clip=clips())
def test_every_frame_gets_the_targets_time_and_is_decoded_before_it_is_shown(clip):
    target, packets = clip
    stamps = restamp(packets, target, zero=0, tick=None)
    assert stamps is not None
    assert stamps.time_base == TICK
    assert [stamp.pts for stamp in stamps.packets] == [target.starts[packet.pts // 512] for packet in packets]
    assert all(stamp.dts <= stamp.pts for stamp in stamps.packets)
    decoded = [stamp.dts for stamp in stamps.packets]
    assert decoded == sorted(set(decoded))


@given(clip=clips())
def test_the_decoding_times_last_as_long_as_the_pictures(clip):
    """What an MP4 keeps of durations: the distances of decoding times and the last packet's own."""
    target, packets = clip
    stamps = restamp(packets, target, zero=0, tick=None)
    assert stamps is not None
    last, first = stamps.packets[-1], stamps.packets[0]
    assert last.dts + last.duration - first.dts == target.starts[-1] + target.last_duration - target.starts[0]


def test_what_is_decoded_up_to_zero_before_a_late_start_waits_longer_than_the_first():
    """FFmpeg's MP4 would begin the pictures earlier by what another one waits less."""
    packets = [Shown(0), Shown(1024), Shown(512), Shown(2048), Shown(1536)]
    stamps = restamp(packets, times(4000, 4528, 4800, 22_656, 40_000), zero=0, tick=None)
    assert stamps is not None
    first = stamps.packets[0]
    assert first.dts < 0 < first.pts
    early = [stamp for stamp in stamps.packets if stamp.dts <= 0]
    assert len(early) > 2
    assert all(stamp.pts - stamp.dts >= first.pts - first.dts for stamp in early)


def test_another_number_of_frames_gets_no_times():
    assert restamp([Shown(0), Shown(1)], times(0, 10, 20), zero=0, tick=None) is None
    assert restamp([], times(0), zero=0, tick=None) is None


def test_frames_at_one_time_have_no_order():
    assert restamp([Shown(5), Shown(5)], times(0, 10), zero=0, tick=None) is None
    assert restamp([Shown(5), Shown(6)], times(10, 10), zero=0, tick=None) is None


def test_frames_nearer_than_a_tick_of_the_container_get_no_times():
    assert restamp([Shown(0), Shown(1)], times(0, 3), zero=0, tick=Fraction(1, 1000)) is None


def test_a_reference_frame_that_nobody_sees_goes_with_the_next_one():
    packets = [Shown(0), Shown(39, is_shown=False), Shown(40), Shown(80)]
    stamps = restamp(packets, times(0, 1600, 8000), zero=0, tick=None)
    assert stamps is not None
    assert [stamp.pts for stamp in stamps.packets] == [0, 1600, 1600, 8000]
    assert stamps.starts == (0, 1600, 8000)


@pytest.mark.parametrize(
    ("own", "written"),
    [
        (Fraction(1, 1000), Fraction(1, 128_000)),
        (Fraction(1, 10**9), Fraction(1, 90_000)),
        (Fraction(1001, 30_000), Fraction(1, 90_000)),
    ],
)
def test_the_targets_ticks_are_written_where_they_can_be(own, written):
    stamps = restamp([Shown(0), Shown(1)], times(0, 10**5, time_base=own), zero=0, tick=None)
    assert stamps is not None
    assert stamps.time_base == written
    assert stamps.starts[1] * written == pytest.approx(10**5 * own)


@pytest.mark.parametrize(
    ("starts", "sound", "zero"),
    [
        ((0, 10), None, 0),
        ((528, 600), None, 0),
        ((0, 10), Fraction(-1024, 48_000), 0),
        ((0, 10), Fraction(3), 0),
        ((-160, 10), Fraction(0), -160),
        ((160_000, 160_010), None, 160_000),
        ((160_000, 160_010), Fraction(5), 80_000),
        ((160_000, 160_010), Fraction(0), 0),
    ],
)
def test_a_result_begins_at_zero_only_when_its_targets_clock_began_elsewhere(starts, sound, zero):
    assert first_moment(times(*starts, time_base=Fraction(1, 16_000)), sound) == zero
