"""Small pictures and videos with and without faces, made anew: nothing is downloaded, and none takes a tenth of a second."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

SIZE = (320, 180)
FPS = 24
TONE_RATE = 44100


def clip(path: Path, frames: int = 24, *, fps: int = FPS, sound: bool = False) -> Path:
    """An H.264 video that pans over a portrait, with a tone when asked for."""
    from skimage import data

    width, height = SIZE
    portrait = np.asarray(Image.fromarray(data.astronaut()).resize((360, 360)))
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps, options={"crf": "20", "preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = container.add_stream("aac", rate=TONE_RATE) if sound else None
        for index in range(frames):
            left = (index // 2) % 40
            shot = np.ascontiguousarray(portrait[:height, left : left + width])
            container.mux(video.encode(av.VideoFrame.from_ndarray(shot, format="rgb24")))
        container.mux(video.encode())
        if audio is not None:
            tone(container, audio, frames / fps)
    return path


def sound_only(path: Path, seconds: float = 0.5) -> Path:
    """An mp4 with a tone and no picture."""
    with av.open(str(path), "w", format="mp4") as container:
        tone(container, container.add_stream("aac", rate=TONE_RATE), seconds)
    return path


def tone(container: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    """Put so many seconds of a tone in."""
    samples = np.sin(np.arange(int(seconds * TONE_RATE), dtype=np.float32) * 0.06)[None] / 2
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.sample_rate, frame.time_base, frame.pts = TONE_RATE, Fraction(1, TONE_RATE), 0
    container.mux(stream.encode(frame))
    container.mux(stream.encode())


def face(path: Path, variant: int = 0) -> Path:
    """A portrait. Variants differ in one pixel: another file, so no upstream answers from its cache."""
    from matplotlib import cbook

    with cbook.get_sample_data("grace_hopper.jpg") as file, Image.open(file) as portrait:
        picture = portrait.convert("RGB").resize((192, 225))
    picture.putpixel((0, 0), (variant % 256, variant // 256, 0))
    picture.save(path)
    return path


def still(path: Path) -> Path:
    """A picture with a face in it, small enough to be swapped at once."""
    from skimage import data

    Image.fromarray(data.astronaut()).crop((100, 0, 420, 240)).save(path)
    return path


def faceless(path: Path) -> Path:
    """A photo of nobody."""
    Image.fromarray(np.add.outer(np.arange(120), np.arange(160)).astype(np.uint8)).convert("RGB").save(path)
    return path


def pixel() -> bytes:
    """The smallest PNG that decodes."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(buffer, "PNG")
    return buffer.getvalue()


def frames_of(path: Path) -> np.ndarray:
    """All pictures of a video, (frame, row, column, RGB)."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
