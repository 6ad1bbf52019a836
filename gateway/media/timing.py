"""When each packet of a result is decoded and shown, so that its frames appear when the target's do.

Pure. An upstream writes frames at a constant rate (VideoHelperSuite 4ee72c0 takes the average of a variable one), but it
keeps their number and order: the result's n-th frame is the target's n-th frame, and gets its time. Adding durations up
instead would drift, half a second in ten on a recording of a screen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Final

#: Divides by the frame rates of film and television; for targets whose own ticks cannot be written.
_COMMON_TICK: Final = Fraction(1, 90_000)
#: A track whose ticks are shorter would count a gap of an hour in more than 32 bits.
_SHORTEST_TICK: Final = Fraction(1, 1_000_000)
#: ISO/IEC 14496-12, section 8.6.1.2: the distance between two samples is an unsigned 32-bit number; FFmpeg signs it.
_LONGEST_STEP_TICKS: Final = 2**31 - 1
#: What begins this late was not meant to be waited for.
_LATEST_START_SECONDS: Final = 1


@dataclass(frozen=True, slots=True)
class Times:
    """When the frames of a video appear, in the order they are shown."""

    time_base: Fraction
    #: in ticks, ascending.
    starts: tuple[int, ...]
    #: ticks for which the last frame stays.
    last_duration: int


@dataclass(frozen=True, slots=True)
class Shown:
    """One packet of a result, in decoding order."""

    pts: int
    #: False for a reference frame that nobody sees, as VP8 has them.
    is_shown: bool = True


@dataclass(frozen=True, slots=True)
class Stamp:
    """What one packet is written with, in ticks of its ``Stamps``."""

    pts: int
    dts: int
    duration: int


@dataclass(frozen=True, slots=True)
class Stamps:
    """New times for all packets of a stream, in decoding order."""

    time_base: Fraction
    packets: tuple[Stamp, ...]
    #: when the frames are shown, ascending.
    starts: tuple[int, ...]


def first_moment(times: Times, sound_start: Fraction | None) -> int:
    """Ticks of the target that become the zero of its result: 0, unless its clock began elsewhere.

    A recording of a live stream may begin at any time, and a cut may leave pictures before zero, which an MP4 would not
    show: then the first picture or sound becomes zero. Sound below zero is the encoder's priming, which no one hears.
    """
    first = times.starts[0] * times.time_base
    if sound_start is not None:
        first = min(first, max(sound_start, Fraction(0)))
    if 0 <= first < _LATEST_START_SECONDS:
        return 0
    return math.floor(first / times.time_base)


def restamp(packets: Sequence[Shown], target: Times, *, zero: int, tick: Fraction | None) -> Stamps | None:
    """Give each packet the target's time of the frame it becomes.

    Args:
        packets: of the result, in decoding order.
        target: when the target's frames are shown.
        zero: ticks of the target that become 0.
        tick: the only one that the result's container knows; None where it takes any.

    Returns:
        None when it cannot be: another number of frames, or times that are no order.
    """
    ranks = _ranks(packets)
    if ranks is None or len({rank for rank in ranks if rank is not None}) != len(target.starts):
        return None
    time_base = tick or _written_tick(target)
    scale = target.time_base / time_base
    starts = tuple(round((start - zero) * scale) for start in target.starts)
    steps = [*(after - before for before, after in pairwise(starts)), max(1, round(target.last_duration * scale))]
    if min(steps) <= 0 or max(steps) > _LONGEST_STEP_TICKS:
        return None
    frames = _following(ranks)
    shown = [starts[rank] for rank in frames]
    stamps = [
        Stamp(pts, dts, steps[rank]) for pts, dts, rank in zip(shown, _decoding_times(shown), frames, strict=True)
    ]
    # An MP4 derives all durations but this one from the decoding times, so this one decides how long the video is.
    stamps[-1] = Stamp(stamps[-1].pts, stamps[-1].dts, steps[-1])
    return Stamps(time_base, tuple(stamps), starts)


def _decoding_times(shown: Sequence[int]) -> list[int]:
    """Ascending, and none after the packet's frame is shown, however much the order is shuffled."""
    in_order = sorted(shown)
    ahead = max(decoded - pts for decoded, pts in zip(in_order, shown, strict=True))
    times = [decoded - ahead for decoded in in_order]
    if in_order[0] <= 0 or times[0] >= 0:
        return times
    # FFmpeg's MP4 takes the least wait of a packet decoded up to zero for that of the first one, and would begin the
    # pictures too early by the difference: so all of those are decoded right after the first, and wait longer than it.
    return [times[0] + index if decoded <= 0 else decoded for index, decoded in enumerate(times)]


def _ranks(packets: Sequence[Shown]) -> list[int | None] | None:
    """Which frame each packet becomes, counted as shown; None for one that nobody sees, None at all without an order."""
    times = sorted(packet.pts for packet in packets if packet.is_shown)
    if any(before == after for before, after in pairwise(times)):
        return None
    places = {pts: rank for rank, pts in enumerate(times)}
    return [places[packet.pts] if packet.is_shown else None for packet in packets]


def _following(ranks: Sequence[int | None]) -> list[int]:
    """The same, where a frame that nobody sees counts as the next one that is seen."""
    found: list[int] = []
    following = max((rank for rank in ranks if rank is not None), default=0)
    for rank in reversed(ranks):
        following = following if rank is None else rank
        found.append(following)
    return found[::-1]


def _written_tick(target: Times) -> Fraction:
    """The target's own ticks, which makes every time exact, unless they are too short or no unit fraction.

    Long ones are halved until there is room between two of them for packets that are decoded at once.
    """
    own = target.time_base
    if own.numerator != 1 or own < _SHORTEST_TICK:
        return _COMMON_TICK
    while own > _COMMON_TICK:
        own /= 2
    return own
