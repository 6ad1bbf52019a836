import numpy as np
import pytest

from comfy_nodes.alignment import Pose
from comfy_nodes.swap import (
    LOG_NO_TARGET,
    LOG_NO_VALID_SOURCE,
    SwapOptions,
    log_no_such_target,
    swap_faces,
    swap_image_batch,
)


@pytest.fixture(autouse=True)
def _detection_is_asked_once(monkeypatch, detected_once):
    monkeypatch.setattr("comfy_nodes.swap.detect_faces", detected_once)


class Ticks(list):
    def __call__(self, value, maximum):
        self.append((value, maximum))


def one_pass(count):
    return [(value, count) for value in range(1, count + 1)] + [(0, count)]


def changed(before, after):
    return np.abs(before.astype(int) - after).max(axis=-1) > 0


def swap_one(target, source, **options):
    return swap_faces(target[np.newaxis], source, SwapOptions(**options))


def test_the_face_is_replaced_and_little_else(portrait, stranger):
    result = swap_one(portrait, stranger)
    assert result.swapped_frames == 1
    difference = np.abs(portrait.astype(int) - result.frames[0]).mean(axis=-1)
    # Brows to chin of a face of 68 pixels.
    assert difference[68:106, 140:174].mean() > 8
    outside = np.ones(difference.shape, bool)
    outside[50:130, 118:196] = False
    assert not difference[outside].any()


def test_the_new_face_has_the_colours_of_the_place(portrait, stranger):
    """The source is far bluer than the target; pasted as it is, blue would exceed red on the cheeks."""
    cheeks = swap_one(portrait, stranger).frames[0][78:96, 142:172].reshape(-1, 3).mean(axis=0)
    assert cheeks == pytest.approx(portrait[78:96, 142:172].reshape(-1, 3).mean(axis=0), abs=25)
    assert cheeks[0] > cheeks[2] + 15


def test_a_grey_picture_stays_grey(portrait, stranger):
    grey = np.repeat(portrait.mean(axis=-1, keepdims=True).astype(np.uint8), 3, axis=-1)
    frame = swap_one(grey, stranger).frames[0].astype(int)
    assert changed(grey, frame).any()
    assert (frame.max(axis=-1) - frame.min(axis=-1)).max() <= 6


@pytest.mark.parametrize("count", [1, 3])
def test_no_face_in_target_returns_the_input_and_says_so(nobody, portrait, count):
    frames = np.stack([nobody] * count)
    result = swap_faces(frames, portrait, SwapOptions())
    assert result.frames is frames
    assert result.swapped_frames == 0
    assert result.log[-1] == LOG_NO_TARGET == "Cannot detect any Target, skipping swapping..."


@pytest.mark.parametrize("index", ["1", "7"])
def test_source_face_not_there_returns_the_input_and_says_so(portrait, stranger, index):
    result = swap_one(portrait, stranger, source_faces_index=index)
    assert not changed(portrait, result.frames[0]).any()
    assert result.log[-1] == LOG_NO_VALID_SOURCE
    assert "No valid source face(s) found" in LOG_NO_VALID_SOURCE


def test_no_face_in_source_returns_the_input_and_says_so(portrait, nobody):
    result = swap_one(portrait, nobody)
    assert not changed(portrait, result.frames[0]).any()
    assert result.log[-1] == LOG_NO_VALID_SOURCE


def test_target_face_not_there_returns_the_input_and_says_so(portrait, stranger):
    result = swap_one(portrait, stranger, input_faces_index="3")
    assert not changed(portrait, result.frames[0]).any()
    assert result.swapped_frames == 0
    assert log_no_such_target(3) in result.log


@pytest.mark.parametrize(
    ("options", "left", "right"),
    [
        ({}, False, True),
        ({"input_faces_index": "1"}, True, False),
        ({"input_faces_index": "0,1"}, True, True),
        ({"input_faces_index": "0, 1"}, False, True),
        ({"input_faces_index": "9,1"}, True, False),
        ({"input_faces_order": "left-right"}, True, False),
        ({"input_faces_order": "right-left"}, False, True),
        ({"input_faces_order": "small-large", "input_faces_index": "1"}, False, True),
    ],
)
def test_index_and_order_choose_the_target_face(couple, stranger, options, left, right):
    touched = changed(couple, swap_one(couple, stranger, **options).frames[0])
    assert (touched[:, :110].any(), touched[:, 110:].any()) == (left, right)


