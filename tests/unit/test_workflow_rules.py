"""Which classes clients' own graphs may use (``workflow_rules.py``)."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gateway import strictjson
from gateway import workflow_reading as reading
from gateway.settings import from_mapping
from gateway.workflow_rules import DEFAULT_DENY, DENIED_BY_REASON, SHIPPED, SWAPS_FACES, NodeRules, swaps_faces
from gateway.workflow_values import Reason

ROOT = Path(__file__).parents[2]
CLASSES = json.loads((ROOT / "tests/data/object_info/classes.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs/workflows.md").read_text(encoding="utf-8")


def test_of_the_classes_of_a_real_upstream_exactly_these_are_denied():
    denied = {name for name in CLASSES if not NodeRules().permits(name)}
    assert denied == {
        "LoadImageSetFromFolderNode",
        "LoadImageTextSetFromFolderNode",
        "ReActorBuildFaceModel",
        "ReActorSaveFaceModel",
        "VHS_BatchManager",
        "VHS_LoadAudio",
        "VHS_LoadImagePath",
        "VHS_LoadImages",
        "VHS_LoadImagesPath",
        "VHS_LoadVideoFFmpegPath",
        "VHS_LoadVideoPath",
        "VHS_SelectLatest",
    }


@pytest.mark.parametrize(
    "name",
    [
        "LoadImageFromURL",
        "Load Image From Url (mtb)",
        "LoadImageByUrl //Browser",
        "PythonCodeNode",
        "Python Interpreter Node",
        "Read JSON file [Crystools]",
        "LoadText|pysssss",
        "Load Image Batch",
        "LoadImagesFromFolderKJ",
        "AnyNodeLocal",
        "KY_Eval_Python_Expr",
        "CivitAI_Lora_Loader",
        "LoadPromptsFromDir //Inspire",
        "SendDiscordWebhook",
    ],
)
def test_known_kinds_of_third_parties_are_denied(name):
    assert not NodeRules().permits(name)


@pytest.mark.parametrize(
    "name",
    [
        "KSampler",
        "Power Lora Loader (rgthree)",
        "MathExpression|pysssss",
        "ETN_LoadImageBase64",
        "easy fullLoader",
        "CR Prompt Text",
        "Text Concatenate",
        "ImpactSwitch",
        "UltralyticsDetectorProvider",
        "LoadImageMask",
        "LoadImageOutput",
        "GetImageSize+",
        "readjson",
    ],
)
def test_classes_that_do_no_such_thing_are_not(name):
    assert NodeRules().permits(name)


def test_upper_and_lower_case_are_apart_as_they_are_in_comfyui():
    rules = NodeRules(frozenset({"Load*"}))
    assert not rules.permits("LoadImage")
    assert rules.permits("loadImage")


def test_pattern_stands_for_the_whole_name():
    rules = NodeRules(frozenset({"Load", "Sav?"}))
    assert rules.permits("LoadImage")
    assert rules.permits("XLoad")
    assert not rules.permits("Save")
    assert rules.permits("Load\n")


def test_only_what_is_allowed_may_be_used_and_what_is_denied_not_even_then():
    rules = NodeRules(frozenset({"SaveSecret*"}), frozenset({"KSampler", "Save*"}))
    assert [rules.permits(name) for name in ("KSampler", "SaveImage", "SaveSecretly", "LoadImage")] == [
        True,
        True,
        False,
        False,
    ]


def test_no_list_lets_a_client_say_where_results_are_uploaded():
    for rules in (NodeRules(frozenset(), None), NodeRules(frozenset(), frozenset({"*"}))):
        assert not rules.permits("GatewayUploadOutput")
        assert rules.permits("GatewayFaceDetect")


def test_rules_of_a_key_take_away_and_never_give():
    gateways = NodeRules(frozenset({"Shell*"}), frozenset({"KSampler*", "Save*", "Shell*"}))
    names = ("KSampler", "KSamplerAdvanced", "SaveImage", "LoadImage", "ShellCommand")

    def permitted(deny, allow):
        rules = gateways.narrowed(NodeRules(frozenset(deny), None if allow is None else frozenset(allow)))
        return [name for name in names if rules.permits(name)]

    assert permitted((), None) == ["KSampler", "KSamplerAdvanced", "SaveImage"]
    assert permitted(("Save*",), None) == ["KSampler", "KSamplerAdvanced"]
    assert permitted((), ("KSampler", "Load*", "Shell*")) == ["KSampler"]
    assert permitted(("KSampler",), ("KSampler*",)) == ["KSamplerAdvanced"]
    assert permitted(("*",), ("*",)) == []


def test_without_rules_of_its_own_a_key_has_those_of_the_gateway():
    gateways = NodeRules()
    assert gateways.narrowed(None) is gateways
    assert gateways.narrowed(NodeRules(frozenset({"Mine"}))) != gateways
    assert gateways == NodeRules()


def test_no_pattern_denies_nothing():
    assert NodeRules(frozenset()).permits("VHS_LoadVideoPath")


def test_settings_make_the_rules():
    plain = from_mapping({})
    assert NodeRules.of(plain.nodes_deny, plain.nodes_allow) == NodeRules(DEFAULT_DENY, None)
    more = from_mapping({"nodes_deny": "default, Mine*", "nodes_allow": "KSampler, Save*"})
    assert NodeRules.of(more.nodes_deny, more.nodes_allow) == NodeRules(
        DEFAULT_DENY | {"Mine*"}, frozenset({"KSampler", "Save*"})
    )
    own = from_mapping({"nodes_deny": "Mine*"})
    assert NodeRules.of(own.nodes_deny, ()) == NodeRules(frozenset({"Mine*"}))
    assert NodeRules.of(from_mapping({"nodes_deny": ""}).nodes_deny, ()) == NodeRules(frozenset())


def test_the_page_lists_the_denied_that_ship():
    rows = dict(re.findall(r"^\| ([a-z][\w ]+) \| (`.*`) \|$", PAGE.partition("## Classes")[2], re.MULTILINE))
    shown = {
        why: tuple(each.replace("&#124;", "|") for each in re.findall(r"`([^`]+)`", row)) for why, row in rows.items()
    }
    assert shown == DENIED_BY_REASON


def test_the_page_lists_every_reason_and_limit():
    reasons = PAGE.partition("## Reasons")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", reasons, re.MULTILINE)) == set(Reason)
    limits = (
        reading.MAX_NODES,
        reading.MAX_CHAIN,
        reading.MAX_VALUES,
        strictjson.MAX_DEPTH,
        reading.MAX_STRING_CHARS,
        reading.MAX_TEXT_CHARS,
        reading.MAX_NAME_CHARS,
        strictjson.MAX_INT_DIGITS,
    )
    table = PAGE.partition("| | At most |")[2].partition("\n\n")[0]
    assert [int(row.replace(" ", "")) for row in re.findall(r"^\| \w.*? \| ([\d ]+\d)", table, re.MULTILINE)] == list(
        limits
    )


# ------------------------------------------------------------------------------------------------- swaps of faces


@pytest.mark.parametrize(
    "name",
    [
        "ReActorFaceSwap",
        "ReActorFaceSwapOpt",
        "GatewayCpuFaceSwap",
        "Face Swap (mtb)",
        "DeepFuzeFaceSwap",
        "RoopImproved",
    ],
)
def test_classes_that_swap_faces_are_known_by_their_names(name):
    assert swaps_faces(["LoadImage", name], [SHIPPED])


@pytest.mark.parametrize("name", ["LoadImage", "ReActorFaceBoost", "ReActorRestoreFace", "InstantID", "SwapAxes"])
def test_others_are_not_taken_for_such(name):
    assert not swaps_faces([name], [SHIPPED])


def test_the_list_is_the_operators():
    assert swaps_faces(["ApplyInstantID"], [SHIPPED, "*instantid*"])
    assert swaps_faces(["ReActorFaceSwap"], [SHIPPED, "*instantid*"])
    assert not swaps_faces(["ReActorFaceSwap"], ["*InstantID*"])
    assert not swaps_faces(["ReActorFaceSwap"], [])


def test_the_page_lists_the_swaps_that_ship():
    section = (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8").partition("## Consent")[2]
    listed = re.findall(r"`([^`]+)`", section.partition("stands for")[2].partition("Classes that make")[0])
    assert set(listed) == SWAPS_FACES
