"""Makes tiny media files for the tests of this folder: nothing is shipped, everything is encoded on the spot."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from gateway.audit import MediaKind
from gateway.media import child
from gateway.media.blocks import Pixels
from gateway.media.limits import Limits

SIZE = (64, 96)


class Studio:
    """Writes files into one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def frames(self, count: int = 12, size: tuple[int, int] = SIZE) -> list[Pixels]:
        """A soft picture that moves: something for an encoder to do."""
        height, width = size
        y, x = np.mgrid[0:height, 0:width]
        return [
            np.stack([(x * 2 + 3 * i) % 256, (y * 3) % 256, (x + y) % 256], axis=-1).astype(np.uint8)
            for i in range(count)
        ]

    def video(
        self,
        name: str = "clip.mp4",
        frames: Iterable[Pixels] | None = None,
        *,
        codec: str = "libx264",
        rate: Fraction | int = 24,
        crf: int = 18,
        audio: bool = False,
        videos: int = 1,
        metadata: dict[str, str] | None = None,
        pix_fmt: str = "yuv420p",
        options: dict[str, str] | None = None,
    ) -> Path:
        path = self.folder / name
        pictures = list(frames if frames is not None else self.frames())
        with av.open(str(path), "w", options={"movflags": "use_metadata_tags"}) as out:
            out.metadata.update(metadata or {})
            streams = []
            for _ in range(videos):
                stream = out.add_stream(codec, rate=rate)
                stream.height, stream.width = pictures[0].shape[:2]
                stream.pix_fmt = pix_fmt
                stream.options = (
                    {"crf": str(crf), "preset": "veryfast"} | (options or {}) if "x26" in codec else options or {}
                )
                streams.append(stream)
            sound = out.add_stream("libopus" if name.endswith("webm") else "aac", rate=48_000) if audio else None
            for stream in streams:
                for picture in pictures:
                    out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                out.mux(stream.encode(None))
            if sound is not None:
                self._tone(out, sound, seconds=float(len(pictures) / Fraction(rate)))
        return path

    def _tone(self, out, sound, seconds: float) -> None:
        wave = np.sin(np.arange(int(48_000 * seconds)) * 0.06).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = 48_000, 0
        fifo = av.AudioFifo()
        fifo.write(frame)
        size = sound.codec_context.frame_size or 960
        while (part := fifo.read(size)) is not None:
            out.mux(sound.encode(part))
        out.mux(sound.encode(None))

    def sound_only(self, name: str = "sound.mp4") -> Path:
        path = self.folder / name
        with av.open(str(path), "w") as out:
            self._tone(out, out.add_stream("aac", rate=48_000), seconds=0.5)
        return path

    def turned(self, source: Path, name: str = "turned.mp4") -> Path:
        """The same video with a display matrix that turns it by a quarter, as phones write it (tkhd, ISO 14496-12)."""
        data = bytearray(source.read_bytes())
        at = data.index(b"tkhd") + 4 + 40
        one = 1 << 16
        data[at : at + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
        path = self.folder / name
        path.write_bytes(data)
        return path

    def sound_first(self, source: Path, name: str = "sound_first.mp4") -> Path:
        """The same packets with the sound as the first stream, as some recorders write it."""
        with av.open(str(source)) as container, av.open(str(self.folder / name), "w") as out:
            streams = [*container.streams.audio, *container.streams.video]
            copies = {stream.index: out.add_stream_from_template(stream) for stream in streams}
            for packet in container.demux(streams):
                if packet.size:
                    packet.stream = copies[packet.stream_index]
                    out.mux(packet)
        return self.folder / name

    def write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(tmp_path)


@pytest.fixture
def probe() -> Callable[..., dict[str, object]]:
    """What the child answers to a probe, asked in this process: the sandbox is tested elsewhere."""

    def ask(
        path: Path, accept: Iterable[MediaKind] = tuple(MediaKind), limits: Limits | None = None
    ) -> dict[str, object]:
        return child.answer(
            {"do": "probe", "path": str(path), "accept": list(accept), "limits": (limits or Limits()).to_json()}
        )

    return ask
