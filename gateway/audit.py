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
from types import MappingProxyType
from typing import Any, Final

from gateway.errors import (
    ContentFlaggedError,
    JobError,
    NoFaceFoundError,
    ResultInvalidError,
    ResultUnchangedError,
)


class MediaKind(StrEnum):
    """What a file is, by its bytes. A GIF is a kind of its own: still or moving, its first bytes do not say."""

    IMAGE = "image"
    GIF = "gif"
    VIDEO = "video"
    #: No picture but a report, in JSON, of where the faces of one are; a result only.
    FACES = "faces"
    #: What follows is kept and passed on as it is, never decoded; no template takes or makes it.
    AUDIO = "audio"
    TEXT = "text"
    #: ComfyUI's own format of latent pictures.
    LATENT = "latent"
    #: Anything else.
    FILE = "file"


#: What templates take, and what ``media/`` decodes.
PICTURES: Final = frozenset({MediaKind.IMAGE, MediaKind.GIF, MediaKind.VIDEO})


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
    #: whether a pixel of a still, or of a GIF's frame, shows what is behind it.
    is_see_through: bool = False

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
            "is_see_through": self.is_see_through,
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
            # what was stored before this was looked at does not say
            is_see_through=bool(data.get("is_see_through", False)),
        )


# -------------------------------------------------------------------------------------------- expected against found


class Keeps(StrEnum):
    """What a template promises to keep of its target."""

    FRAMES = "frames"
    SIZE = "size"
    FPS = "fps"
    AUDIO = "audio"


#: What a face swap keeps.
KEEPS_ALL: Final = frozenset(Keeps)

#: A rate may come back as 29.97 for 30000/1001, which is 1e-6 off; 30 for 29.97 is 1e-3 off and would drift.
_FPS_TOLERANCE: Final = Fraction(1, 2000)
#: A GIF holds each delay in whole hundredths of a second: 24 fps comes back as 25.
_GIF_DELAY_STEP_SECONDS: Final = Fraction(1, 100)


