"""Copies of resulting videos: pictures untouched, tags left behind, with the target's own timing and sound.

Runs in the child process only. Nothing is decoded or encoded: packets are copied bit for bit, only their times change.
An upstream makes a constant rate of every rate and encodes the sound anew (VideoHelperSuite 4ee72c0), which moves a
sound that begins late to the beginning; what the target holds is better on both counts, so it is taken from there.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from gateway.audit import KEEPS_ALL, Keeps, MediaFacts, MediaKind
from gateway.errors import ResultInvalidError
from gateway.media import movies
from gateway.media.digests import Digests
from gateway.media.limits import Limits
from gateway.media.timing import Shown, Stamps, Times, first_moment, restamp
from gateway.sniffing import MediaType

_MUXERS: Final = {"video/mp4": "mp4", "video/quicktime": "mov", "video/webm": "webm"}
#: Sound that may be copied from a target. What a player of the container does not know stays as the upstream made it:
#: FFmpeg would write PCM into an MP4, and no browser would play it.
_CARRIED_SOUND: Final = {
    "video/mp4": frozenset({"aac", "mp3", "opus", "flac", "ac3", "eac3", "alac"}),
    "video/quicktime": frozenset({"aac", "mp3", "ac3", "eac3", "alac"}),
    "video/webm": frozenset({"opus", "vorbis"}),
}
#: Matroska as WebM wants it counts in milliseconds.
_ONLY_TICK: Final = {"video/webm": Fraction(1, 1000)}
#: Up to here an MP4 counts the silence or the still before a late start in ticks that fit both its tracks.
_FINEST_MOVIE_TIMESCALE: Final = 1_000_000
_MOVIE_TIMESCALE: Final = 90_000
#: Times of a WebM are whole milliseconds, and a late start in an MP4 may be rounded.
_START_SLACK_SECONDS: Final = Fraction(1, 500)
#: From here on the header's place is kept free instead of moving everything when it is known.
_LARGE_BYTES: Final = 8 * 1024**2
#: Of the header, at most: for the file and for each track, and for each packet with its size (4 bytes), durations (8 and
#: 8), place (8 and 12) and key mark (4), see ISO/IEC 14496-12, section 8.
_HEADER_BYTES: Final = 4096
_HEADER_BYTES_PER_PACKET: Final = 48
#: Bytes of the file for each byte of padding at worst: not more than one in a hundred.
_LEAST_PER_RESERVED: Final = 100
#: Tags that a muxer writes itself; none holds words of the upstream, once they were muxed anew.
_HARMLESS_TAGS: Final = frozenset(
    {
        "major_brand",
        "minor_version",
        "compatible_brands",
        "encoder",
        "language",
        "handler_name",
        "vendor_id",
        "duration",
    }
)


@dataclass(frozen=True, slots=True)
class Like:
    """The target a result is to be like."""

    path: Path
    kind: MediaType
    keeps: frozenset[Keeps] = KEEPS_ALL
    #: Whether its first frame is wanted, to be laid beside that of the copy.
    is_compared: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """What a copy has of its target."""

    #: its rate and its seconds, when every frame appears when the target's does.
    fps: Fraction | None = None
    duration_seconds: float | None = None
    #: whether its sound was copied.
    sound: bool = False
    #: why something was left as the upstream made it; "" when nothing was.
    given_up: str = ""
    #: of the copy, decoded as an input is; None of a copy that was only planned, or where nobody asked for them.
    facts: MediaFacts | None = None
    #: the first frames of the target and of the copy, where they were decoded.
    firsts: tuple[VideoFrame | None, VideoFrame | None] = (None, None)


@dataclass(frozen=True, slots=True)
class _Plan:
    """One way to write the copy."""

    stamps: Stamps | None = None
    #: file that the sound comes from, and how much later it comes in the copy.
    sound: tuple[Path, MediaType] | None = None
    sound_shift: Fraction = Fraction(0)
    #: when that sound begins in the copy, and the digests of its tracks.
    sound_start: Fraction | None = None
    sound_digests: tuple[bytes, ...] = ()
    taken: Taken = Taken()


@dataclass(slots=True)
class _Source:
    """A result, open, and what its packets say, read once before the copy is planned."""

    container: InputContainer
    #: the pictures'; empty when one of them is hidden by an edit list or has no time.
    packets: tuple[Shown, ...]
    digests: Digests
    #: of a small file, pictures and sound, for the first copy only: they get its times. None: they must be read again.
    kept: list[Packet[Stream]] | None
    #: the target's, where it was asked for.
    target_first: VideoFrame | None = None

    def take_kept(self) -> list[Packet[Stream]] | None:
        """Those, once."""
        kept, self.kept = self.kept, None
        return kept


_NOT_COPIED: Final = "The result could not be copied without its metadata."


class _NotAsPlannedError(Exception):
    """What was written is not what was to be written."""


def is_movie(kind: MediaType) -> bool:
    """Whether files of that kind are remuxed."""
    return kind.content_type in _MUXERS


def remux(
    path: Path,
    kind: MediaType,
    out: Path,
    *,
    like: Like | None = None,
    limits: Limits | None = None,
    is_probed: bool = False,
) -> Taken:
    """Write a copy without tags, chapters, data streams and attachments, as like the target as can be.

    Args:
        path: the result.
        kind: what it is.
        out: where the copy goes.
        like: its target; None for a copy with the result's own timing and sound.
        limits: for the packets that are counted, and for the copy where it is probed.
        is_probed: decode the copy as an input is, to get its facts.

    Raises:
        ResultInvalidError: the copy is not the result's pictures, or tags stuck to it.
        Exception: whatever PyAV raises on a broken result; as ``movies.probe_movie`` does of the copy.
    """
    given_up, limits = "", limits or Limits()
    with movies.open_movie(path, kind) as container:
        source = _survey(container, path)
        for plan in _plans(kind, source, like, limits):
            with ExitStack() as stack:
                try:
                    _write(path, kind, out, plan, source)
                    copy = stack.enter_context(movies.open_movie(out, kind))
                    tally = _check(copy, out, plan, source, limits)
                except (av.error.FFmpegError, ValueError, _NotAsPlannedError) as error:
                    # A target may hold sound that decodes but cannot be written again: then it is left as it came.
                    given_up = given_up or (
                        str(error) if isinstance(error, _NotAsPlannedError) else type(error).__name__
                    )
                    if plan == _Plan():
                        raise ResultInvalidError(_NOT_COPIED) from error
                    continue
                _refuse_tags(copy)
                facts, first = movies.examine(copy, out, kind, limits, tally=tally) if is_probed else (None, None)
                return replace(
                    plan.taken,
                    given_up=plan.taken.given_up or given_up,
                    facts=facts,
                    firsts=(source.target_first, first),
                )
    raise ResultInvalidError(_NOT_COPIED)


# ------------------------------------------------------------------------------------------------------------ planning


def _plans(kind: MediaType, source: _Source, like: Like | None, limits: Limits) -> Iterator[_Plan]:
    """Ways to write the copy, the best one first; the last one always works on a result that is whole."""
    plan = _Plan() if like is None else _plan(kind, source, like, limits)
    yield plan
    if plan.sound is not None and plan.stamps is not None:
        yield replace(
            plan,
            sound=None,
            sound_shift=Fraction(0),
            sound_start=None,
            sound_digests=(),
            taken=replace(plan.taken, sound=False),
        )
    if plan != _Plan():
        yield _Plan()


def _plan(kind: MediaType, source: _Source, like: Like, limits: Limits) -> _Plan:
    """What to take from the target. Nothing when the numbers of frames differ: then no time of it means anything."""
    digests = Digests()
    with movies.open_movie(like.path, like.kind) as target:
        tally = movies.tally_open(target, like.path, limits, see=digests.take_sound)
        fps = movies.rate(movies.only_video_stream(target), tally)
        is_carried = _is_carried(target, kind)
        if like.is_compared:
            source.target_first = movies.first_frame(target, tally)
    starts = tuple(sorted(tally.pts))
    if not starts:
        return _Plan()
    last = max(0, round(tally.end / tally.time_base) - starts[-1])
    times = Times(tally.time_base, starts, last)
    packets = source.packets
    if sum(packet.is_shown for packet in packets) != len(starts):
        return _Plan(taken=Taken(given_up="another number of frames"))
    sound_start = tally.sound_start if Keeps.AUDIO in like.keeps and is_carried else None
    zero = first_moment(times, sound_start)
    stamps = restamp(packets, times, zero=zero, tick=_ONLY_TICK.get(kind.content_type))
    if Keeps.FPS not in like.keeps:
        stamps = None
    if like.kind.kind is MediaKind.GIF:
        # Hundredths of a second, as exact as they are written; its decoder declares a rate that is a guess.
        fps = Fraction(len(starts)) / (tally.end - tally.start) if len(starts) > 1 and tally.end > tally.start else None
    taken = Taken(fps, float(tally.end - tally.start)) if stamps is not None else Taken()
    if sound_start is None:
        return _Plan(stamps, taken=taken)
    # With the pictures' times left as they came, the sound is placed beside the first of them.
    begin = min(packet.pts for packet in packets if packet.is_shown) * _time_base(source.container)
    shift = -zero * tally.time_base if stamps is not None else begin - starts[0] * tally.time_base
    return _Plan(
        stamps, (like.path, like.kind), shift, sound_start + shift, digests.sounds(), replace(taken, sound=True)
    )


def _survey(container: InputContainer, path: Path) -> _Source:
    stream = movies.only_video_stream(container)
    codec = stream.codec.canonical_name
    shown: list[Shown] = []
    kept: list[Packet[Stream]] | None = [] if path.stat().st_size <= movies.KEPT_BYTES else None
    is_hiding, digests = False, Digests()
    for packet in container.demux([stream, *container.streams.audio]):
        if not packet.size:
            continue
        digests.take(packet)
        if kept is not None:
            kept.append(packet)
        if packet.stream_index != stream.index:
            continue
        if packet.pts is None or packet.is_discard:
            is_hiding = True
        else:
            shown.append(Shown(packet.pts, movies.is_shown(packet, codec)))
    return _Source(container, () if is_hiding else tuple(shown), digests, kept)


def _time_base(container: InputContainer) -> Fraction:
    return movies.only_video_stream(container).time_base or Fraction(0)


def _is_carried(target: InputContainer, kind: MediaType) -> bool:
    """Whether all sound of the target may stand in the result's container."""
    codecs = {stream.codec.canonical_name for stream in target.streams.audio}
    return bool(codecs) and codecs <= _CARRIED_SOUND[kind.content_type]


