"""Videos by PyAV: demuxed whole and decoded at both ends, nothing taken from the header that packets can tell.

Runs in the child process only. The demuxer is fixed by the file's first bytes and only local files may be opened:
FFmpeg would take a text that says ``ffconcat version 1.0`` for a playlist and read its neighbours' files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Final, TypeAlias

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from gateway.audit import MediaFacts
from gateway.errors import InvalidInputError, TooLargeError, UnsupportedMediaError
from gateway.media.blocks import Pixels
from gateway.media.extent import is_cut_short
from gateway.media.limits import VIDEO_CODECS, Limits
from gateway.sniffing import MediaType

_DEMUXERS: Final = {"video/mp4": "mov", "video/quicktime": "mov", "video/webm": "matroska", "image/gif": "gif"}
_OPTIONS: Final = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,gif",
}
#: A Matroska header rounds its duration, and a stream may end a little before the others.
_DURATION_SLACK_SECONDS: Final = 0.5
#: Time bases are rounded: what is nearest with a denominator up to this is the rate meant (30000/1001 among them).
_RATE_DENOMINATOR: Final = 1001
#: A declared rate is believed when the packets' own times agree with it this closely.
_RATE_TOLERANCE: Final = 0.005
#: Only this one reads an index of all frames before the first packet.
_DEMUXER_WITH_INDEX: Final = "mov"
#: Of a file no larger than this the packets are kept between reading and decoding them: to open one takes a millisecond,
#: as long as to decode a dozen small frames.
KEPT_BYTES: Final = 4 * 1024**2
#: Pixels, of all frames, up to which one thread decodes: a quarter of a second's work. To start two takes longer than they
#: save on less.
_ONE_THREAD_PIXELS: Final = 25_000_000
#: Is shown a packet.
See: TypeAlias = "Callable[[Packet[Stream]], None]"

_NO_LAST_FRAME: Final = "The video's last frame cannot be decoded."
_CUT_SHORT: Final = "The video is cut short: it ends before its header says."


def open_movie(path: Path, kind: MediaType) -> InputContainer:
    """The container, opened by the one demuxer that its bytes name; also used as a context manager."""
    return av.open(f"file:{path}", format=_DEMUXERS[kind.content_type], options=_OPTIONS, metadata_errors="replace")


def only_video_stream(container: InputContainer) -> VideoStream:
    """The one moving picture in it; cover art does not count.

    Raises:
        InvalidInputError: there is none, or more than one.
    """
    videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not videos:
        raise InvalidInputError("The file has no video stream.")
    if len(videos) > 1:
        raise InvalidInputError(f"The file has {len(videos)} video streams; exactly one is accepted.")
    return videos[0]


def probe_movie(path: Path, kind: MediaType, limits: Limits, *, tally: Tally | None = None) -> MediaFacts:
    """Facts of a video whose packets were all read and whose first and last frame were decoded.

    Args:
        path: the video.
        kind: what it is.
        limits: what it may be.
        tally: of this very file, when its packets were read just now by ``tally_movie`` within the same limits.

    Raises:
        InvalidInputError: no or several video streams, no frames, or it is cut short.
        UnsupportedMediaError: a codec that is not accepted.
        TooLargeError: the sentence names the limit.
        Exception: whatever PyAV raises on a broken file.
    """
    with open_movie(path, kind) as container:
        return probe_open(container, path, kind, limits, tally=tally)


def probe_open(
    container: InputContainer, path: Path, kind: MediaType, limits: Limits, *, tally: Tally | None = None
) -> MediaFacts:
    """As ``probe_movie``, of a file that is open. Args: tally: of this very file, and of this container if it keeps packets."""
    return examine(container, path, kind, limits, tally=tally)[0]


def examine(
    container: InputContainer, path: Path, kind: MediaType, limits: Limits, *, tally: Tally | None = None
) -> tuple[MediaFacts, VideoFrame]:
    """``probe_open``'s facts, and the first frame."""
    stream = only_video_stream(container)
    _check_stream(stream, limits)
    if is_cut_short(path, _DEMUXERS[kind.content_type]):
        raise InvalidInputError(_CUT_SHORT)
    tally = tally or tally_open(container, path, limits)
    tally.refuse_missing(container, stream)
    fps = rate(stream, tally)
    declared_codec = stream.codec.canonical_name
    if fps is not None and fps > limits.video_fps:
        raise TooLargeError(
            f"The video has {float(fps):.4g} frames per second; at most {limits.video_fps} are accepted."
        )
    first = _decode_ends(path, kind, tally) if tally.kept is None else _decode_kept(stream, tally, tally.kept)
    width, height = first.width, first.height
    # The decoder has the last word on the size: a header may claim another.
    _check_sides(width, height, limits)
    if first.rotation % 180:
        width, height = height, width
    facts = MediaFacts(
        kind=kind.kind,
        content_type=kind.content_type,
        suffix=kind.suffix,
        width=width,
        height=height,
        frames=tally.frames,
        fps=fps,
        duration_seconds=float(tally.end - tally.start),
        has_audio=tally.has_audio,
        video_codec=declared_codec,
    )
    return facts, first


