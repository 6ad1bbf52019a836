"""Moving pictures: decode the wanted frames, encode H.264, lay sound under it. PyAV only, no ffmpeg program.

Every file is opened with the demuxers listed here and with the ``file`` protocol only: a script that names other files
(``ffconcat``, a playlist) is no media file to this worker, whatever it is called.

What VideoHelperSuite 4ee72c0 does with frame rates, rotation, sizes and sound is done the same way; a variable frame rate
becomes its constant average. Frame rates are fractions throughout, so that 30000/1001 stays 30000/1001.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar, cast

import av
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from gateway.embedded.node import Image

OPEN_OPTIONS = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,gif,avi",
    "protocol_whitelist": "file",
}
#: Denominator up to which a float frame rate is read as a fraction: 29.97002997 is 30000/1001, 29.97 is 2997/100.
_RATE_DENOMINATOR = 1001
_AUDIO_BITRATE = 128_000
#: Samples a second of an encoder frame's upper bound: what is handed to the AAC encoder at once.
_AUDIO_CHUNK = 1024


Frame = TypeVar("Frame")


class UnreadableVideoError(ValueError):
    """No decodable picture in the file. The name is the one that clients of VideoHelperSuite get to see."""

    exception_type = "ValueError"


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """A video stream as it is shown: turned as its rotation says."""

    fps: Fraction
    frame_count: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class FrameSelection:
    """Which frames to load. Skipping counts resampled frames, as in VideoHelperSuite."""

    #: 0 keeps the source's rate.
    force_rate: float = 0
    skip_first_frames: int = 0
    select_every_nth: int = 1
    #: 0 loads all.
    frame_load_cap: int = 0

    def source_interval(self, fps: Fraction) -> Fraction:
        """Seconds between resampled frames, before every nth is taken."""
        return 1 / fps if self.force_rate == 0 else 1 / exact_rate(self.force_rate)

    def expected(self, facts: VideoFacts) -> int:
        """About how many frames there will be."""
        count = max(self._resampled(facts) - self.skip_first_frames, 0)
        return self._capped(-(-count // self.select_every_nth))

    def bar_maximum(self, facts: VideoFacts) -> int:
        """What the loader's progress counts to: VideoHelperSuite leaves skipped frames in it, so it may end early."""
        return self._capped(self._resampled(facts) // self.select_every_nth)

    def _resampled(self, facts: VideoFacts) -> int:
        return int(facts.frame_count / facts.fps / self.source_interval(facts.fps))

    def _capped(self, count: int) -> int:
        return min(count, self.frame_load_cap) if self.frame_load_cap else count


def exact_rate(rate: float) -> Fraction:
    """A frame rate as a fraction.

    Raises:
        ValueError: it is not above 0.
    """
    exact = Fraction(rate).limit_denominator(_RATE_DENOMINATOR)
    if exact <= 0:
        raise ValueError(f"frame rate {rate} is not above 0")
    return exact


def open_media(path: Path) -> InputContainer:
    """Open a file for reading.

    Raises:
        UnreadableVideoError: it is none of the allowed kinds, or broken.
    """
    try:
        return av.open(str(path), mode="r", options=OPEN_OPTIONS)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise UnreadableVideoError(f"{path.name} could not be loaded with cv.") from error


def _facts(container: InputContainer, name: str, first: av.VideoFrame) -> VideoFacts:
    stream = container.streams.video[0]
    fps = stream.average_rate or stream.guessed_rate or stream.base_rate
    if not fps:
        raise UnreadableVideoError(f"{name} could not be loaded with cv.")
    turned = first.rotation % 180 != 0
    width, height = (first.height, first.width) if turned else (first.width, first.height)
    return VideoFacts(Fraction(fps), stream.frames or _count_packets(Path(container.name)), width, height)


def _count_packets(path: Path) -> int:
    """Containers such as Matroska and GIF do not say how many frames they hold."""
    with open_media(path) as container:
        return sum(1 for packet in container.demux(container.streams.video[0]) if packet.size)


def load_frames(
    path: Path,
    selection: FrameSelection,
    *,
    resize: Callable[[Image], Image],
    reserve: Callable[[int, int, int], None],
    tick: Callable[[int, int], None],
) -> tuple[Image, VideoFacts]:
    """Decode a selection of frames.

    Args:
        path: the file.
        selection: which frames.
        resize: makes a frame of the wanted size from one of the source's.
        reserve: asked for (frames, height, width) before memory is taken; may raise.
        tick: called with (frames so far, what the bar counts to) after each one.

    Returns:
        The batch, and the facts of the source.

    Raises:
        UnreadableVideoError: no picture can be decoded.
        RuntimeError: the selection holds no frame.
    """
    with open_media(path) as container:
        decoded = _decode(container, path.name)
        first = next(decoded)
        facts = _facts(container, path.name, first)
        expected = selection.expected(facts)
        pictures = (resize(_to_rgb(frame)) for frame in _select(_chain(first, decoded), selection, facts.fps))
        maximum = selection.bar_maximum(facts)
        batch, count = _gather(pictures, expected, reserve, lambda done: tick(done, max(maximum, done)))
    if batch is None:
        raise RuntimeError("No frames generated")
    return batch[:count], facts


def _decode(container: InputContainer, name: str) -> Iterator[av.VideoFrame]:
    """Frames in order of presentation; a file that breaks off ends there, one that never begins is refused."""
    if not container.streams.video:
        raise UnreadableVideoError(f"{name} could not be loaded with cv.")
    container.streams.video[0].thread_type = "AUTO"
    seen = False
    try:
        for frame in container.decode(container.streams.video[0]):
            seen = True
            yield frame
    except av.error.FFmpegError as error:
        if not seen:
            raise UnreadableVideoError(f"{name} could not be loaded with cv.") from error
    if not seen:
        raise UnreadableVideoError(f"{name} could not be loaded with cv.")


def _chain(first: av.VideoFrame, rest: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    yield first
    yield from rest


def _select(frames: Iterator[av.VideoFrame], selection: FrameSelection, fps: Fraction) -> Iterator[av.VideoFrame]:
    taken = 0
    for index, frame in enumerate(resample(frames, 1 / fps, selection.source_interval(fps))):
        past = index - selection.skip_first_frames
        if past < 0 or past % selection.select_every_nth:
            continue
        yield frame
        taken += 1
        if taken == selection.frame_load_cap:
            return


def resample(frames: Iterator[Frame], source: Fraction, target: Fraction) -> Iterator[Frame]:
    """Frames ``source`` seconds apart as frames ``target`` seconds apart, by dropping and repeating.

    Source: VideoHelperSuite 4ee72c0, ``load_video_nodes.py`` (cv_frame_generator), which reckons in floats.
    """
    credit = target
    for frame in frames:
        while credit >= target:
            credit -= target
            yield frame
        credit += source


def _to_rgb(frame: av.VideoFrame) -> Image:
    picture = cast("Image", frame.to_ndarray(format="rgb24"))
    turns = round(frame.rotation / 90) % 4
    return np.rot90(picture, turns) if turns else picture


def _gather(
    pictures: Iterable[Image],
    expected: int,
    reserve: Callable[[int, int, int], None],
    tick: Callable[[int], None],
) -> tuple[Image | None, int]:
    """Frames into one array of the expected length, grown when the container promised too few."""
    batch: Image | None = None
    count = 0
    for picture in pictures:
        if batch is None:
            reserve(max(expected, 1), *picture.shape[:2])
            batch = np.empty((max(expected, 1), *picture.shape), np.uint8)
        elif count == len(batch):
            reserve(count + count // 4 + 1, *picture.shape[:2])
            batch = np.concatenate([batch, np.empty((count // 4 + 1, *picture.shape), np.uint8)])
        batch[count] = picture
        count += 1
        tick(count)
    return batch, count


@dataclass(frozen=True, slots=True)
class Audio:
    """Sound: float32 samples of shape (channels, samples)."""

    samples: NDArray[np.float32]
    sample_rate: int

    @property
    def layout(self) -> str:
        """Its name in FFmpeg."""
        return "mono" if len(self.samples) == 1 else "stereo"


@dataclass(frozen=True, slots=True)
class LazyAudio:
    """The sound of a file, decoded when somebody wants it. Most videos have none; then ``load`` gives None."""

    path: Path
    start_seconds: Fraction = Fraction(0)
    #: 0 is to the end.
    duration_seconds: Fraction = Fraction(0)

    def load(self) -> Audio | None:
        """Decode it; mono stays mono, everything else becomes stereo."""
        with open_media(self.path) as container:
            if not container.streams.audio:
                return None
            stream = container.streams.audio[0]
            rate = stream.codec_context.sample_rate
            layout = "mono" if stream.codec_context.channels == 1 else "stereo"
            samples = _decode_audio(container, stream, rate, layout)
        start = int(self.start_seconds * rate)
        end = start + int(self.duration_seconds * rate) if self.duration_seconds else None
        return Audio(samples[:, start:end], rate)


def _decode_audio(container: InputContainer, stream: Any, rate: int, layout: str) -> NDArray[np.float32]:
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
    pieces: list[NDArray[Any]] = []
    try:
        for frame in container.decode(stream):
            pieces += [piece.to_ndarray() for piece in resampler.resample(frame)]
    except av.error.FFmpegError:
        if not pieces:
            raise
    pieces += [piece.to_ndarray() for piece in resampler.resample(None)]
    channels = 1 if layout == "mono" else 2
    return np.concatenate(pieces, axis=1) if pieces else np.zeros((channels, 0), np.float32)


def encode_h264(
    path: Path,
    frames: Iterable[Image],
    *,
    fps: Fraction,
    size: tuple[int, int],
    pix_fmt: str,
    crf: int,
    metadata: Mapping[str, str],
) -> int:
    """Write frames as a silent MP4 in BT.709, as VideoHelperSuite's ``video/h264-mp4`` does.

    Args:
        path: the file to write.
        frames: all of one size.
        fps: constant rate.
        size: (width, height), both even.
        pix_fmt: "yuv420p" or "yuv420p10le".
        crf: x264's quality, 0 to 51.
        metadata: tags of the container.

    Returns:
        How many frames were written.
    """
    count = 0
    with av.open(str(path), "w", format="mp4", options={"movflags": "use_metadata_tags"}) as container:
        container.metadata.update(metadata)
        stream = container.add_stream("libx264", rate=fps, options={"crf": str(crf)})
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        context = stream.codec_context
        context.time_base = 1 / fps
        context.color_range, context.colorspace, context.color_primaries, context.color_trc = 1, 1, 1, 1
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = frame.reformat(format=pix_fmt, dst_colorspace="ITU709", dst_color_range="MPEG")
            frame.pts, frame.time_base = count, 1 / fps
            container.mux(stream.encode(frame))
            count += 1
        container.mux(stream.encode(None))
    return count


def add_audio(silent: Path, target: Path, audio: Audio, *, frames: int, fps: Fraction, trim: bool) -> None:
    """Write ``silent`` with sound: pictures copied, sound as AAC, both of the pictures' length.

    Args:
        silent: an MP4 made by ``encode_h264``.
        target: the file to write.
        audio: the sound.
        frames: how many pictures there are.
        fps: their rate.
        trim: end with the sound where it is shorter; otherwise silence follows it.
    """
    wanted = round(frames / fps * audio.sample_rate)
    samples = audio.samples[:, :wanted]
    end = Fraction(samples.shape[1], audio.sample_rate) if trim else frames / fps
    if not trim:
        samples = np.pad(samples, ((0, 0), (0, wanted - samples.shape[1])))
    with (
        open_media(silent) as source,
        av.open(str(target), "w", format="mp4", options={"movflags": "use_metadata_tags"}) as container,
    ):
        container.metadata.update(source.metadata)
        picture_stream = container.add_stream_from_template(source.streams.video[0])
        sound_stream = container.add_stream("aac", rate=audio.sample_rate, layout=audio.layout)
        sound_stream.codec_context.bit_rate = _AUDIO_BITRATE
        sound = iter(_encode_audio(sound_stream, samples, audio))
        waiting = next(sound, None)
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is None or packet.pts is None or packet.pts * packet.time_base >= end:
                continue
            # Interleaved by time, as players want it.
            while waiting is not None and waiting.pts * waiting.time_base <= packet.dts * packet.time_base:
                container.mux(waiting)
                waiting = next(sound, None)
            packet.stream = picture_stream
            container.mux(packet)
        while waiting is not None:
            container.mux(waiting)
            waiting = next(sound, None)


def _encode_audio(stream: Any, samples: NDArray[np.float32], audio: Audio) -> Iterator[Any]:
    for start in range(0, samples.shape[1], _AUDIO_CHUNK):
        chunk = np.ascontiguousarray(samples[:, start : start + _AUDIO_CHUNK])
        frame = av.AudioFrame.from_ndarray(chunk, format="fltp", layout=audio.layout)
        frame.sample_rate, frame.pts, frame.time_base = audio.sample_rate, start, Fraction(1, audio.sample_rate)
        yield from stream.encode(frame)
    yield from stream.encode(None)
