from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.workflow_rules import SHIPPED, SWAPS_FACES, swaps_faces

ROOT = Path(__file__).parents[2]


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


def test_the_page_lists_what_ships():
    section = (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8").partition("## Consent")[2]
    listed = re.findall(r"`([^`]+)`", section.partition("stands for")[2].partition("Classes that make")[0])
    assert set(listed) == SWAPS_FACES