# ------------------------------------------------------------------------------------------------------------- writing


def _write(path: Path, kind: MediaType, out: Path, plan: _Plan, source: _Source) -> None:
    reserved = _reserved_bytes(path, kind, plan)
    if reserved:
        try:
            _write_with(path, kind, out, plan, source, {"moov_size": str(reserved)})
        except av.error.FFmpegError:
            pass  # more header than was reckoned with; whatever else is wrong shows again
        else:
            return
    _write_with(path, kind, out, plan, source, {"movflags": "faststart"})


def _write_with(path: Path, kind: MediaType, out: Path, plan: _Plan, source: _Source, header: dict[str, str]) -> None:
    with ExitStack() as stack:
        kept = source.take_kept()
        pictures = source.container if kept is not None else stack.enter_context(movies.open_movie(path, kind))
        if kept is not None and plan.sound is None:
            sounds = pictures
        else:
            sounds = stack.enter_context(movies.open_movie(*(plan.sound or (path, kind))))
        video, tracks = movies.only_video_stream(pictures), sounds.streams.audio
        options = _options(kind, plan, tracks, header)
        copy = stack.enter_context(av.open(str(out), "w", format=_MUXERS[kind.content_type], options=options))
        added = _add(copy, video)
        if plan.stamps is not None:
            added.time_base = plan.stamps.time_base
        copies = {stream.index: _add(copy, stream) for stream in tracks}
        parts = [
            _pictures(_packets(pictures, [video], kept), added, plan.stamps),
            _sounds(_packets(sounds, tracks, kept if sounds is pictures else None), copies, plan.sound_shift),
        ]
        # One by one in order of decoding: that is how players read, and no more than a packet of each is held.
        for packet in heapq.merge(*parts, key=_decoded_at):
            copy.mux(packet)


