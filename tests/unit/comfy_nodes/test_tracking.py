"""Paths are judged in the coordinates of the still that the clip was made from: there the face stands still."""

import cv2
import numpy as np
import pytest

from comfy_nodes.alignment import Pose
from comfy_nodes.detection import find_faces
from comfy_nodes.tracking import HOLD_FRAMES, FaceTracker, TrackedFace, _Sighting, _smooth_path, _Track, number_faces


def track(frames):
    tracker = FaceTracker()
    for frame in frames:
        tracker.add(frame)
    return tracker.finish()


def on_the_still(poses, cameras):
    """(frames, 3): place and size of each pose, with the camera's movement taken out."""
    rows = []
    for pose, camera in zip(poses, cameras, strict=True):
        x, y = cv2.invertAffineTransform(camera) @ (pose.x, pose.y, 1.0)
        rows.append((x, y, pose.size / camera[0, 0]))
    return np.array(rows)


def test_moving_camera_leaves_the_face_steady(pan):
    frames, cameras = pan
    found = track(frames)
    assert [[face.track for face in present] for present in found] == [[0]] * len(frames)
    path = on_the_still([present[0].pose for present in found], cameras)
    # Detections of the same frames lie about a pixel apart; a step of 0.15 pixels is not seen.
    assert np.abs(np.diff(path, axis=0)).max() < 0.15
    assert path.std(axis=0).max() < 0.5
    assert path[:, :2].mean(axis=0) == pytest.approx((157, 72), abs=3)


def test_someone_not_seen_for_a_few_frames_keeps_the_track(pan):
    frames, cameras = pan[0].copy(), pan[1]
    for frame in frames[9:15]:
        # What a turned head is to a cascade: no face; and to the flow: other points.
        frame[40:130, 60:165] = np.random.default_rng(3).integers(0, 255, (90, 105, 3))
    found = track(frames)
    assert {face.track for present in found for face in present} == {0}
    assert [len(present) for present in found] == [1] * len(frames)
    path = on_the_still([present[0].pose for present in found], cameras)
    assert np.abs(path - path[0]).max() < 6


def test_someone_gone_is_not_followed_any_further(pan, nobody):
    empty = cv2.resize(nobody, (224, 176))
    found = track([*pan[0][:6], *[empty] * 5])
    assert [len(present) for present in found] == [1] * 6 + [0] * 5


def test_a_track_that_no_detection_confirms_ends_after_the_hold(pan, monkeypatch):
    seen = find_faces(pan[0][0], 240)
    monkeypatch.setattr("comfy_nodes.tracking.find_faces", lambda *_, **__: [seen.pop()] if seen else [])
    found = track([pan[0][0]] * (HOLD_FRAMES + 4))
    assert [len(present) for present in found] == [1] * (HOLD_FRAMES + 1) + [0] * 3


def test_a_face_first_seen_late_is_followed_back(pan, monkeypatch):
    looks = []
    look = FaceTracker._look

    def late(self, frame):
        looks.append(self._frames)
        if len(looks) > 1:
            look(self, frame)

    monkeypatch.setattr(FaceTracker, "_look", late)
    found = track(pan[0][:8])
    assert looks[:2] == [0, 5]
    assert [len(present) for present in found] == [1] * 8


def test_a_cut_ends_a_track_and_starts_another(pan):
    dark = (pan[0][:6, :, ::-1] * 0.35).astype(np.uint8)
    found = track([*pan[0][:7], *dark])
    assert [present[0].track for present in found] == [0] * 7 + [1] * 6
    assert found[7][0].pose.x == pytest.approx(223 - found[0][0].pose.x, abs=5)


def test_two_people_keep_their_numbers_when_sizes_cross_for_a_frame():
    def frame(one, other):
        return [TrackedFace(0, Pose(50, 50, one, 0)), TrackedFace(1, Pose(150, 50, other, 0))]

    numbered = number_faces([frame(30, 28), frame(28, 30), frame(31, 28)], "large-small")
    assert [[face.track for face in present] for present in numbered] == [[0, 1]] * 3


def test_numbers_are_given_among_those_present():
    alone = [TrackedFace(1, Pose(150, 50, 20, 0))]
    both = [TrackedFace(0, Pose(50, 50, 30, 0)), *alone]
    assert [face[0].track for face in number_faces([both, alone], "large-small")] == [0, 1]


def test_drift_before_a_gap_is_not_carried_over_it():
    here, there = Pose(100, 50, 20, 0), Pose(140, 50, 20, 0)
    sightings = [_Sighting(0, Pose(110, 50, 20, 0), 1.0), _Sighting(4, there, 1.0)]
    lost = _Track(0, 0, [here, here, None, None, there, there], sightings)
    assert [round(pose.x) for _, pose in _smooth_path(lost)] == [110, 110, 123, 137, 140, 140]
