import sys
import types

import numpy as np
import pytest

from comfy_nodes import detectors
from comfy_nodes.nodes import GatewayFaceDetect, run_face_detect

PICTURE = np.zeros((100, 200, 3), np.uint8)
PICTURE[0, 0] = 255, 0, 0


def reactor_face(left, top, right, bottom):
    """As ReActor's Face: corners and five points, float32."""
    points = np.array([[left + 1, top + 1], [left + 2, top + 1], [0, 0], [0, 0], [0, 0]], np.float32)
    return types.SimpleNamespace(bbox=np.array([left, top, right, bottom], np.float32), kps=points)


@pytest.fixture
def reactor(monkeypatch):
    """ReActor's module as ComfyUI has it loaded, finding the faces that a test gives."""
    module = types.ModuleType("scripts.reactor_swapper")
    module.seen = []
    module.faces = []

    def analyze_faces(image, det_size=(640, 640)):
        module.seen.append(image)
        return module.faces

    module.analyze_faces = analyze_faces
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_without_reactor_there_are_the_cascades():
    assert detectors.detectors() == ["opencv"]
    assert GatewayFaceDetect.INPUT_TYPES()["required"]["detector"] == (["opencv"],)


def test_reactor_comes_first_where_it_is_loaded(reactor):
    assert detectors.detectors() == ["reactor", "opencv"]


def test_a_module_of_that_name_that_is_not_reactor_is_left_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "scripts.reactor_swapper", types.ModuleType("scripts.reactor_swapper"))
    assert detectors.detectors() == ["opencv"]


def test_reactor_is_asked_as_its_swap_asks_it(reactor):
    detectors.find(PICTURE, "reactor")
    (seen,) = reactor.seen
    assert seen[0, 0].tolist() == [0, 0, 255]
    assert seen.flags.c_contiguous


def test_faces_of_reactor_are_numbered_by_its_own_boxes_and_told_within_the_picture(reactor):
    """The left one reaches beyond the border: what shows of it is smaller, but ReActor's swap calls it face 0."""
    reactor.faces = [reactor_face(100, 10, 150, 70), reactor_face(-40, 20, 20, 80)]
    report = run_face_detect(PICTURE[np.newaxis], "reactor")
    first, second = report["faces"]
    assert report["detector"] == "reactor"
    assert [first[key] for key in ("index", "x", "y", "width", "height", "area")] == [0, 0, 20, 20, 60, 3600]
    assert [second[key] for key in ("index", "x", "y", "width", "height", "area")] == [1, 100, 10, 50, 60, 3000]
    assert second["left_eye"] == [101, 11]


def test_equal_faces_of_reactor_are_numbered_from_the_left(reactor):
    reactor.faces = [reactor_face(left, 10, left + 30, 40) for left in (120, 10, 60)]
    assert [face.x for face in detectors.find(PICTURE, "reactor")] == [10, 60, 120]


def test_a_box_outside_the_picture_is_left_out(reactor):
    reactor.faces = [reactor_face(210, 10, 250, 60)]
    assert detectors.find(PICTURE, "reactor") == []


def test_a_crowd_is_cut_off(reactor):
    reactor.faces = [reactor_face(0, 0, 10 + index / 100, 10) for index in range(150)]
    found = detectors.find(PICTURE, "reactor")
    assert len(found) == detectors.MAX_REPORTED
    assert found[0].width > found[-1].width


def test_reactor_that_is_not_there_is_told_apart_from_no_faces():
    with pytest.raises(RuntimeError, match="not loaded"):
        detectors.find(PICTURE, "reactor")
