"""Lists and switches of a job, and what they do to a graph (``repeating.py``, with ``binding.py`` around it)."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from gateway.audit import Keeps, MediaFacts, MediaKind
from gateway.binding import as_dispatched, bind, check_parameters
from gateway.comfy.graph import allowed_values, parse_graph
from gateway.errors import InvalidInputError, TemplateError
from gateway.interfaces import Capabilities
from gateway.repeating import frame_at, wanted_roles
from gateway.template import load_template

ROOT = Path(__file__).parents[2]
REAL = json.loads((ROOT / "tests/data/object_info/real.json").read_text(encoding="utf-8"))
CLIP = MediaFacts(
    MediaKind.VIDEO, "video/mp4", ".mp4", 640, 360, 50, Fraction(25), 2.0, has_audio=True, video_codec="h264"
)
CODE = "identity_not_tracked"


def shipped(name):
    folder = ROOT / "workflows" / name
    return load_template(name, (folder / "template.toml").read_text(), (folder / "graph.json").read_text())


VIDEO, IMAGE, GIF = shipped("faceswap_video"), shipped("faceswap_image"), shipped("faceswap_gif")
CLASSES = {name: allowed_values(entry) for name, entry in REAL.items()}
#: ReActor as it is.
PLAIN = Capabilities(CLASSES, None, REAL)
#: As the embedded worker offers it.
TRACKING = Capabilities(
    {
        **CLASSES,
        "ReActorFaceSwap": {**CLASSES["ReActorFaceSwap"], "gateway_reference_frame": None, "gateway_original": None},
    },
    None,
    REAL,
)


def bound(template=IMAGE, capabilities=PLAIN, **parameters):
    checked = check_parameters(template, parameters)
    staged = {role: f"s/{role}.png" for role in wanted_roles(template, checked)}
    facts = {"target": CLIP}
    return bind(
        template, inputs=staged, parameters=checked, output_prefix="p/out", capabilities=capabilities, facts=facts
    )


def swaps(*indexes, **more):
    return [{"face_index": index, **more} for index in indexes]


def node(made, title):
    (found,) = (made.graph[node_id] for node_id, name in made.titles.items() if name == title)
    return found["inputs"]


def id_of(made, title):
    (found,) = (node_id for node_id, name in made.titles.items() if name == title)
    return found


def refused(**parameters):
    with pytest.raises(InvalidInputError) as caught:
        check_parameters(IMAGE, parameters)
    return caught.value


# ----------------------------------------------------------------------------------------------------------- the chain


def test_each_item_has_a_node_in_a_chain_and_a_photo_of_its_own():
    made = bound(face_swaps=swaps(2, 0, 1))
    parse_graph(made.graph)
    titles = ["Swap face", "Swap face 2", "Swap face 3"]
    assert [node(made, title)["input_faces_index"] for title in titles] == ["2", "0", "1"]
    assert [node(made, title)["source_faces_index"] for title in titles] == ["0", "0", "0"]
    assert [node(made, f"Face photo{end}")["image"] for end in ("", " 2", " 3")] == [
        "s/face_0.png",
        "s/face_1.png",
        "s/face_2.png",
    ]
    ids = [id_of(made, title) for title in titles]
    assert [node(made, title)["input_image"] for title in titles] == [
        [id_of(made, "Target image"), 0],
        [ids[0], 0],
        [ids[1], 0],
    ]
    assert [node(made, title)["source_image"] for title in titles] == [
        [id_of(made, f"Face photo{end}"), 0] for end in ("", " 2", " 3")
    ]
    assert node(made, "Result")["images"] == [ids[2], 0]
    assert made.swap_nodes == tuple(ids)


def test_what_a_job_sets_for_all_holds_for_every_copy():
    made = bound(face_swaps=swaps(0, 1), face_restore_visibility=0.4, swap_model="inswapper_128.onnx")
    for title in ("Swap face", "Swap face 2"):
        assert node(made, title)["face_restore_visibility"] == 0.4
        assert node(made, title)["swap_model"] == "inswapper_128.onnx"
        assert node(made, title)["face_boost"] == [id_of(made, "Face boost"), 0]


def test_a_list_of_one_is_the_graph_as_it_stands():
    made = bound(face_swaps=swaps(3))
    assert made.graph.keys() == IMAGE.graph.keys()
    assert node(made, "Swap face")["input_faces_index"] == "3"
    assert node(made, "Face photo")["image"] == "s/face_0.png"


def test_the_template_itself_stays_as_it_is():
    before = json.dumps(IMAGE.graph)
    bound(face_swaps=swaps(0, 1), enable_face_enhancer=False)
    assert json.dumps(IMAGE.graph) == before


def test_indexes_are_written_as_text_without_a_space():
    """ReActor reads them from a string, and drops a piece with a space in it."""
    assert node(bound(face_swaps=swaps(11)), "Swap face")["input_faces_index"] == "11"


def test_roles_are_one_photo_for_each_item_in_place_of_the_one():
    assert wanted_roles(IMAGE, {}).keys() == {"target", "face"}
    assert wanted_roles(IMAGE, {"face_swaps": swaps(0, 1)}).keys() == {"target", "face_0", "face_1"}


def test_a_photo_too_many_or_too_few_is_refused():
    checked = check_parameters(IMAGE, {"face_swaps": swaps(0, 1)})
    for roles in (("target", "face_0"), ("target", "face_0", "face_1", "face_2"), ("target", "face")):
        with pytest.raises(TemplateError):
            bind(
                IMAGE,
                inputs={role: f"s/{role}.png" for role in roles},
                parameters=checked,
                output_prefix="p/out",
                capabilities=PLAIN,
            )


def test_an_attempt_taken_up_has_the_nodes_that_were_sent():
    checked = check_parameters(IMAGE, {"face_swaps": swaps(0, 1), "enable_face_enhancer": False})
    sent, taken_up = bound(face_swaps=swaps(0, 1), enable_face_enhancer=False), as_dispatched(IMAGE, checked)
    assert taken_up.graph.keys() == sent.graph.keys()
    assert (taken_up.titles, taken_up.swap_nodes) == (sent.titles, sent.swap_nodes)
    assert parse_graph(taken_up.graph).keys() == parse_graph(sent.graph).keys()


# ------------------------------------------------------------------------------------------------------------ the list


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ([], "face_swaps"),
        ("0,1", "face_swaps"),
        ({"face_index": 0}, "face_swaps"),
        (swaps(*range(11)), "face_swaps"),
        ([0], "face_swaps[0]"),
        ([{"face_index": 0}, {}], "face_swaps[1].face_index"),
        ([{"face_index": "0"}], "face_swaps[0].face_index"),
        ([{"face_index": True}], "face_swaps[0].face_index"),
        ([{"face_index": -1}], "face_swaps[0].face_index"),
        ([{"face_index": 100}], "face_swaps[0].face_index"),
        ([{"face_index": 0, "image": "/etc/passwd"}], "face_swaps[0]"),
        ([{"face_index": 0, "enable_face_enhancer": 1}], "face_swaps[0].enable_face_enhancer"),
        ([{"face_index": 0}, {"face_index": 0, "enable_face_enhancer": False}], "face_swaps[1]"),
    ],
)
def test_a_list_that_is_none_is_refused_by_its_field(value, field):
    assert refused(face_swaps=value).field == field


def test_a_list_and_what_it_stands_for_exclude_each_other():
    assert refused(face_swaps=swaps(0), target_faces="1").field == "target_faces"
    assert check_parameters(IMAGE, {"face_swaps": swaps(0), "target_faces": "0"})


def test_one_face_may_be_named_at_two_times():
    """At another time the same number may be somebody else."""
    both = [{"face_index": 0, "frame_time_seconds": 0.5}, {"face_index": 0, "frame_time_seconds": 1.5}]
    assert len(check_parameters(VIDEO, {"face_swaps": both})["face_swaps"]) == 2


def test_checked_lists_are_checked_again_without_a_change():
    once = check_parameters(IMAGE, {"face_swaps": swaps(1, 0)})
    assert check_parameters(IMAGE, json.loads(json.dumps(once))) == {**once, "face_swaps": once["face_swaps"]}


# ------------------------------------------------------------------------------------------------------------ switches


def test_without_the_enhancer_nothing_is_boosted_or_restored():
    made = bound(enable_face_enhancer=False)
    assert node(made, "Swap face")["face_restore_model"] == "none"
    assert "face_boost" not in node(made, "Swap face")
    assert "Face boost" not in made.titles.values()
    assert made.substitutions == ()


def test_the_enhancer_can_be_left_out_for_one_face():
    made = bound(face_swaps=[{"face_index": 0, "enable_face_enhancer": False}, {"face_index": 1}])
    assert node(made, "Swap face")["face_restore_model"] == "none"
    assert "face_boost" not in node(made, "Swap face")
    assert node(made, "Swap face 2")["face_restore_model"] != "none"
    assert node(made, "Swap face 2")["face_boost"] == [id_of(made, "Face boost"), 0]


def test_without_sound_the_result_need_not_keep_it():
    silent, usual = bound(VIDEO, keep_audio=False), bound(VIDEO)
    assert "audio" not in node(silent, "Result")
    assert "audio" in node(usual, "Result")
    (released,), (kept,) = (made.outputs.values() for made in (silent, usual))
    assert kept.keeps - released.keeps == {Keeps.AUDIO}
    assert VIDEO.outputs["result"].keeps == kept.keeps


def test_an_upstream_that_does_not_take_what_a_switch_sets_lacks_it():
    lists = {**CLASSES["ReActorFaceSwap"], "face_restore_model": ("GFPGANv1.4.pth",)}
    with pytest.raises(TemplateError, match="'none' is not among the values"):
        bound(capabilities=Capabilities({**CLASSES, "ReActorFaceSwap": lists}, None, REAL))


# --------------------------------------------------------------------------------------------------- who follows whom


def test_a_time_becomes_a_frame_where_persons_are_followed():
    made = bound(VIDEO, TRACKING, reference_frame_time_seconds=1.0)
    assert node(made, "Swap face")["gateway_reference_frame"] == 25
    assert made.warnings == ()


@pytest.mark.parametrize("template", [VIDEO, GIF])
def test_where_nobody_is_followed_a_time_is_left_out_and_warned_of(template):
    made = bound(template, PLAIN, reference_frame_time_seconds=0)
    assert "gateway_reference_frame" not in node(made, "Swap face")
    assert [code for code, _ in made.warnings] == [CODE]
    assert bound(template, PLAIN).warnings == ()


def test_each_item_has_its_time_and_one_warning_is_enough():
    items = [{"face_index": 0, "frame_time_seconds": 0.4}, {"face_index": 0, "frame_time_seconds": 1.2}]
    made = bound(VIDEO, TRACKING, face_swaps=items)
    assert [node(made, title)["gateway_reference_frame"] for title in ("Swap face", "Swap face 2")] == [10, 30]
    assert [code for code, _ in bound(VIDEO, PLAIN, face_swaps=items).warnings] == [CODE]


def test_copies_number_the_faces_of_the_target_where_they_can():
    made = bound(VIDEO, TRACKING, face_swaps=swaps(0, 1))
    target = [id_of(made, "Target video"), 0]
    assert node(made, "Swap face 2")["gateway_original"] == target
    assert node(made, "Swap face 2")["input_image"] == [id_of(made, "Swap face"), 0]
    assert "gateway_original" not in node(bound(VIDEO, PLAIN, face_swaps=swaps(0, 1)), "Swap face 2")


def test_an_attempt_taken_up_still_warns_where_the_upstream_is_known():
    checked = check_parameters(VIDEO, {"reference_frame_time_seconds": 1})
    assert [code for code, _ in as_dispatched(VIDEO, checked, PLAIN).warnings] == [CODE]
    assert as_dispatched(VIDEO, checked, TRACKING).warnings == ()
    assert as_dispatched(VIDEO, checked).warnings == ()


@pytest.mark.parametrize(
    ("seconds", "frame"), [(0, 0), (0.039, 0), (0.04, 1), (1.9999, 49), (2.0, 49), (1e9, 49), (29 / 25, 29)]
)
def test_a_time_is_the_frame_that_is_shown_then(seconds, frame):
    assert frame_at(CLIP, seconds) == frame


def test_a_still_has_one_frame():
    assert frame_at(replace(CLIP, fps=None, frames=1), 3.0) == 0


def test_the_detector_of_a_swap_follows_from_its_model():
    preview = {**CLASSES["ReActorFaceSwap"], "swap_model": ("cpu-preview",)}
    assert bound().detector == "reactor"
    assert bound(capabilities=Capabilities({**CLASSES, "ReActorFaceSwap": preview}, None, REAL)).detector == "opencv"
