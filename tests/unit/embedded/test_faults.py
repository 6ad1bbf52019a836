from __future__ import annotations

import pytest

from gateway.embedded.faults import Faults, parse_faults


def faults(text: str) -> Faults:
    return Faults(parse_faults(text))


@pytest.mark.parametrize("text", ["nope", "hang:frame=1", "silent-socket:x=1"])
def test_unknown_fault_or_key_is_refused(text):
    with pytest.raises(ValueError, match="fault"):
        parse_faults(text)


def test_nothing_goes_wrong_unasked():
    none = faults("")
    assert not none.silences(9)
    assert not none.drops(9)
    assert not none.hangs("X")
    assert not none.runs_out_of_memory("ReActorFaceSwap")
    assert not none.fails_request("/prompt")
    assert not none.loses_files(is_fresh=False)
    assert not none.orphans(9)
    assert not none.denies_prompt()
    assert not none.faults_prompt()
    assert not none.is_deaf()
    assert none.block_seconds() == none.reply_delay_seconds() == 0
    assert none.upload_delay_seconds() == 0
    none.crash_if_due("X", 99)


def test_first_requests_to_a_path_fail_then_no_more():
    failing = faults("http-500:n=2:path=/prompt")
    assert [failing.fails_request(path) for path in ("/queue", "/prompt", "/prompt", "/prompt")] == [
        False,
        True,
        True,
        False,
    ]


def test_socket_faults_wait_for_their_frame():
    assert [faults("silent-socket:after=2").silences(sent) for sent in (0, 1, 2, 3)] == [False, False, True, True]
    dropping = faults("drop-socket:after=2")
    assert [dropping.drops(sent) for sent in (1, 2, 2)] == [False, True, False]
    orphaning = faults("orphan-socket:after=2")
    assert [orphaning.orphans(sent) for sent in (1, 2, 2)] == [False, True, False]


def test_replies_go_wrong_once_or_as_often_as_said():
    late = faults("late-reply:seconds=3")
    assert [late.reply_delay_seconds() for _ in range(2)] == [3, 0]
    lying = faults("false-500:n=2,partial")
    assert [lying.denies_prompt() for _ in range(3)] == [True, True, False]
    assert [lying.faults_prompt() for _ in range(2)] == [True, False]


def test_sending_stands_still_before_one_frame():
    blocked = faults("blocked-loop:after=1:seconds=9")
    assert [blocked.block_seconds() for _ in range(3)] == [0, 9, 0]


def test_fresh_files_are_lost_only_when_asked_for():
    assert not faults("lost-file").loses_files(is_fresh=True)
    once = faults("lost-file:fresh=1:n=1")
    assert [once.loses_files(is_fresh=True) for _ in range(2)] == [True, False]


def test_memory_runs_out_for_swaps_or_the_named_class():
    assert faults("oom").runs_out_of_memory("ReActorFaceSwapOpt")
    assert not faults("oom").runs_out_of_memory("SaveImage")
    once = faults("oom:node=SaveImage:n=1")
    assert [once.runs_out_of_memory("SaveImage") for _ in range(2)] == [True, False]


def test_crash_waits_for_its_frame_and_happens_once_per_directory(tmp_path, monkeypatch):
    exits = []
    monkeypatch.setattr("gateway.embedded.faults.os._exit", exits.append)
    for _ in range(2):  # the second one is the restarted worker
        crashing = Faults(parse_faults("crash:frame=3:node=X:once=1"), tmp_path)
        for class_type, value in [("X", 2), ("Y", 3), ("X", 3)]:
            crashing.crash_if_due(class_type, value)
    assert exits == [70]
