"""Putting faces on faces: the swap core, for stills and clips, on the CPU.

Three passes over the frames, shaped like ReActor's (6ad6b35) so that whoever watches one can watch the other: check,
analysis, swap. Frames are worked on one at a time; beside the result nothing as large as the clip is held.

Nobody's face found, or not the one asked for, is no error: the input comes back as it is, and the log says why, in
the phrases ReActor uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .alignment import CROP_SIDE, Pose, crop_bounds, crop_matrix, cut_crop, pose_of, soft_mask
from .color import Tone, light_field, match_tone, measure_tone, to_lab
from .detection import Face, detect_faces
from .host import never_interrupted, no_log, no_tick
from .opencv import load_cv2, single_thread
from .options import SwapOptions, numbered, parse_indexes
from .tracking import FaceTracker, TrackedFace, number_by_frame, number_faces

__all__ = ["SwapOptions", "SwapResult", "swap_faces", "swap_image_batch", "to_bytes"]

Frames = NDArray[np.uint8]
#: Of one frame: number → face.
Numbered = Mapping[int, TrackedFace]

# Phrases of ReActor 6ad6b35 (scripts/reactor_swapper.py, scripts/reactor_faceswap.py), word for word, as whoever
# reads the log of either looks for them. The bare facts only; all other lines are ours.
LOG_NO_TARGET = "Cannot detect any Target, skipping swapping..."
LOG_NO_VALID_SOURCE = "No valid source face(s) found in the provided Index after gender filter"
LOG_SWAPPING = "Swapping..."
LOG_DONE = "--Done!--"
LOG_ANALYZING_SOURCE = "Analyzing Source Image..."
LOG_ANALYZING_TARGET = "Analyzing Target Image..."


def log_working(sources: list[int], targets: list[int]) -> str:
    """ReActor's line about the indexes it works on."""
    return f"Working: source face index {sources}, target face index {targets}"


def log_no_such_target(index: int) -> str:
    """ReActor's line about a target face that is not there."""
    return f"No target face found for {index}"


#: Side in pixels of the small crop on which tone and light are measured.
_MEASURE_PIXELS = 96
#: Bounds of the crop that is pasted; a face of more than 640 pixels is enlarged from that.
_MIN_PATCH_PIXELS, _MAX_PATCH_PIXELS = 64, 640
#: Of a new measurement, the share that counts: one frame's noise must not flicker, dusk must still fall.
_TONE_SHARE = 0.12


@dataclass(frozen=True)
class SwapResult:
    """What came of it."""

    #: (frames, height, width, 3); the very input array when nothing was swapped.
    frames: Frames
    #: In how many frames at least one face was swapped.
    swapped_frames: int
    #: What was logged, in order.
    log: tuple[str, ...]


@dataclass
class _Source:
    """One face of the source picture."""

    picture: NDArray[np.uint8]
    pose: Pose
    #: Crop size → LAB crop and its tone.
    crops: dict[int, tuple[NDArray[np.uint8], Tone]] = field(default_factory=dict)

    def crop(self, side_pixels: int) -> tuple[NDArray[np.uint8], Tone]:
        if side_pixels not in self.crops:
            lab = to_lab(cut_crop(self.picture, self.pose, side_pixels))
            self.crops[side_pixels] = lab, measure_tone(lab)
        return self.crops[side_pixels]


@dataclass
class _Shade:
    """Tone and light of one person in a clip, carried from frame to frame."""

    tone: Tone | None = None
    light: NDArray[np.float32] | None = None


@dataclass
class _Run:
    """One call of ``swap_faces``: how it talks to its caller."""

    on_tick: Callable[[int, int], None]
    check_interrupted: Callable[[], None]
    on_log: Callable[[str], None]
    lines: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        self.lines.append(line)
        self.on_log(line)

    def ticks(self, frames: Frames, *, rounds: int = 1) -> Iterator[tuple[int, int]]:
        """(round, frame index) of one pass; a tick after each, and one of value 0 at the end, as ReActor's bar does."""
        count = len(frames)
        done = 0
        for number in range(rounds):
            for index in range(count):
                self.check_interrupted()
                yield number, index
                done += 1
                self.on_tick(min(done, count), count)
        self.on_tick(0, count)


