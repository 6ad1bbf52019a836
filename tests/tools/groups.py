"""Pictures and clips of two people whose faces can be told apart by place: public-domain portraits, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image

from tests.tools.clips import TONE_RATE, tone

#: Pixels of one half.
HALF = (240, 200)
FPS = 25
_EXIF_ORIENTATION = 0x0112
_LAID_ON_ITS_SIDE = 6


@dataclass(frozen=True)
class Person:
    """A portrait, and the middle of the face in it."""

    picture: Image.Image
    x: float
    y: float

    def shown(self, zoom: float) -> Image.Image:
        """A half with the face in its middle."""
        width, height = HALF
        box = (self.x - width / 2 / zoom, self.y - height / 2 / zoom)
        return self.picture.transform(
            HALF, Image.Transform.AFFINE, (1 / zoom, 0, box[0], 0, 1 / zoom, box[1]), Image.Resampling.BILINEAR
        )


def people() -> tuple[Person, Person]:
    """The one on the left, the one on the right; their faces are about 100 pixels wide."""
    from matplotlib import cbook
    from skimage import data

    with cbook.get_sample_data("grace_hopper.jpg") as file, Image.open(file) as portrait:
        right = portrait.convert("RGB").resize((256, 303))
    return Person(Image.fromarray(data.astronaut()), 224, 115), Person(right, 128, 108)


def frame(left_zoom: float, right_zoom: float) -> Image.Image:
    """Both, each as large as told."""
    left, right = people()
    picture = Image.new("RGB", (2 * HALF[0], HALF[1]))
    picture.paste(left.shown(left_zoom), (0, 0))
    picture.paste(right.shown(right_zoom), (HALF[0], 0))
    return picture


def group(path: Path, *, left_zoom: float = 0.7, right_zoom: float = 1.1) -> Path:
    """A photo of both as a phone keeps it: lying on its side, with a note of how it was held."""
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = _LAID_ON_ITS_SIDE
    frame(left_zoom, right_zoom).transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)
    return path


def crossing(path: Path, frames: int = 20) -> Path:
    """A clip with a tone: the one on the left comes nearer while the other goes away.

    At first the right face is the larger one, and for most of the clip; at the end it is the left.
    """
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"crf": "18", "preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 2 * HALF[0], HALF[1], "yuv420p"
        audio = container.add_stream("aac", rate=TONE_RATE)
        for index in range(frames):
            share = index / (frames - 1)
            shown = np.asarray(frame(0.65 + 0.4 * share, 1.15 - 0.4 * share))
            container.mux(video.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(video.encode())
        tone(container, audio, frames / FPS)
    return path