def skim_movie(path: Path, kind: MediaType, limits: Limits) -> MediaFacts:
    """Facts of an MP4 or QuickTime video as its index has them: nothing is decoded, and what pictures show need not be there.

    Raises as ``probe_movie``; InvalidInputError also where it is no video of these.
    """
    if _DEMUXERS.get(kind.content_type) != _DEMUXER_WITH_INDEX:
        raise InvalidInputError("The file is no MP4 or QuickTime video.")
    with open_movie(path, kind) as container:
        stream = only_video_stream(container)
        _check_stream(stream, limits)
        if is_cut_short(path, _DEMUXER_WITH_INDEX):
            raise InvalidInputError(_CUT_SHORT)
        tally = tally_open(container, path, limits)
        tally.refuse_missing(container, stream)
        return MediaFacts(
            kind=kind.kind,
            content_type=kind.content_type,
            suffix=kind.suffix,
            width=stream.codec_context.width,
            height=stream.codec_context.height,
            frames=tally.frames,
            fps=rate(stream, tally),
            duration_seconds=float(tally.end - tally.start),
            has_audio=tally.has_audio,
            video_codec=stream.codec.canonical_name,
        )


def tally_movie(
    path: Path, kind: MediaType, limits: Limits, *, see: See = lambda _packet: None
) -> tuple[Tally, Fraction | None]:
    """What the packets of a video or GIF say, and its rate; nothing is decoded. Raises as ``probe_movie``.

    ``see`` is shown every packet of the pictures and of the sound, in their order, so that nobody need read them again.
    """
    with open_movie(path, kind) as container:
        tally = tally_open(container, path, limits, see=see)
        return tally, rate(only_video_stream(container), tally)


def tally_open(container: InputContainer, path: Path, limits: Limits, *, see: See = lambda _packet: None) -> Tally:
    """As ``tally_movie``, of a file that was just opened; the packets of a small one are kept for ``probe_open``."""
    kept: list[Packet[Stream]] | None = [] if path.stat().st_size <= KEPT_BYTES else None
    return _demux(container, only_video_stream(container), limits, see, kept)


def read_frames(path: Path, kind: MediaType, *, only_first: bool = False) -> Iterator[VideoFrame]:
    """All frames in the order they are shown, not yet converted; see ``upright_rgb``. Args: only_first: no more are wanted."""
    with open_movie(path, kind) as container:
        stream = only_video_stream(container)
        yield from container.decode(_unthreaded(stream) if only_first else threaded(stream))


def first_frame(container: InputContainer, tally: Tally) -> VideoFrame | None:
    """The first of a file whose packets were kept, when nothing of it was decoded yet; else, or if it is broken, None."""
    if tally.kept is None:
        return None
    _unthreaded(only_video_stream(container))
    try:
        return next(_decoded(tally.kept), None)
    except av.error.FFmpegError:
        return None


def count_frames(path: Path, kind: MediaType) -> int:
    """Frames by demuxing, without decoding."""
    with open_movie(path, kind) as container:
        stream = only_video_stream(container)
        codec = stream.codec.canonical_name
        return sum(is_shown(packet, codec) for packet in container.demux([stream]))