def swap_faces(
    frames: Frames,
    source: Frames,
    options: SwapOptions,
    *,
    original: Frames | None = None,
    on_tick: Callable[[int, int], None] = no_tick,
    check_interrupted: Callable[[], None] = never_interrupted,
    on_log: Callable[[str], None] = no_log,
) -> SwapResult:
    """Swap faces of ``source`` into ``frames``.

    Args:
        frames: (frames, height, width, 3), RGB, uint8, upright, in the order of time. Never written to.
        source: a picture (height, width, 3), or several of which the first counts.
        options: which faces go where.
        original: the frames before an earlier swap changed them: there faces are looked for and numbered, so that of
            several swaps in a row none is misled by the faces that the others put in. Of the same shape as ``frames``.
        on_tick: called with (value, maximum), maximum being the number of frames. Pass 1 ticks 1..N. More than one
            frame: pass 2 ticks 1..N, and pass 3 1..N for each target index, its value staying at N for all but the
            first. Every pass ends with a tick of value 0. Passes 2 and 3 are left out when there is nothing to do.
        check_interrupted: called before each frame of each pass; what it raises is passed on.
        on_log: called with each line as it happens.

    Raises:
        OpenCVMissingError: see ``opencv.py``.
        ValueError: an array is not of the shape or type above.
    """
    run = _Run(on_tick, check_interrupted, on_log)
    picture = source[0] if source.ndim == 4 else source  # noqa: PLR2004 - frames, height, width, channels
    with single_thread():
        _check_frames(frames, picture, run)
        if original is not None and (original.shape != frames.shape or original.dtype != frames.dtype):
            raise ValueError(f"expected an original of shape {frames.shape}, got {original.dtype} {original.shape}")
        targets, sources = parse_indexes(options.input_faces_index), parse_indexes(options.source_faces_index)
        run.say(log_working(sources, targets))
        run.say(LOG_ANALYZING_SOURCE)
        faces = _source_faces(picture, options, sources)
        run.say(LOG_ANALYZING_TARGET)
        found = _analyse(frames if original is None else original, options, run)
        if not any(found):
            run.say(LOG_NO_TARGET)
            return SwapResult(frames, 0, tuple(run.lines))
        if not faces:
            run.say(LOG_NO_VALID_SOURCE)
            return SwapResult(frames, 0, tuple(run.lines))
        result = _swap(frames, found, targets, faces, run)
    return SwapResult(result[0], result[1], tuple(run.lines))


def swap_image_batch(
    image: NDArray[Any],
    source: NDArray[Any],
    options: SwapOptions,
    *,
    original: NDArray[Any] | None = None,
    on_tick: Callable[[int, int], None] = no_tick,
    check_interrupted: Callable[[], None] = never_interrupted,
    on_log: Callable[[str], None] = no_log,
) -> tuple[NDArray[Any], int]:
    """``swap_faces`` on what ComfyUI's IMAGE holds: uint8 or float 0..1, in and out.

    Returns:
        The batch and the number of swapped frames. The very input array when that is 0; frames in which nothing was
        swapped keep their exact values.
    """
    frames = to_bytes(image)
    result = swap_faces(
        frames,
        to_bytes(source[:1] if source.ndim == 4 else source),  # noqa: PLR2004 - as in swap_faces
        options,
        original=None if original is None else to_bytes(original),
        on_tick=on_tick,
        check_interrupted=check_interrupted,
        on_log=on_log,
    )
    if result.frames is frames:
        return image, 0
    if image.dtype == np.uint8:
        return result.frames, result.swapped_frames
    swapped = image.copy()
    for index, frame in enumerate(result.frames):
        changed = np.any(frame != frames[index], axis=-1)
        swapped[index][changed] = frame[changed].astype(image.dtype) / 255
    return swapped, result.swapped_frames


def to_bytes(image: NDArray[Any]) -> NDArray[np.uint8]:
    """An image as uint8; the same array when it is that already. Floats are taken as 0..1."""
    if image.dtype == np.uint8:
        return image
    if image.ndim < 4:  # noqa: PLR2004 - one picture
        rounded: NDArray[np.uint8] = (np.clip(np.nan_to_num(image), 0.0, 1.0) * 255 + 0.5).astype(np.uint8)
        return rounded
    # Frame by frame: a float copy of a clip may be gigabytes.
    result = np.empty(image.shape, np.uint8)
    for index, frame in enumerate(image):
        result[index] = to_bytes(frame)
    return result