@dataclass(frozen=True, slots=True)
class Promise:
    """What a result must be by its job's own numbers; None where anything will do."""

    kind: MediaKind
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    #: Frames per second.
    fps: int | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about a result that is not as it was promised."""

    what: Keeps
    #: for the client: expected this, got that.
    sentence: str

    def to_error(self) -> JobError:
        """The error a job fails with because of it."""
        return ResultInvalidError(self.sentence)


def wrong_facts(target: MediaFacts, found: MediaFacts, keeps: frozenset[Keeps] = KEEPS_ALL) -> tuple[Finding, ...]:
    """Everything in which a result breaks its template's promise; empty when all is well.

    Args:
        target: facts of the picture, GIF or video that the face went into.
        found: facts of the result.
        keeps: what the template promises to keep of the target.
    """
    checks = {Keeps.SIZE: _wrong_size, Keeps.FRAMES: _wrong_frames, Keeps.FPS: _wrong_fps, Keeps.AUDIO: _lost_audio}
    sentences = ((what, check(target, found)) for what, check in checks.items() if what in keeps)
    return tuple(Finding(what, sentence) for what, sentence in sentences if sentence is not None)


def broken_promise(promise: Promise, found: MediaFacts) -> str | None:
    """The first thing in which a result is not what its job asked for; None when all is well."""
    if found.kind is not promise.kind:
        return f"expected a result that is of kind {promise.kind}, got one of kind {found.kind}"
    width, height = promise.width or found.width, promise.height or found.height
    if (found.width, found.height) != (width, height):
        return f"expected a result of {width}x{height} pixels, got {found.width}x{found.height}"
    if promise.frames is not None and found.frames != promise.frames:
        return f"expected a result of {promise.frames} frames, got {found.frames}"
    if promise.fps is not None and (found.fps is None or abs(found.fps - promise.fps) > promise.fps * _FPS_TOLERANCE):
        got = "a still" if found.fps is None else f"{float(found.fps):.6g}"
        return f"expected a result at {promise.fps} frames per second, got {got}"
    return None


def kept_all_the_same(released: frozenset[Keeps], found: MediaFacts) -> str | None:
    """What a result has though its job wished it away; None when all is well."""
    if Keeps.AUDIO in released and found.has_audio:
        return "expected a result without audio, got one with it"
    return None


def _wrong_size(target: MediaFacts, found: MediaFacts) -> str | None:
    size = (found.width, found.height)
    if size == (target.width, target.height):
        return None
    # 4:2:0 video knows even sizes only; a still or a GIF has no such excuse.
    even = (target.width + target.width % 2, target.height + target.height % 2)
    if found.kind is MediaKind.VIDEO and size == even:
        return None
    return f"expected a result of {target.width}x{target.height} pixels, got {found.width}x{found.height}"


def _wrong_frames(target: MediaFacts, found: MediaFacts) -> str | None:
    if found.frames == target.frames:
        return None
    return f"expected a result of {target.frames} frames, got {found.frames}"


def _wrong_fps(target: MediaFacts, found: MediaFacts) -> str | None:
    if target.fps is None or found.fps == target.fps:
        return None
    if found.fps is None:
        return f"expected a result at {float(target.fps):.4g} frames per second, got a still"
    off = abs(found.fps - target.fps)
    if off <= target.fps * _FPS_TOLERANCE:
        return None
    delays_off = abs(1 / found.fps - 1 / target.fps)
    if MediaKind.GIF in (target.kind, found.kind) and delays_off <= _GIF_DELAY_STEP_SECONDS:
        return None
    return f"expected a result at {float(target.fps):.6g} frames per second, got {float(found.fps):.6g}"


def _lost_audio(target: MediaFacts, found: MediaFacts) -> str | None:
    if found.has_audio or not target.has_audio or found.kind is not MediaKind.VIDEO:
        return None
    return "expected a result with the target's audio, got one without audio"


# ------------------------------------------------------------------------------------------------- a picture, and which

#: Grey levels within which all channels of all pixels of a picture of one colour lie, after H.264 or JPEG.
FLAT_LEVELS: Final = 4
#: Mean grey levels by which an enlarged picture, made small again, may differ from its source, block by block. Pillow's
#: own resampling moves them by less than 1; models that redraw texture or shift colours move them by a few.
MOST_DRIFT: Final = 24.0


@dataclass(frozen=True, slots=True)
class Survey:
    """What a result looks like."""

    #: Every frame looked at is one colour all over.
    is_flat: bool
    #: Mean grey levels between its blocks and those of the picture that it is made of; None where there is none.
    drift: float | None = None
    #: The same of that picture: then its result may be.
    source_is_flat: bool = False
    #: That one colour is black.
    is_black: bool = False


def wrong_look(survey: Survey) -> str | None:
    """Why a result is no picture of what it should be; None when all is well.

    A decoder whose numbers ran over gives one black picture and calls it a success, and so does ComfyUI then.
    """
    if survey.is_flat and not survey.source_is_flat:
        return "the result is one plain colour"
    if survey.drift is not None and survey.drift > MOST_DRIFT:
        return "the result does not show what its source shows"
    return None


# ----------------------------------------------------------------------------------------- held back by an upstream

#: Sides of what ReActor 6ad6b35 gives instead of pictures that its content filter took out.
_FILTERED_SIDE: Final = 512
#: What it logs of each of them, a score behind it.
_FILTERED_LINE: Final = "NSFW content detected"


def may_be_held_back(target: MediaFacts, found: MediaFacts) -> bool:
    """Whether a result has the facts of what ReActor gives when its filter took everything out.

    A clip that became one picture of this size surely is that. A still may be of this size by right: it is held back when
    it is black all over (``Survey.is_black``) and its target shows something.
    """
    if found.kind is MediaKind.FACES or found.frames > 1 or {found.width, found.height} != {_FILTERED_SIDE}:
        return False
    return found.kind is MediaKind.IMAGE or target.frames > 1


def says_held_back(log_lines: Iterable[str]) -> bool:
    """Whether an upstream logged that its filter took pictures out; of a clip it drops those and goes on."""
    return any(_FILTERED_LINE in line for line in log_lines)


def suspicious(log_lines: Iterable[str]) -> str | None:
    """Why a result whose pictures nobody looks at is not to be believed; None where its upstream logged nothing of the kind."""
    log = "\n".join(log_lines)
    if says_held_back([log]):
        return "the upstream's content filter took pictures out"
    if any(phrase in log for phrase in (*_NO_SOURCE_LINES, *_NO_TARGET_LINES)):
        return "the upstream missed a face"
    return None


def held_back_error() -> JobError:
    """The error for a result that an upstream's filter held back, whole or in part."""
    return ContentFlaggedError("The worker's own content filter does not work on what the target shows.")


# ------------------------------------------------------------------------------------------------- changed or unchanged

#: As many frames as a first look at a moving picture takes.
SAMPLE_FRAMES: Final = 64

