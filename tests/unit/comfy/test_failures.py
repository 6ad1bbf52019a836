from __future__ import annotations

import pytest

from gateway.comfy.answers import ErrorReport, HistoryEntry, NodeFault
from gateway.comfy.failures import names_missing_file, outcome_of
from gateway.comfy.messages import Failed, Interrupted, NodeOutput, OutputFile, Succeeded


def failed(kind, message, node_class="Swap"):
    return outcome_of(HistoryEntry("p", False, False, ErrorReport("3", node_class, kind, message), {}))


@pytest.mark.parametrize(
    ("kind", "message", "code"),
    [
        ("torch.OutOfMemoryError", "Allocation on device 0 would exceed", "out_of_memory"),
        ("torch.cuda.OutOfMemoryError", "CUDA out of memory. Tried to allocate", "out_of_memory"),
        ("MemoryError", "", "out_of_memory"),
        ("numpy._core._exceptions._ArrayMemoryError", "Unable to allocate 9 GiB", "out_of_memory"),
        ("RuntimeError", "[enforce fail] DefaultCPUAllocator: can't allocate memory", "out_of_memory"),
        ("PIL.UnidentifiedImageError", "cannot identify image file '/srv/x'", "unreadable_input"),
        ("ValueError", "/srv/in/x.mp4 could not be loaded with cv.", "unreadable_input"),
        ("RuntimeError", "No frames generated", "unreadable_input"),
        ("ModuleNotFoundError", "No module named 'pi_heif'", "unreadable_input"),
        ("urllib.error.URLError", "<urlopen error [Errno -2]>", "node_failed"),
        ("EOFError", "Ran out of input", "node_failed"),
        ("ValueError", "anything at /srv/secret", "node_failed"),
    ],
)
def test_exceptions_become_codes_and_sentences_of_ours(kind, message, code):
    outcome = failed(kind, message)
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.node_id, outcome.node_class) == (code, "3", "Swap")
    assert "/srv" not in outcome.message
    assert message in outcome.detail


def test_missing_weights_have_a_sentence_of_their_own():
    assert "model file" in failed("urllib.error.URLError", "x").message


def test_strange_class_names_are_not_repeated():
    assert failed("ValueError", "x", node_class="<b>/srv").message == "A node of the workflow failed on the upstream."
    assert "Swap" in failed("ValueError", "x").message


def test_interrupt_is_no_failure():
    assert outcome_of(HistoryEntry("p", False, True, None, {})) == Interrupted("p")


def test_entry_without_a_status_fails():
    assert isinstance(outcome_of(HistoryEntry("p", False, False, None, {})), Failed)


def test_success_keeps_its_outputs():
    outputs = {"9": NodeOutput("p", "9", (OutputFile("x.mp4", "", "output", "gifs"),))}
    assert outcome_of(HistoryEntry("p", True, False, None, outputs)) == Succeeded("p", outputs)


@pytest.mark.parametrize(
    "output",
    [
        NodeOutput("p", "9", (), {"unfinished_batch": [True]}),
        NodeOutput("p", "9", (OutputFile("x_00001.%03d.png", "", "output", "gifs"),)),
    ],
)
def test_success_without_a_file_to_fetch_is_a_failure(output):
    outcome = outcome_of(HistoryEntry("p", True, False, None, {"9": output}))
    assert isinstance(outcome, Failed)
    assert outcome.code == "graph_rejected"
    assert "not offered" in outcome.message


def test_only_missing_files_count_as_missing_files():
    gone = NodeFault("1", "LoadImage", "custom_validation_failed", None, "m: image - Invalid image file: x.png")
    other = NodeFault("3", "Swap", "value_not_in_list", "model", "m: d")
    assert names_missing_file((gone,))
    assert not names_missing_file((gone, other))
    assert not names_missing_file(())
