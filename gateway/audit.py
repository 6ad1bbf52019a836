"""Whether a result is what it claims to be: expected facts against found ones, and whether anything was changed at all.

Pure: it reads no file and decodes nothing. ``media/`` measures (facts, decoded pixels, block means) and hands the
figures in; this module says what they mean.

Where the rules come from: ReActor 6ad6b35 returns its input, pixel for pixel, when it finds no face and says so only in
its log; its content filter answers with a black 512x512 picture or a one-frame video; VideoHelperSuite 4ee72c0 pads odd
sizes to even ones by repeating the edge, and writes GIF delays in whole hundredths of a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Any, Final

from gateway.errors import JobError, NoFaceFoundError, ResultInvalidError, ResultUnchangedError


class MediaKind(StrEnum):
    """What a file is, by its bytes."""

    IMAGE = "image"
    GIF = "gif"
    VIDEO = "video"


@dataclass(frozen=True)
class MediaFacts:
    """What a file was found to be when it was decoded, never what its name or header claims."""

    #: a GIF is a GIF however many frames it has.
    kind: MediaKind
    #: for example ``video/mp4``.
    content_type: str
    #: with the dot, for example ``.mp4``.
    suffix: str
    #: pixels of the upright picture: after EXIF orientation or the video's rotation.
    width: int
    #: pixels, as width.
    height: int
    #: 1 for a still.
    frames: int
    #: frames per second on average; None for a still.
    fps: Fraction | None
    #: of the pictures, not of the audio; None for a still.
    duration_seconds: float | None
    has_audio: bool
    #: for example ``h264``; None for a still or a GIF.
    video_codec: str | None

    def to_json(self) -> dict[str, Any]:
        """A plain dict for the store and for other processes; ``fps`` as in ``"30000/1001"``."""
        return {
            "kind": self.kind.value,
            "content_type": self.content_type,
            "suffix": self.suffix,
            "width": self.width,
            "height": self.height,
            "frames": self.frames,
            "fps": None if self.fps is None else f"{self.fps.numerator}/{self.fps.denominator}",
            "duration_seconds": self.duration_seconds,
            "has_audio": self.has_audio,
            "video_codec": self.video_codec,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MediaFacts:
        """The facts that ``to_json`` wrote.

        Raises:
            KeyError: a field is missing.
            ValueError: the kind or the fps is none.
        """
        fps, duration, codec = data["fps"], data["duration_seconds"], data["video_codec"]
        return cls(
            kind=MediaKind(data["kind"]),
            content_type=str(data["content_type"]),
            suffix=str(data["suffix"]),
            width=int(data["width"]),
            height=int(data["height"]),
            frames=int(data["frames"]),
            fps=None if fps is None else Fraction(fps),
            duration_seconds=None if duration is None else float(duration),
            has_audio=bool(data["has_audio"]),
            video_codec=None if codec is None else str(codec),
        )


@dataclass(frozen=True)
class Comparison:
    """How far a result moved away from its target."""

    changed: bool
    #: grey levels (0 to 255) by which the block, or for a still the pixel, that moved most did move.
    largest_movement: float
    #: pairs of frames that were compared; the target and the result may have more, or unlike numbers.
    frames_compared: int
