"""Small things to swap faces in, one of each kind, and as many portraits as wanted."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from random import Random

import av
from PIL import Image

from tests.chaos.history import Facts
from tests.tools import clips, gifs

CLIP_FRAMES = 24
GIF_FRAMES = 4


@dataclass(frozen=True, slots=True)
class Target:
    """A file to submit, and what must come back."""

    #: Field of the form.
    role: str
    name: str
    data: bytes
    wanted: Facts


class Material:
    """Made once; each portrait is another one, so that no upstream answers from its cache."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        still = clips.still(folder / "still.png").read_bytes()
        clip = clips.clip(folder / "clip.mp4", CLIP_FRAMES).read_bytes()
        gif = gifs.gif(gifs.portraits(range(GIF_FRAMES)), [4, 5, 6, 7], loop=0)
        self._targets = [
            Target("target_image", "still.png", still, facts("image/png", still)),
            Target("video", "clip.mp4", clip, facts("video/mp4", clip)),
            Target("video", "some.gif", gif, facts("image/gif", gif)),
        ]
        with Image.open(clips.face(folder / "face.png")) as portrait:
            self._portrait = portrait.convert("RGB")
        self._faces = 0

    def target(self, chance: Random) -> Target:
        """Half of them clips: they are at work for the longest."""
        return chance.choices(self._targets, (1, 2, 1))[0]

    def face(self) -> bytes:
        """A portrait that differs from all before by one pixel."""
        self._faces += 1
        self._portrait.putpixel((0, 0), (self._faces % 256, self._faces // 256, 0))
        buffer = io.BytesIO()
        self._portrait.save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()


def facts(content_type: str, data: bytes) -> Facts:
    """What a file is, looked at without the gateway's code."""
    if content_type.startswith("video/"):
        with av.open(io.BytesIO(data), "r") as container:
            stream = container.streams.video[0]
            size, frames = (stream.width, stream.height), len(list(container.decode(stream)))
    else:
        with Image.open(io.BytesIO(data)) as image:
            size, frames = image.size, getattr(image, "n_frames", 1)
    return Facts(content_type, size, frames)


def digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