def _check_frames(frames: Frames, picture: NDArray[np.uint8], run: _Run) -> None:
    """Pass 1. ReActor looks for unsafe content here; the gateway's own safety check does that, on every input."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:  # noqa: PLR2004
        raise ValueError(f"expected uint8 frames (frames, height, width, 3), got {frames.dtype} {frames.shape}")
    if picture.ndim != 3 or picture.shape[-1] != 3 or picture.dtype != np.uint8 or 0 in picture.shape:  # noqa: PLR2004
        raise ValueError(f"expected a uint8 source (height, width, 3), got {picture.dtype} {picture.shape}")
    for _ in run.ticks(frames):
        pass


def _source_faces(picture: NDArray[np.uint8], options: SwapOptions, indexes: list[int]) -> list[_Source]:
    found = numbered(detect_faces(np.ascontiguousarray(picture)), options.source_faces_order)
    return [_Source(picture, pose_of(found[index])) for index in indexes if index < len(found)]


def _analyse(frames: Frames, options: SwapOptions, run: _Run) -> Sequence[Numbered]:
    """Pass 2: per frame, its faces by their numbers."""
    order = options.input_faces_order
    if len(frames) == 1:
        found = numbered(detect_faces(np.ascontiguousarray(frames[0])), order)
        return [{index: _tracked(index, face) for index, face in enumerate(found)}]
    reference = options.reference_frame
    if reference is not None:
        reference = min(max(reference, 0), len(frames) - 1)
    tracker = FaceTracker(reference)
    for _, index in run.ticks(frames):
        tracker.add(np.ascontiguousarray(frames[index]))
    tracked = tracker.finish()
    if reference is None:
        return [dict(enumerate(present)) for present in number_faces(tracked, order)]
    return number_by_frame(tracked, reference, [pose_of(face) for face in numbered(tracker.reference_faces, order)])


def _tracked(index: int, face: Face) -> TrackedFace:
    return TrackedFace(track=index, pose=pose_of(face))


def _swap(
    frames: Frames, found: Sequence[Numbered], targets: list[int], faces: list[_Source], run: _Run
) -> tuple[Frames, int]:
    """Pass 3: the result and the number of frames that were changed."""
    run.say(LOG_SWAPPING)
    result = frames.copy()
    swapped: set[int] = set()
    used = 0
    if len(frames) == 1:
        steps: Iterator[tuple[int, int]] = ((number, 0) for number in range(len(targets)))
    else:
        steps = run.ticks(frames, rounds=len(targets))
    current, hit, shades = 0, False, dict[int, _Shade]()
    for number, index in steps:
        if number != current:
            # As in ReActor, the next source face is taken only after one that was used.
            used += hit
            current, hit, shades = number, False, {}
        place = targets[number]
        face = found[index].get(place)
        if face is not None:
            paste_face(result[index], face.pose, faces[used % len(faces)], shades.setdefault(face.track, _Shade()))
            hit = True
            swapped.add(index)
    for place in targets:
        if not any(place in present for present in found):
            run.say(log_no_such_target(place))
    run.say(LOG_DONE)
    return (result, len(swapped)) if swapped else (frames, 0)


def paste_face(frame: NDArray[np.uint8], pose: Pose, source: _Source, shade: _Shade) -> None:
    """Put one source face on one face of a frame, in place."""
    cv2 = load_cv2()
    around = cut_crop(frame, pose, _MEASURE_PIXELS)
    tone = measure_tone(to_lab(around))
    shade.tone = tone if shade.tone is None else shade.tone.towards(tone, _TONE_SHARE)
    lab, own = source.crop(_MEASURE_PIXELS)
    light = light_field(match_tone(lab, own, shade.tone), around)
    shade.light = light if shade.light is None else shade.light + _TONE_SHARE * (light - shade.light)

    wanted = round(CROP_SIDE * pose.size / 32) * 32
    side = min(max(wanted, _MIN_PATCH_PIXELS), _MAX_PATCH_PIXELS)
    fine, _ = source.crop(side)
    patch = cv2.resize(shade.light, (side, side), interpolation=cv2.INTER_LINEAR)
    patch += match_tone(fine, own, shade.tone)
    _blend(frame, np.clip(patch, 0, 255), pose)


def _blend(frame: NDArray[np.uint8], patch: NDArray[np.float32], pose: Pose) -> None:
    """Lay the patch over its place in the frame, through the soft mask."""
    cv2 = load_cv2()
    side = patch.shape[0]
    x0, y0, x1, y1 = crop_bounds(frame, pose)
    matrix = crop_matrix(pose, side)
    matrix[:, 2] += matrix[:, :2] @ (x0, y0)
    size = (x1 - x0, y1 - y0)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    # WARP_INVERSE_MAP wants the matrix from the result's pixels to the patch's, which is the one at hand.
    new = cv2.warpAffine(patch, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.warpAffine(soft_mask(side), matrix, size, flags=flags)[..., np.newaxis]
    old = frame[y0:y1, x0:x1]
    mixed = old + alpha * (new - old)
    old[...] = np.where(alpha > 0, mixed + 0.5, old).astype(np.uint8)