def _packets(
    container: InputContainer, streams: Sequence[Stream], kept: Sequence[Packet[Stream]] | None
) -> Iterator[Packet[Stream]]:
    """Those of these streams, in their order; read, where they were not kept."""
    if kept is not None:
        indices = {stream.index for stream in streams}
        # At once: a packet that goes into the copy gets the index that its stream has there.
        return iter([packet for packet in kept if packet.stream_index in indices])
    if not streams:
        return iter(())
    return (packet for packet in container.demux(list(streams)) if packet.size)


def _reserved_bytes(path: Path, kind: MediaType, plan: _Plan) -> int:
    """Room to leave for the header of a large copy, which comes first; 0 to have it moved there afterwards.

    To move it, the muxer reads the whole copy and writes it once more. What it needs is bounded by the numbers of
    packets, where the sources state them; what is left over is padding.
    """
    size_bytes = path.stat().st_size
    if kind.content_type in _ONLY_TICK or size_bytes < _LARGE_BYTES:
        return 0
    with ExitStack() as stack:
        pictures = stack.enter_context(movies.open_movie(path, kind))
        sounds = stack.enter_context(movies.open_movie(*(plan.sound or (path, kind))))
        streams = [movies.only_video_stream(pictures), *sounds.streams.audio]
        counts = [stream.frames for stream in streams]
        extra_bytes = sum(stream.codec_context.extradata_size for stream in streams)
    reserved = _HEADER_BYTES * (1 + len(streams)) + extra_bytes + _HEADER_BYTES_PER_PACKET * sum(counts)
    return reserved if all(counts) and reserved * _LEAST_PER_RESERVED <= size_bytes else 0


