"""How large media may be: sides, pixels, frames, rates and codecs.

Inputs come from strangers, so their bounds are tight; results come from an upstream that the operator chose and may be
an upscaled or interpolated target, so theirs are wider, but still bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds for one file; the defaults are those of inputs."""

    #: pixels of a still's longer side.
    image_side: int = 8192
    #: pixels of a still: 40 Mpx decode to 160 MB of RGBA.
    image_pixels: int = 40_000_000
    #: frames of a GIF.
    gif_frames: int = 600
    #: frames x width x height of a GIF: about 3 s of decoding.
    gif_pixels: int = 250_000_000
    #: pixels of a video's longer and shorter side.
    video_long_side: int = 4096
    video_short_side: int = 2304
    #: frames per second on average.
    video_fps: int = 120
    #: frames of a video.
    video_frames: int = 18_000

    def to_json(self) -> dict[str, int]:
        """A plain dict, for the child process."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The limits that ``to_json`` wrote."""
        return cls(**data)

    def for_results(self) -> Limits:
        """Bounds for what an upstream made of an input within these: four times the pixels and the frames."""
        return Limits(
            image_side=2 * self.image_side,
            image_pixels=4 * self.image_pixels,
            gif_frames=4 * self.gif_frames,
            gif_pixels=4 * self.gif_pixels,
            video_long_side=2 * self.video_long_side,
            video_short_side=2 * self.video_short_side,
            video_fps=2 * self.video_fps,
            video_frames=4 * self.video_frames,
        )


#: What both our decoder and the ones behind ComfyUI's loaders (OpenCV, FFmpeg) read.
VIDEO_CODECS: Final = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "mpeg4"})
