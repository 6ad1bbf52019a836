"""The demo's inputs: a photo and a clip made of two public-domain portraits that ship inside Python packages.

scikit-image's ``astronaut`` (Eileen Collins) and matplotlib's ``grace_hopper``: both photos are works of the United
States government. The clip's camera moves over the one, with a tone beneath; the other gives the face.
"""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDTH, HEIGHT = 640, 360
FPS = 24
SECONDS = 4
TONE_HERTZ, SAMPLE_RATE = 440.0, 44_100


def write_inputs(folder: Path) -> tuple[Path, Path]:
    """Write ``target.mp4`` and ``face.png``; their paths. Raises ImportError without the ``demo`` extra."""
    from matplotlib.cbook import get_sample_data
    from skimage.data import astronaut

    face, target = folder / "face.png", folder / "target.mp4"
    # Without asfileobj it answers with a path, whatever its annotation says.
    Image.open(str(get_sample_data("grace_hopper.jpg", asfileobj=False))).convert("RGB").save(face)
    _write_clip(Image.fromarray(np.asarray(astronaut(), dtype=np.uint8)), target)  # type: ignore[no-untyped-call] # skimage has no types
    return target, face


def _write_clip(photo: Image.Image, path: Path) -> None:
    with av.open(str(path), "w", options={"movflags": "faststart"}) as out:
        video = out.add_stream("libx264", rate=FPS, options={"crf": "18"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = out.add_stream("aac", rate=SAMPLE_RATE)
        audio.layout = "mono"
        for index in range(FPS * SECONDS):
            picture = np.asarray(_view(photo, index / (FPS * SECONDS - 1)), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        for start in range(0, SAMPLE_RATE * SECONDS, 1024):
            sound = av.AudioFrame.from_ndarray(_tone(start, 1024), format="fltp", layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
            out.mux(audio.encode(sound))
        out.mux(audio.encode(None))


def _view(photo: Image.Image, place: float) -> Image.Image:
    """What the camera sees at ``place`` (0..1) of the clip: it glides to the right and comes a little closer."""
    eased = 0.5 - 0.5 * math.cos(math.pi * place)
    width = 470.0 - 90.0 * eased
    height = width * HEIGHT / WIDTH
    left, top = 2.0 + 62.0 * eased, 8.0 + 22.0 * eased
    scale = (width / WIDTH, 0.0, left, 0.0, height / HEIGHT, top)
    return photo.transform((WIDTH, HEIGHT), Image.Transform.AFFINE, scale, Image.Resampling.BICUBIC)


def _tone(start: int, count: int) -> NDArray[np.float32]:
    time = (np.arange(start, start + count) / SAMPLE_RATE).astype(np.float64)
    return (0.2 * np.sin(2 * np.pi * TONE_HERTZ * time)).astype(np.float32).reshape(1, -1)