def _options(kind: MediaType, plan: _Plan, sounds: Sequence[AudioStream], header: dict[str, str]) -> dict[str, str]:
    # bitexact: no version of the muxer in it. The header comes first, so a browser can play while it loads.
    options = {"fflags": "+bitexact"}
    if kind.content_type in _ONLY_TICK:
        return options
    options |= header
    if plan.stamps is None and plan.sound is None:
        return options
    ticks = [plan.stamps.time_base.denominator] if plan.stamps is not None else []
    fitting = math.lcm(*ticks, *(stream.time_base.denominator for stream in sounds if stream.time_base))
    return options | {"movie_timescale": str(fitting if 1 < fitting <= _FINEST_MOVIE_TIMESCALE else _MOVIE_TIMESCALE)}


def _add(copy: OutputContainer, stream: VideoStream | AudioStream) -> VideoStream | AudioStream:
    added = copy.add_stream_from_template(stream)
    added.metadata.clear()
    if "language" in stream.metadata:
        added.metadata["language"] = stream.metadata["language"]
    return added


def _pictures(packets: Iterator[Packet[Stream]], added: Stream, stamps: Stamps | None) -> Iterator[Packet[Stream]]:
    for index, packet in enumerate(packets):
        if stamps is not None:
            stamp = stamps.packets[index]
            packet.time_base = stamps.time_base
            packet.pts, packet.dts, packet.duration = stamp.pts, stamp.dts, stamp.duration
        packet.stream = added
        yield packet


def _sounds(
    packets: Iterator[Packet[Stream]], tracks: Mapping[int, Stream], shift: Fraction
) -> Iterator[Packet[Stream]]:
    for packet in packets:
        if shift and packet.time_base:
            ticks = round(shift / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks
        packet.stream = tracks[packet.stream_index]
        yield packet


def _decoded_at(packet: Packet[Stream]) -> float:
    ticks = packet.dts if packet.dts is not None else packet.pts
    return float((ticks or 0) * (packet.time_base or 0))


# ------------------------------------------------------------------------------------------------------------ checking


def _check(copy: InputContainer, out: Path, plan: _Plan, source: _Source, limits: Limits) -> movies.Tally:
    """Read the copy back, once; what its packets say.

    Raises:
        _NotAsPlannedError: other pictures, sound or times.
    """
    found = Digests()
    written = movies.tally_open(copy, out, limits, see=found.take)
    sounds = source.digests.sounds() if plan.sound is None else plan.sound_digests
    if (found.pictures(), found.sounds()) != (source.digests.pictures(), sounds):
        raise _NotAsPlannedError("packets differ")
    if plan.stamps is not None:
        wanted = [start * plan.stamps.time_base for start in plan.stamps.starts]
        if [pts * written.time_base for pts in sorted(written.pts)] != wanted:
            raise _NotAsPlannedError("frames appear at other times")
    if plan.sound_start is not None and abs((written.sound_start or 0) - plan.sound_start) > _START_SLACK_SECONDS:
        raise _NotAsPlannedError("the sound begins at another time")
    return written


def _refuse_tags(copy: InputContainer) -> None:
    tags = {tag.lower() for stream in copy.streams for tag in stream.metadata} | {t.lower() for t in copy.metadata}
    if tags - _HARMLESS_TAGS:
        raise ResultInvalidError("The result's metadata could not be removed.")