def upright_rgb(frame: VideoFrame) -> Pixels:
    """Height x width x 3, turned as a player turns it.

    Plain conversion, colour matrix by the frame's tags: pixel for pixel what OpenCV 4.14 reads, and with it the loader
    of VideoHelperSuite 4ee72c0. One thread: more are started anew for each frame, which takes longer than they save.
    """
    rgb: Pixels = np.asarray(frame.reformat(format="rgb24", threads=1).to_ndarray(), dtype=np.uint8)
    # FFmpeg states the rotation counterclockwise, as numpy turns.
    return np.rot90(rgb, frame.rotation // 90) if frame.rotation else rgb


@dataclass
class Tally:
    """What the packets of a file say."""

    time_base: Fraction
    #: Whether a packet's duration reaches to the next one in decoding order, not to the next picture.
    is_in_decoding_order: bool
    #: when each shown frame is shown, in decoding order.
    pts: list[int] = field(default_factory=list)
    last_key_pts: int = 0
    #: its index in ``kept``.
    last_key_at: int = 0
    latest_pts: int = 0
    #: of the frame shown last, and of all frames.
    last_duration: int = 0
    all_durations: int = 0
    has_audio: bool = False
    #: when the first sound begins.
    sound_start: Fraction | None = None
    #: stream index -> packets.
    packets: dict[int, int] = field(default_factory=dict)
    #: end of the last packet of any stream.
    file_end: Fraction = Fraction(0)
    corrupt: bool = False
    #: those of the pictures, with what empties the decoder after them; None of a large file.
    kept: list[Packet[Stream]] | None = None

    @property
    def frames(self) -> int:
        """How many frames are shown."""
        return len(self.pts)

    @property
    def start(self) -> Fraction:
        """When the first frame appears."""
        return min(self.pts) * self.time_base

    @property
    def end(self) -> Fraction:
        """When the last frame goes.

        MP4 and QuickTime know only how long a frame is the last one decoded: with B-frames and uneven times that says
        nothing of the frame shown last, but all of them together last as long as the pictures do.
        """
        last = self.latest_pts
        summed = min(self.pts) + self.all_durations
        ticks = summed if self.is_in_decoding_order and summed > last else last + self.last_duration
        return ticks * self.time_base

    def refuse_missing(self, container: InputContainer, stream: VideoStream) -> None:
        """Refuse what holds less than its header says; both are claims, and a player trips over the difference."""
        if not self.frames:
            raise InvalidInputError("The video has no frames.")
        # The index after edit lists were applied: a trimmed clip keeps frames in its file that nobody shows.
        indexed = len(stream.index_entries)
        missing = _DEMUXER_WITH_INDEX in container.format.name and self.packets[stream.index] < indexed
        declared = Fraction(container.duration or 0, av.time_base)
        early = not stream.frames and declared - self.file_end > _DURATION_SLACK_SECONDS + declared / 20
        if missing or early or self.corrupt:
            raise InvalidInputError(_CUT_SHORT)


def _check_stream(stream: VideoStream, limits: Limits) -> None:
    codec = stream.codec.canonical_name
    if codec not in VIDEO_CODECS:
        accepted = ", ".join(sorted(VIDEO_CODECS))
        raise UnsupportedMediaError(f"The video's codec is not accepted; send one of {accepted}.")
    _check_sides(stream.codec_context.width, stream.codec_context.height, limits)


def _check_sides(width: int, height: int, limits: Limits) -> None:
    if max(width, height) > limits.video_long_side or min(width, height) > limits.video_short_side:
        raise TooLargeError(
            f"The video has {width}x{height} pixels; at most"
            f" {limits.video_long_side}x{limits.video_short_side} are accepted."
        )


def is_shown(packet: Packet[Stream], codec: str) -> bool:
    """Whether a packet becomes a frame that is shown; VP8 keeps its invisible reference frames in packets of their own."""
    if packet.size == 0 or packet.is_discard:
        return False
    # RFC 6386, section 9.1: bit 4 of the first byte is show_frame.
    return codec != "vp8" or bool(bytes(memoryview(packet)[:1])[0] & 0x10)


def _demux(
    container: InputContainer, stream: VideoStream, limits: Limits, see: See, kept: list[Packet[Stream]] | None
) -> Tally:
    time_base = stream.time_base or Fraction(1, av.time_base)
    tally = Tally(time_base, is_in_decoding_order=_DEMUXER_WITH_INDEX in container.format.name, kept=kept)
    codec = stream.codec.canonical_name
    followed = [stream, *container.streams.audio]
    for packet in container.demux(followed):
        # Of an empty packet, which empties a stream's decoder, the index is that of no stream.
        if kept is not None and packet.stream.index == stream.index:
            kept.append(packet)
        if packet.size == 0:
            continue
        see(packet)
        tally.packets[packet.stream_index] = tally.packets.get(packet.stream_index, 0) + 1
        tally.corrupt |= packet.is_corrupt
        if packet.pts is not None and packet.time_base is not None:
            tally.file_end = max(tally.file_end, (packet.pts + (packet.duration or 0)) * packet.time_base)
        if packet.stream_index != stream.index:
            tally.has_audio = True
            if tally.sound_start is None and packet.pts is not None and packet.time_base is not None:
                tally.sound_start = packet.pts * packet.time_base
        elif is_shown(packet, codec):
            _take_frame(tally, packet)
        if tally.frames > limits.video_frames:
            raise TooLargeError(f"The video has more than {limits.video_frames} frames; that is the limit.")
    return tally


def _take_frame(tally: Tally, packet: Packet[Stream]) -> None:
    pts = packet.pts if packet.pts is not None else packet.dts
    if pts is None:
        raise InvalidInputError("The video has frames without a time.")
    duration = packet.duration or 0
    if not tally.pts or pts >= tally.latest_pts:
        tally.latest_pts, tally.last_duration = pts, duration
    tally.all_durations += duration
    if packet.is_keyframe:
        tally.last_key_pts = pts
        tally.last_key_at = len(tally.kept or ()) - 1
    tally.pts.append(pts)


def threaded(stream: VideoStream) -> VideoStream:
    """Decode on two threads, as many as a child may count on; to be said before the first frame."""
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = 2
    return stream


def _unthreaded(stream: VideoStream) -> VideoStream:
    """Decode on one thread: the first frame comes out sooner than with more, which take in a few before they give one."""
    stream.thread_type, stream.codec_context.thread_count = "NONE", 1
    return stream


def rate(stream: VideoStream, tally: Tally) -> Fraction | None:
    """Frames per second on average: the declared rate where the packets agree, else theirs."""
    declared = stream.average_rate
    seconds = tally.end - tally.start
    if seconds <= 0:
        return declared
    measured = tally.frames / seconds
    if declared and abs(measured / declared - 1) <= _RATE_TOLERANCE:
        return Fraction(declared)
    return measured.limit_denominator(_RATE_DENOMINATOR)


def _decode_ends(path: Path, kind: MediaType, tally: Tally) -> VideoFrame:
    """Decode the first frame, and from the last key frame to the end; gives the first."""
    with open_movie(path, kind) as container:
        stream = threaded(only_video_stream(container))
        first = next(container.decode(stream), None)
        if first is None:
            raise InvalidInputError("The video's first frame cannot be decoded.")
    # A key frame may be one in name only and give nothing before the next (recovery points of H.264): then from the start.
    for start in (tally.last_key_pts, min(tally.pts)):
        if _last_decoded(path, kind, start) >= tally.latest_pts:
            return first
    raise InvalidInputError(_NO_LAST_FRAME)


def _decode_kept(stream: VideoStream, tally: Tally, packets: Sequence[Packet[Stream]]) -> VideoFrame:
    """As ``_decode_ends``, from the packets of a small file, which is not opened again."""
    if tally.frames * stream.codec_context.width * stream.codec_context.height > _ONE_THREAD_PIXELS:
        threaded(stream)
    else:
        _unthreaded(stream)
    frames = _decoded(packets)
    first = next(frames, None)
    if first is None:
        raise InvalidInputError("The video's first frame cannot be decoded.")
    if not tally.last_key_at:
        latest = _latest(chain((first,), frames))
    else:
        stream.codec_context.flush_buffers()
        latest = _latest(_decoded(packets[tally.last_key_at :]))
        if latest < tally.latest_pts:  # a key frame in name only, as above
            stream.codec_context.flush_buffers()
            latest = _latest(_decoded(packets))
    if latest < tally.latest_pts:
        raise InvalidInputError(_NO_LAST_FRAME)
    return first


def _decoded(packets: Iterable[Packet[Stream]]) -> Iterator[VideoFrame]:
    for packet in packets:
        for frame in packet.decode():
            if isinstance(frame, VideoFrame):
                yield frame


def _latest(frames: Iterable[VideoFrame]) -> float:
    """When the last good one is shown, in ticks."""
    return max((f.pts for f in frames if f.pts is not None and not f.is_corrupt), default=-math.inf)


def _last_decoded(path: Path, kind: MediaType, start: int) -> float:
    """When the last good frame from ``start`` on is shown, in ticks."""
    with open_movie(path, kind) as container:
        stream = threaded(only_video_stream(container))
        container.seek(start, stream=stream)
        return _latest(container.decode(stream))
