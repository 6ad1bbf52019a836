import json
from pathlib import Path

import numpy as np
import pytest

from comfy_nodes import reactor_nodes as nodes
from comfy_nodes.options import SwapOptions

# Recorded from ComfyUI a125cd84 with ReActor 6ad6b35.
OBJECT_INFO = Path(__file__).parents[2] / "data" / "object_info" / "reactor.json"


@pytest.fixture(autouse=True)
def _detection_is_asked_once(monkeypatch, detected_once):
    monkeypatch.setattr("comfy_nodes.swap.detect_faces", detected_once)


def run(**inputs):
    lines = []
    output = nodes.run_face_swap(inputs, log=lines.append)
    assert output.log == tuple(lines)
    return output


@pytest.mark.parametrize("class_name", list(nodes.REACTOR_INPUTS))
def test_tables_are_complete(class_name):
    assert set(nodes.REACTOR_INPUTS[class_name]) <= {"required", "optional", "hidden"}
    assert len(nodes.RETURN_TYPES[class_name]) == len(nodes.RETURN_NAMES[class_name])
    assert class_name in nodes.DISPLAY_NAMES
    json.dumps(nodes.REACTOR_INPUTS[class_name])


@pytest.mark.parametrize("class_name", list(nodes.REACTOR_INPUTS))
def test_tables_are_what_a_real_server_reports_but_for_model_files(class_name):
    real = json.loads(OBJECT_INFO.read_text())[class_name]
    models = {"swap_model", "face_restore_model", "boost_model"}
    ours = json.loads(json.dumps(nodes.REACTOR_INPUTS[class_name]))
    assert set(ours) == set(real["input"])
    for group, inputs in ours.items():
        assert list(inputs) == list(real["input"][group])
        for name, spec in inputs.items():
            if name not in models:
                assert spec == real["input"][group][name]
    assert list(nodes.RETURN_TYPES[class_name]) == real["output"]
    assert list(nodes.RETURN_NAMES[class_name]) == real["output_name"]
    assert nodes.DISPLAY_NAMES[class_name] == real["display_name"]
    assert real["category"] == nodes.CATEGORY


def test_a_swap_fills_all_slots(portrait, stranger):
    image = portrait[np.newaxis]
    output = run(input_image=image, source_image=stranger[np.newaxis], input_faces_index="0", source_faces_index="0")
    assert output.swapped_frames == 1
    assert output.swapped_image.dtype == np.uint8
    assert output.original_image is image
    assert (output.swapped_image != image).any()


def test_switched_off_it_hands_its_input_on(portrait, stranger):
    image = portrait[np.newaxis]
    output = run(enabled=False, input_image=image, source_image=stranger)
    assert output.swapped_image is image
    assert output.log == ()


@pytest.mark.parametrize(
    ("face_model", "line"), [(None, nodes.LOG_NO_SOURCE), (object(), nodes.LOG_FACE_MODEL_IGNORED)]
)
def test_without_a_photo_it_hands_its_input_on_and_says_why(portrait, face_model, line):
    image = portrait[np.newaxis]
    output = run(input_image=image, face_model=face_model)
    assert output.swapped_image is image
    assert output.log == (line,)


def test_what_options_say_wins_and_does_not_stick(monkeypatch, portrait):
    given = []

    def remember(image, _source, options, **_):
        given.append(options)
        return image, 0

    monkeypatch.setattr("comfy_nodes.swap.swap_image_batch", remember)
    (options,) = nodes.run_options(input_faces_index="2", source_faces_index="1", input_faces_order="left-right")
    run(input_image=portrait, source_image=portrait, input_faces_index="0", options=options)
    run(input_image=portrait, source_image=portrait)
    assert given == [SwapOptions("2", "1", "left-right"), SwapOptions()]


@pytest.mark.parametrize(
    ("extra", "line"),
    [
        ({"face_boost": {"enabled": True}}, nodes.LOG_BOOST_IGNORED),
        ({"detect_gender_input": "female", "detect_gender_source": "no"}, nodes.LOG_GENDER_IGNORED),
        ({"options": {"detect_gender_source": "male"}}, nodes.LOG_GENDER_IGNORED),
    ],
)
def test_what_the_preview_cannot_do_is_said(nobody, extra, line):
    inputs = {"input_image": nobody[np.newaxis], "source_image": nobody}
    assert line in run(**inputs, **extra).log
    assert line not in run(**inputs, face_boost={"enabled": False}, detect_gender_input="no").log