@pytest.mark.parametrize(
    ("sources", "targets", "expected"),
    [("0", "0,1", [0, 0]), ("0,1", "0,1", [0, 1]), ("1,0", "0,1,2", [1, 0, 1]), ("0,1", "5,0,1", [0, 1])],
)
@pytest.mark.parametrize("count", [1, 2])
def test_targets_take_sources_in_turn(monkeypatch, couple, sources, targets, expected, count):
    """A target that is not there uses up no source face."""
    used = []
    monkeypatch.setattr("comfy_nodes.swap._analyse", lambda frames, *_: [people(3)] * len(frames))
    monkeypatch.setattr("comfy_nodes.swap._source_faces", lambda *_: [int(index) for index in sources.split(",")])
    monkeypatch.setattr("comfy_nodes.swap.paste_face", lambda _frame, _pose, source, _shade: used.append(source))
    swap_faces(np.stack([couple] * count), couple, SwapOptions(targets, sources))
    assert used == [source for source in expected for _ in range(count)]


def people(count):
    from comfy_nodes.tracking import TrackedFace

    return {number: TrackedFace(number, Pose(50.0 + number, 50, 20, 0)) for number in range(count)}


def test_a_still_ticks_once_and_falls_to_zero(portrait, stranger):
    ticks = Ticks()
    swap_faces(portrait[np.newaxis], stranger, SwapOptions(), on_tick=ticks)
    assert ticks == [(1, 1), (0, 1)]


def test_a_clip_ticks_through_three_passes(pan, stranger):
    ticks = Ticks()
    swap_faces(pan[0][:3], stranger, SwapOptions(), on_tick=ticks)
    assert ticks == one_pass(3) * 3


def test_each_index_ticks_through_all_frames_and_the_value_stays_at_the_maximum(pan, stranger):
    ticks = Ticks()
    swap_faces(pan[0][:3], stranger, SwapOptions(input_faces_index="0,1"), on_tick=ticks)
    assert ticks == one_pass(3) * 2 + [(1, 3), (2, 3), (3, 3), (3, 3), (3, 3), (3, 3), (0, 3)]


def test_without_a_target_there_is_no_third_pass(nobody, stranger):
    ticks = Ticks()
    swap_faces(np.stack([nobody] * 3), stranger, SwapOptions(), on_tick=ticks)
    assert ticks == one_pass(3) * 2


@pytest.mark.parametrize("after", [0, 2, 4, 7])
def test_an_interrupt_ends_any_pass(pan, stranger, after):
    calls = []

    def check():
        calls.append(1)
        if len(calls) > after:
            raise KeyboardInterrupt

    ticks = Ticks()
    with pytest.raises(KeyboardInterrupt):
        swap_faces(pan[0][:3], stranger, SwapOptions(), on_tick=ticks, check_interrupted=check)
    assert len([value for value, _ in ticks if value]) == after


def test_input_frames_are_not_written_to(portrait, stranger):
    frames = portrait[np.newaxis].copy()
    frames.setflags(write=False)
    swap_faces(frames, stranger, SwapOptions())
    assert (frames[0] == portrait).all()


@pytest.mark.parametrize(("top", "left"), [(60, 90), (20, 150), (75, 160), (0, 62)])
def test_faces_at_the_border_do_not_raise(portrait, stranger, top, left, monkeypatch):
    from comfy_nodes.tracking import TrackedFace

    cut = np.ascontiguousarray(portrait[top : top + 120, left : left + 120])
    pose = Pose(157.0 - left, 72.0 - top, 31, 0.1)
    monkeypatch.setattr("comfy_nodes.swap._analyse", lambda *_: [{0: TrackedFace(0, pose)}])
    result = swap_one(cut, stranger)
    assert changed(cut, result.frames[0]).any()


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 1, 1, 3), (3, 2, 900, 3), (1, 2000, 3, 3)])
def test_pictures_too_small_for_a_face_do_not_raise(stranger, shape):
    frames = np.full(shape, 99, np.uint8)
    assert swap_faces(frames, stranger, SwapOptions()).frames is frames


@pytest.mark.parametrize("place", [(-500.0, -500.0), (5000.0, 60.0)])
def test_a_pose_outside_the_picture_changes_nothing(portrait, stranger, place, monkeypatch):
    from comfy_nodes.tracking import TrackedFace

    monkeypatch.setattr("comfy_nodes.swap._analyse", lambda *_: [{0: TrackedFace(0, Pose(*place, 30, 0))}])
    assert not changed(portrait, swap_one(portrait, stranger).frames[0]).any()


def test_a_clone_that_opencv_refuses_leaves_the_soft_mask_to_do_it(portrait, stranger, monkeypatch):
    import cv2

    def refuse(*_):
        raise cv2.error("seamlessClone refuses")

    monkeypatch.setattr(cv2, "seamlessClone", refuse)
    assert changed(portrait, swap_one(portrait, stranger).frames[0]).any()