#: Largest movement of a block mean measured on a plain re-encode of a decoded H.264 clip, by crf of the re-encode
#: (libx264, yuv420p), never less than at a lower crf; one in between takes the next higher figure. Grey levels, the
#: largest over 24 frames of 640x352 and three encoders: PyAV 18.1 at preset medium, PyAV at veryfast, and ffmpeg 9.0
#: called as VideoHelperSuite 4ee72c0 calls it (tagged BT.709). The source was crf 18. About 2 of it are the way through
#: 8 bit RGB, which rounds down each time.
#:
#: ==================  ====  ====  ====  ====  ====  ====  ====  =====
#: crf                    0    18    19    20    21    22    23     28
#: ==================  ====  ====  ====  ====  ====  ====  ====  =====
#: portrait, panned    2.27  2.66  2.73  3.34  3.58  4.06  3.79   6.67
#: portrait, grainy    2.20  3.31  4.28  3.83  3.84  5.01  4.98   7.95
#: portrait, cuts      2.29  2.48  3.64  3.06  3.73  4.52  3.81   4.06
#: portrait, dark      2.02  2.35  2.53  2.36  2.39  2.51  3.07   4.12
#: pixel noise         1.50  2.90  3.23  2.76  3.06  3.39  3.65   5.84
#: cloudy noise        1.49  3.40  3.47  3.69  4.11  4.44  4.80   8.68
#: moving gradients    1.69  2.79  3.15  2.66  2.87  2.72  4.40   5.37
#: pure colour bars    1.68  3.53  3.69  3.42  4.72  4.27  5.16  11.08
#: flat                2.40  2.40  2.40  2.40  2.40  2.40  2.40   2.40
#: ==================  ====  ====  ====  ====  ====  ====  ====  =====
#:
#: Against that a swap (the embedded worker's, one portrait into another, 1280x720, crf 18 to 23) moves the block it
#: moves most, by side of the face: 97 pixels 38, 64 pixels 25, 48 pixels 17, 32 pixels 6; at 40 % of the light 15, 10,
#: 7 and 3. So the limit of 8.6 at crf 20 is passed three times over at 64 pixels, while a face of 32 pixels, or a small
#: one in the dark, cannot be told from coding noise.
REENCODE_MOVEMENT: Final[Mapping[int, float]] = MappingProxyType(
    {0: 2.40, 18: 3.53, 19: 4.28, 20: 4.28, 21: 4.72, 22: 5.01, 23: 5.16, 28: 11.08}
)

#: The same for a GIF, where each block counts by the best of three readings: the target as it is, and the target
#: painted with the result's own colours, with and without dithering. Measured on the clips above: Pillow's palette per
#: frame moves 2.5 (portrait) to 5.25 (gradients), ffmpeg's one palette for all 1.8 (portrait) to 4.1 (cloudy noise).
#: A swap moves 47 (face of 97 pixels), 23 (64) or 8 (48). Left out on purpose: ffmpeg's one palette on gradients through all colours moves 21. Such a clip counts as changed,
#: since the other mistake would fail jobs whose face was swapped.
PALETTE_MOVEMENT: Final = 5.25

#: What ReActor 6ad6b35 logs when it finds no face in the photo, and in the target; the embedded worker logs the same.
_NO_SOURCE_LINES: Final = ("No valid source face", "No source face", "Cannot detect any Source")
_NO_TARGET_LINES: Final = ("Cannot detect any Target", "No target face found")

#: Twice the largest movement that changing nothing was seen to cause.
_MARGIN: Final = 2.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """Whether a result differs from its target."""

    changed: bool
    #: Largest movement of a block mean, in 8-bit levels.
    largest_movement: float
    frames_compared: int


def movement_limit(crf: int | None, *, palette: bool) -> float:
    """Grey levels up to which a block may move in a result that nobody changed.

    Args:
        crf: of the template's encoder; None for a lossless one, where only the way through RGB moves anything.
        palette: whether its colours were reduced: the result is a GIF, and the target none.
    """
    if palette:
        return _MARGIN * PALETTE_MOVEMENT
    measured = sorted(REENCODE_MOVEMENT)
    at_least = next((known for known in measured if known >= (crf or 0)), measured[-1])
    return _MARGIN * REENCODE_MOVEMENT[at_least]


def is_changed(movement: float, limit: float) -> bool:
    """Whether a result whose blocks moved that far was changed, given its ``movement_limit``."""
    return movement > limit


def sampled_frames(count: int, most: int = SAMPLE_FRAMES) -> tuple[int, ...]:
    """Indices of at most ``most`` frames, spread evenly from the first to the last of ``count``."""
    if count <= most:
        return tuple(range(count))
    return tuple(index * (count - 1) // (most - 1) for index in range(most))


def unchanged_error(log_lines: Iterable[str]) -> JobError:
    """The error for a result in which nothing was changed.

    Args:
        log_lines: what the upstream logged while the prompt ran, colours and all; empty when it keeps its log to
            itself. The phrases are those of ReActor 6ad6b35, which the embedded worker logs too.
    """
    log = "\n".join(log_lines)
    if any(phrase in log for phrase in _NO_SOURCE_LINES):
        return NoFaceFoundError(
            "No face was found in the face photo. Send one that shows a face from the front, well lit."
        )
    if any(phrase in log for phrase in _NO_TARGET_LINES):
        return NoFaceFoundError("No face was found in the picture or video that the face should go into.")
    return ResultUnchangedError(
        "The result is the same as the target: nothing was swapped. Most often no face is clearly visible in the photo"
        " or in the target."
    )
