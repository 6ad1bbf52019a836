"""Paths of faces through a clip: who is where in every frame, without jumps.

A cascade sees a face anew in every frame, a few pixels off each time, and misses it when the head turns. So it is
asked every few frames only. In between, points on the face are followed by optical flow, which is exact from one
frame to the next but drifts. Both are put together once the clip is over: the path is the flow's, corrected by how
far detections lie from it, averaged over time in both directions. So the path moves as the camera does, without lag,
and does not shake with the detector.

A clip is handed in frame by frame; only the last few frames are kept, small and grey.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cmp_to_key

import numpy as np
from numpy.typing import NDArray

from .alignment import Pose, pose_of
from .detection import CLIP_SEARCH_PIXELS, STILL_SEARCH_PIXELS, Face, find_faces
from .opencv import load_cv2
from .options import sort_key

#: The cascade is asked every so many frames, and every other frame while somebody is missing.
DETECT_EVERY = 5
_DETECT_EVERY_WHEN_LOST = 2
#: So many frames nobody needs to see a face for it to be the same person's, half a second at 30 fps; and so many
#: frames back a face is followed that was first seen late.
HOLD_FRAMES = 15
#: Mean difference of two tiny pictures, in levels, from which one does not continue the other.
_CUT_LEVELS = 32.0
#: A detection is a track's when it lies within so many eye distances, and sizes differ by no more than this factor.
_SAME_DISTANCE, _SAME_SIZE = 1.0, 1.6
#: Two tracks nearer than this, in eye distances, are one face seen twice.
_DOUBLE_DISTANCE = 0.8
#: A detection without eyes knows place and size only roughly.
_NO_EYES_WEIGHT = 0.2
#: Standard deviation, in frames, over which the detections' distances from the path are averaged.
_AVERAGE_FRAMES = 12.0
#: Fewer points than this do not make a movement.
_MIN_POINTS = 6


@dataclass(frozen=True)
class TrackedFace:
    """One face in one frame."""

    #: The same number in all frames of one person.
    track: int
    pose: Pose


@dataclass
class _Sighting:
    frame: int
    pose: Pose
    weight: float


@dataclass
class _Track:
    number: int
    #: Frame of the first entry of ``path``.
    start: int
    #: The flow's pose, frame by frame; None where the face could not be followed.
    path: list[Pose | None]
    sightings: list[_Sighting] = field(default_factory=list)
    #: How often the cascade looked and did not see it.
    missed: int = 0

    @property
    def last_pose(self) -> Pose:
        return next(pose for pose in reversed(self.path) if pose is not None)


class FaceTracker:
    """Feed it the frames of a clip in order with ``add``, then call ``finish`` once.

    Args:
        reference_frame: where somebody numbered the faces. It is searched as a still is, so that the same faces are
            found, and so is the rest of the clip, lest the smaller ones be lost there.
    """

    def __init__(self, reference_frame: int | None = None) -> None:
        self._reference_frame = reference_frame
        self._search_pixels = CLIP_SEARCH_PIXELS if reference_frame is None else STILL_SEARCH_PIXELS
        #: The faces of the reference frame, as a still's.
        self.reference_faces: list[Face] = []
        self._frames = 0
        self._scale = 1.0
        self._recent: deque[NDArray[np.uint8]] = deque(maxlen=HOLD_FRAMES + 1)
        self._live: list[_Track] = []
        self._ended: list[_Track] = []

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Take the next frame: (height, width, 3), RGB."""
        gray = self._shrink(frame)
        cut = bool(self._recent) and _is_cut(self._recent[-1], gray)
        if cut:
            self._ended += self._live
            self._live = []
            self._recent.clear()
        for track in self._live:
            last = track.path[-1]
            track.path.append(None if last is None else self._follow(last, self._recent[-1], gray))
        self._recent.append(gray)
        if cut or self._frames == self._reference_frame or self._is_due():
            self._look(frame)
        self._let_go()
        self._frames += 1

    def finish(self) -> list[list[TrackedFace]]:
        """Per frame, the faces in it, in no order."""
        tracks = [track for track in (*self._ended, *self._live) if _is_believed(track)]
        result: list[list[TrackedFace]] = [[] for _ in range(self._frames)]
        # The longest path first: of two on one face, that one stays.
        for track in sorted(tracks, key=lambda track: -len(track.sightings)):
            for index, pose in _smooth_path(track):
                if all(_distance(pose, other.pose) > _DOUBLE_DISTANCE for other in result[index]):
                    result[index].append(TrackedFace(track.number, pose))
        return result

    def _shrink(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        cv2 = load_cv2()
        gray: NDArray[np.uint8] = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        self._scale = min(1.0, CLIP_SEARCH_PIXELS / max(gray.shape))
        if self._scale < 1.0:
            rows, columns = (max(1, round(side * self._scale)) for side in gray.shape)
            gray = cv2.resize(gray, (columns, rows), interpolation=cv2.INTER_AREA)
        return gray

    def _is_due(self) -> bool:
        lost = not self._live or any(track.missed or track.path[-1] is None for track in self._live)
        return self._frames % (_DETECT_EVERY_WHEN_LOST if lost and self._live else DETECT_EVERY) == 0

    def _look(self, frame: NDArray[np.uint8]) -> None:
        """Ask the cascade, and give each face it sees to its track or a new one."""
        unseen = list(self._live)
        is_reference = self._frames == self._reference_frame
        found = find_faces(frame, self._search_pixels, tilted=is_reference or not self._live)
        if is_reference:
            self.reference_faces = found
        for face in found:
            pose = pose_of(face)
            sighting = _Sighting(self._frames, pose, 1.0 if face.eyes_found else _NO_EYES_WEIGHT)
            near = [track for track in unseen if _is_same(track.last_pose, pose)]
            if near:
                track = min(near, key=lambda track: _distance(track.last_pose, pose))
                unseen.remove(track)
            else:
                track = self._begin(pose)
            track.missed = 0
            track.sightings.append(sighting)
            if track.path[-1] is None:
                track.path[-1] = pose
        for track in unseen:
            track.missed += 1

    def _begin(self, pose: Pose) -> _Track:
        """A new track, followed back through the frames before this one for as long as it can be."""
        path: list[Pose | None] = [pose]
        recent = list(self._recent)
        for after, before in zip(reversed(recent), reversed(recent[:-1]), strict=False):
            earlier = self._follow(pose, after, before)
            if earlier is None:
                break
            path.insert(0, earlier)
            pose = earlier
        track = _Track(len(self._live) + len(self._ended), self._frames - len(path) + 1, path)
        self._live.append(track)
        return track

    def _let_go(self) -> None:
        gone = [track for track in self._live if self._frames - track.sightings[-1].frame >= HOLD_FRAMES]
        self._ended += gone
        self._live = [track for track in self._live if track not in gone]

    def _follow(self, pose: Pose, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> Pose | None:
        """The pose in the next small frame, in pixels of the whole frame; None when the points do not agree."""
        scale = self._scale
        move = _movement(before, after, Pose(pose.x * scale, pose.y * scale, pose.size * scale, pose.angle))
        if move is None:
            return None
        growth = math.hypot(move[0, 0], move[1, 0])
        if not 0.8 < growth < 1.25:  # noqa: PLR2004 - nobody grows by a quarter in one frame
            return None
        x, y = move @ (pose.x * scale, pose.y * scale, 1.0) / scale
        height, width = (side / scale for side in after.shape)
        if not (0 <= x < width and 0 <= y < height):
            return None
        return Pose(float(x), float(y), pose.size * growth, pose.angle + math.atan2(move[1, 0], move[0, 0]))


def number_faces(frames: Sequence[Sequence[TrackedFace]], order: str) -> list[list[TrackedFace]]:
    """Each frame's faces in the given order.

    Two faces are compared over all frames that show both, not frame by frame: so no two people swap their numbers
    in the middle of a clip because one box came out a pixel larger.
    """
    lead: dict[tuple[int, int], float] = {}
    for present in frames:
        for one in present:
            for other in present:
                if one.track != other.track:
                    ahead = _place(one.pose, order) - _place(other.pose, order)
                    lead[one.track, other.track] = lead.get((one.track, other.track), 0.0) + ahead

    def compare(one: TrackedFace, other: TrackedFace) -> int:
        return int(np.sign(lead.get((one.track, other.track), 0.0) or one.pose.x - other.pose.x))

    return [sorted(present, key=cmp_to_key(compare)) for present in frames]


def number_by_frame(
    frames: Sequence[Sequence[TrackedFace]], reference_frame: int, faces: Sequence[Pose]
) -> list[dict[int, TrackedFace]]:
    """Each frame's faces by the numbers that they have in one of the frames.

    Args:
        frames: per frame, the faces in it.
        reference_frame: the frame that was numbered.
        faces: where its faces are, in the order of their numbers.

    Returns:
        Per frame, number → face. Who is not in the reference frame, or was lost on the way, has no number.
    """
    numbers: dict[int, int] = {}
    for number, pose in enumerate(faces):
        free = [face for face in frames[reference_frame] if face.track not in numbers]
        apart, track = min(((_distance(face.pose, pose), face.track) for face in free), default=(math.inf, -1))
        if apart < _SAME_DISTANCE:
            numbers[track] = number
    return [{numbers[face.track]: face for face in present if face.track in numbers} for present in frames]


def _place(pose: Pose, order: str) -> float:
    return sort_key(order, pose.x, pose.y, pose.size**2)[0]


def _distance(one: Pose, other: Pose) -> float:
    """Between two eye middles, in eye distances of the smaller face."""
    return math.hypot(one.x - other.x, one.y - other.y) / max(1.0, min(one.size, other.size))


def _is_same(one: Pose, other: Pose) -> bool:
    ratio = one.size / max(other.size, 1e-6)
    return _distance(one, other) < _SAME_DISTANCE and 1 / _SAME_SIZE < ratio < _SAME_SIZE


def _is_believed(track: _Track) -> bool:
    """False for what the cascade saw once, without eyes, and looked for again in vain."""
    return len(track.sightings) > 1 or track.missed < 2 or track.sightings[0].weight == 1.0  # noqa: PLR2004


def _is_cut(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> bool:
    cv2 = load_cv2()
    if before.shape != after.shape:
        return True
    one, other = (cv2.resize(gray, (32, 18), interpolation=cv2.INTER_AREA) for gray in (before, after))
    return float(np.mean(cv2.absdiff(one, other))) > _CUT_LEVELS


def _movement(before: NDArray[np.uint8], after: NDArray[np.uint8], pose: Pose) -> NDArray[np.float64] | None:
    """The similarity (2x3) by which a face moved between two frames, or None.

    A point counts when following it there and back ends where it began.
    """
    cv2 = load_cv2()
    height, width = before.shape
    reach_x, reach_up, reach_down = 0.95 * pose.size, 0.7 * pose.size, 1.3 * pose.size
    x0, y0 = max(0, int(pose.x - reach_x)), max(0, int(pose.y - reach_up))
    x1, y1 = min(width, int(pose.x + reach_x)), min(height, int(pose.y + reach_down))
    if min(x1 - x0, y1 - y0) < 8:  # noqa: PLR2004 - a sliver at the border
        return None
    corners = cv2.goodFeaturesToTrack(before[y0:y1, x0:x1], 40, 0.01, max(2.0, pose.size / 12))
    if corners is None or len(corners) < _MIN_POINTS:
        return None
    points = (corners + np.array([[x0, y0]], np.float32)).astype(np.float32)
    window = {"winSize": (17, 17), "maxLevel": 3}
    there, seen, _ = cv2.calcOpticalFlowPyrLK(before, after, points, None, **window)
    back, seen_back, _ = cv2.calcOpticalFlowPyrLK(after, before, there, None, **window)
    error = np.abs(back - points).max(axis=(1, 2))
    good = (seen.ravel() == 1) & (seen_back.ravel() == 1) & (error < 1.0)
    if np.count_nonzero(good) < max(_MIN_POINTS, 0.4 * len(points)):
        return None
    move, inliers = cv2.estimateAffinePartial2D(points[good], there[good], ransacReprojThreshold=1.5)
    if move is None or np.count_nonzero(inliers) < _MIN_POINTS:
        return None
    result: NDArray[np.float64] = move
    return result


def _smooth_path(track: _Track) -> list[tuple[int, Pose]]:
    """(frame, pose) for each frame in which the person is believed to be seen."""
    last = track.sightings[-1].frame
    poses, stretches = _bridge_gaps(track.path), _stretches(track.path)
    offsets = np.array([seen.frame - track.start for seen in track.sightings])
    trust = np.array([seen.weight for seen in track.sightings])
    corrections = np.array(
        [_correction(poses[at], seen.pose) for at, seen in zip(offsets, track.sightings, strict=True)]
    )
    result = []
    for offset, pose in enumerate(poses):
        if track.start + offset > last and track.path[offset] is None:
            break
        # Drift is a matter of one unbroken stretch of flow, and every stretch has a sighting. Weights are relative to
        # the nearest one, so that far from all of them they do not vanish together.
        near = stretches[offsets] == stretches[offset]
        distance = (offsets[near] - offset) ** 2.0
        weights = trust[near] * np.exp((distance.min() - distance) / (2 * _AVERAGE_FRAMES**2))
        result.append((track.start + offset, _corrected(pose, weights @ corrections[near] / weights.sum())))
    return result


def _stretches(path: list[Pose | None]) -> NDArray[np.int_]:
    """For each frame the number of its unbroken stretch; a gap counts to the one before it."""
    known = np.array([pose is not None for pose in path])
    return np.cumsum(known & ~np.concatenate(([False], known[:-1])))


def _bridge_gaps(path: list[Pose | None]) -> list[Pose]:
    """The path with straight lines where it could not be followed; after its end, its last pose."""
    known = [index for index, pose in enumerate(path) if pose is not None]
    values = np.array([(pose.x, pose.y, pose.size, pose.angle) for pose in path if pose is not None])
    columns = [np.interp(np.arange(len(path)), known, column) for column in values.T]
    return [Pose(*(float(value) for value in row)) for row in zip(*columns, strict=True)]


def _correction(path: Pose, seen: Pose) -> tuple[float, float, float, float]:
    """How far a sighting lies off the path, in eye distances, log size and radians."""
    return (
        (seen.x - path.x) / path.size,
        (seen.y - path.y) / path.size,
        math.log(seen.size / path.size),
        math.remainder(seen.angle - path.angle, math.tau),
    )


def _corrected(path: Pose, by: NDArray[np.float64]) -> Pose:
    return Pose(
        path.x + float(by[0]) * path.size,
        path.y + float(by[1]) * path.size,
        path.size * math.exp(float(by[2])),
        path.angle + float(by[3]),
    )