def test_the_placed_face_does_not_flicker(portrait, stranger):
    """Five noisy frames of a still camera: the swapped cheeks change by no more than the noise around them."""
    random = np.random.default_rng(5)
    noisy = np.clip(portrait + random.normal(0, 2, (5, *portrait.shape)), 0, 255).astype(np.uint8)
    result = swap_faces(noisy, stranger, SwapOptions())
    assert result.swapped_frames == 5
    steps = np.abs(np.diff(result.frames.astype(int), axis=0))
    assert steps[:, 75:100, 145:170].mean() < np.abs(np.diff(noisy.astype(int), axis=0)).mean()


def test_float_images_keep_their_exact_values_where_nothing_was_swapped(portrait, stranger):
    image = (portrait[np.newaxis].astype(np.float32) + 0.3) / 256
    swapped, count = swap_image_batch(image, stranger[np.newaxis].astype(np.float32) / 255, SwapOptions())
    assert (count, swapped.dtype) == (1, np.float32)
    assert (swapped[0, 140:] == image[0, 140:]).all()
    assert np.abs(swapped - image).max() > 0.05


def test_a_float_batch_without_a_face_is_the_same_object(nobody, stranger):
    image = nobody[np.newaxis].astype(np.float32) / 255
    swapped, count = swap_image_batch(image, stranger, SwapOptions())
    assert swapped is image
    assert count == 0


@pytest.mark.parametrize(
    ("frames", "source"),
    [
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)),
        (np.zeros((1, 4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.uint8)),
        (np.zeros((0, 4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)),
        (np.zeros((1, 4, 4, 3), np.float32), np.zeros((4, 4, 3), np.uint8)),
        (np.zeros((1, 4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)),
    ],
)
def test_other_shapes_and_types_are_refused(frames, source):
    with pytest.raises(ValueError, match="expected"):
        swap_faces(frames, source, SwapOptions())


def sides_changed(before, after):
    """Per frame, whether the left and the right half differ."""
    differs = changed(before, after)
    return [
        (bool(left), bool(right))
        for left, right in zip(*(half.any(axis=(1, 2)) for half in halves(differs)), strict=True)
    ]


def halves(frames):
    middle = frames.shape[2] // 2
    return frames[:, :, :middle], frames[:, :, middle:]


LEFT, RIGHT, BOTH = (True, False), (False, True), (True, True)


@pytest.mark.parametrize(("reference", "side"), [(None, RIGHT), (9, LEFT)])
def test_a_person_is_followed_from_the_reference_frame_both_ways(crossing, portrait, reference, side):
    """Face 0 of the last frame is the left one, though the right one is face 0 in the first, and over the clip."""
    result = swap_faces(crossing, portrait, SwapOptions(reference_frame=reference))
    assert sides_changed(crossing, result.frames) == [side] * len(crossing)


def test_a_reference_beyond_the_end_is_the_last_frame(monkeypatch, couple):
    seen = []
    monkeypatch.setattr("comfy_nodes.swap.FaceTracker", lambda reference: seen.append(reference) or EmptyTracker())
    swap_faces(np.stack([couple] * 3), couple, SwapOptions(reference_frame=99))
    assert seen == [2]


class EmptyTracker:
    reference_faces = ()

    def __init__(self):
        self.count = 0

    def add(self, frame):
        self.count += 1

    def finish(self):
        return [[] for _ in range(self.count)]


def test_a_number_that_the_reference_frame_does_not_have_is_nobody(crossing, portrait):
    result = swap_faces(crossing, portrait, SwapOptions(input_faces_index="2", reference_frame=3))
    assert result.frames is crossing
    assert log_no_such_target(2) in result.log


def test_a_second_swap_numbers_the_faces_of_the_original(couple, stranger):
    """The first swap could make a face smaller than another one: here it hides it altogether."""
    first = couple.copy()
    first[:, 110:] = 128
    second = swap_faces(first[np.newaxis], stranger, SwapOptions(input_faces_index="1"), original=couple[np.newaxis])
    assert changed(first, second.frames[0])[:, :110].any()
    assert not changed(first, second.frames[0])[:, 110:].any()
    alone = swap_faces(first[np.newaxis], stranger, SwapOptions(input_faces_index="1"))
    assert log_no_such_target(1) in alone.log


def test_an_original_of_another_shape_is_refused(couple, portrait):
    with pytest.raises(ValueError, match="expected an original of shape"):
        swap_faces(couple[np.newaxis], portrait, SwapOptions(), original=portrait[np.newaxis])
