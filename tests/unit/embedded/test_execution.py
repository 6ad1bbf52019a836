from __future__ import annotations

import numpy as np
from PIL import Image

from gateway.embedded.quirks import PROFILES, Profile

COUNTING = {"5": {"class_type": "Counting", "inputs": {"text": "a"}}}


def test_image_prompt_makes_the_frames_of_a_real_server_in_their_order(make_bench, image_graph):
    bench = make_bench()
    entry = bench.run(image_graph, ["9"])
    node = ["progress_state", "executing", "progress_state"]
    assert bench.kinds() == [
        "execution_start",
        "execution_cached",
        *node,
        *node,
        "progress_state",
        "executing",
        "executed",
        "progress_state",
        "execution_success",
    ]
    assert bench.executing() == ["1", "3", "9"]
    assert entry["status"]["status_str"] == "success"
    assert [kind for kind, _ in entry["status"]["messages"]] == [
        "execution_start",
        "execution_cached",
        "execution_success",
    ]
    assert entry["outputs"] == {"9": {"images": [{"filename": "out_00001_.png", "subfolder": "job", "type": "output"}]}}
    assert entry["meta"]["9"] == {"node_id": "9", "display_node": "9", "parent_node": None, "real_node_id": "9"}


def test_image_prompt_really_inverts_the_picture(make_bench, image_graph, folders):
    make_bench().run(image_graph, ["9"])
    with (
        Image.open(folders.directory / "input/pic.png") as before,
        Image.open(folders.directory / "output/job/out_00001_.png") as after,
    ):
        assert np.array_equal(np.asarray(after), 255 - np.asarray(before))


def test_independent_nodes_come_in_comfyui_order_last_linked_first(make_bench, picture):
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": picture}},
        "2": {"class_type": "LoadImage", "inputs": {"image": picture + " [input]"}},
        "3": {
            "class_type": "GatewayCpuFaceSwap",
            "inputs": {"input_image": ["1", 0], "source_image": ["2", 0]},
        },
        "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "o"}},
    }
    bench = make_bench(faults="oom:node=GatewayCpuFaceSwap")
    bench.run(graph, ["9"])
    assert bench.executing() == ["2", "1", "3"]


def test_progress_state_is_cumulative_and_starts_at_zero_of_one(make_bench, image_graph):
    bench = make_bench()
    bench.run(image_graph, ["9"])
    states = [data["nodes"] for kind, data in bench.frames if kind == "progress_state"]
    assert [sorted(nodes) for nodes in states] == [
        ["1"],
        ["1"],
        ["1", "3"],
        ["1", "3"],
        ["1", "3", "9"],
        ["1", "3", "9"],
    ]
    assert (states[0]["1"]["value"], states[0]["1"]["max"], states[0]["1"]["state"]) == (0.0, 1.0, "running")
    assert states[1]["1"]["state"] == "finished"


def test_each_tick_makes_two_frames_with_a_zero_tick_between_passes(make_bench, count_node):
    bench = make_bench(nodes=(count_node(2, 3),))
    bench.run(COUNTING, ["5"])
    assert bench.ticks() == [1, 2, 3, 0, 1, 2, 3, 0]
    for index, (kind, _) in enumerate(bench.frames):
        if kind == "progress":
            assert bench.frames[index - 1][0] == "progress_state"


def test_newer_servers_throttle_ticks_and_send_no_zero(make_bench, count_node):
    seconds = iter(range(10_000))
    bench = make_bench(nodes=(count_node(2, 100),), quirks=PROFILES[Profile.NEWER], clock=lambda: next(seconds) / 50)
    bench.run(COUNTING, ["5"])
    ticks = bench.ticks()
    assert 0 not in ticks
    assert ticks.count(1) == ticks.count(100) == 2
    assert 10 < len(ticks) < 100


def test_same_prompt_again_is_cached_and_names_the_old_file(make_bench, image_graph, folders):
    bench = make_bench()
    first = bench.run(image_graph, ["9"])
    second = bench.run(image_graph, ["9"])
    assert bench.kinds() == [
        "execution_start",
        "execution_cached",
        "executed",
        "progress_state",
        "execution_success",
    ]
    assert bench.only("execution_cached")["nodes"] == ["1", "3", "9"]
    assert second["outputs"] == first["outputs"]
    assert folders.names("output", "image") == []
    assert len(list((folders.directory / "output/job").iterdir())) == 1


def test_other_prefix_runs_the_save_node_only(make_bench, image_graph):
    bench = make_bench()
    bench.run(image_graph, ["9"])
    image_graph["9"]["inputs"]["filename_prefix"] = "job/other"
    bench.run(image_graph, ["9"])
    assert bench.executing() == ["9"]


def test_other_bytes_under_the_same_name_invalidate_the_cache(make_bench, image_graph, folders):
    bench = make_bench()
    bench.run(image_graph, ["9"])
    Image.new("RGB", (4, 4), "red").save(folders.directory / "input/pic.png")
    bench.run(image_graph, ["9"])
    assert bench.executing() == ["1", "3", "9"]


def test_cache_drops_what_the_last_prompt_did_not_use(make_bench, image_graph, count_node):
    bench = make_bench(nodes=(count_node(1, 1),))
    bench.run(image_graph, ["9"])
    bench.run(COUNTING, ["5"])
    bench.run(image_graph, ["9"])
    assert bench.only("execution_cached")["nodes"] == []


def test_results_larger_than_the_limit_are_not_kept_after_the_prompt(make_bench, image_graph):
    # One picture is 8 * 6 * 3 = 144 bytes, its mask 64 * 64: together over the limit, one inverted picture is not.
    bench = make_bench(image_limit_bytes=150)
    bench.run(image_graph, ["9"])
    bench.run(image_graph, ["9"])
    assert bench.only("execution_cached")["nodes"] == ["3", "9"]


def test_interrupt_ends_at_the_next_tick_and_keeps_no_output(make_bench, count_node):
    bench = make_bench()
    node = count_node(1, 10, lambda value: value == 3 and prompt.interrupted.set())
    bench.executor.registry = {**bench.executor.registry, node.name: node}
    prompt = bench.prompt(COUNTING, ["5"])
    entry = bench.run(COUNTING, ["5"], prompt)
    assert bench.ticks() == [1, 2, 3]
    assert bench.only("execution_interrupted") == {
        "prompt_id": prompt.prompt_id,
        "node_id": "5",
        "node_type": "Counting",
        "executed": [],
        "timestamp": 1000,
    }
    assert entry["status"]["status_str"] == "error"
    assert entry["outputs"] == {}


def test_error_names_node_type_and_inputs_as_comfyui_does(make_bench, image_graph, folders):
    (folders.directory / "input/pic.png").write_bytes(b"hello")
    bench = make_bench()
    entry = bench.run(image_graph, ["9"])
    error = bench.only("execution_error")
    assert (error["node_id"], error["node_type"]) == ("1", "LoadImage")
    assert error["exception_type"] == "PIL.UnidentifiedImageError"
    assert error["exception_message"].endswith("\n")
    assert error["current_inputs"] == {"image": ["pic.png"]}
    assert error["traceback"]
    assert entry["status"]["completed"] is False
    assert bench.kinds()[-1] == "execution_error"


def test_batch_over_the_limit_is_an_out_of_memory_error(make_bench, image_graph):
    bench = make_bench(image_limit_bytes=143)
    bench.run(image_graph, ["9"])
    error = bench.only("execution_error")
    assert error["exception_type"] == "torch.OutOfMemoryError"
    assert "1 frames of 8x6 take 144 bytes, allowed are 143" in error["exception_message"]
    assert "TIPS" in error["exception_message"]


def test_lost_file_fault_deletes_what_the_cache_names(make_bench, image_graph, folders):
    bench = make_bench(faults="lost-file")
    first = bench.run(image_graph, ["9"])
    assert (folders.directory / "output/job/out_00001_.png").exists()
    second = bench.run(image_graph, ["9"])
    assert second["outputs"] == first["outputs"]
    assert not (folders.directory / "output/job/out_00001_.png").exists()


def test_saved_picture_holds_the_prompt_as_comfyui_s_do(make_bench, image_graph, folders):
    make_bench().run(image_graph, ["9"])
    with Image.open(folders.directory / "output/job/out_00001_.png") as saved:
        assert '"ImageInvert"' in saved.text["prompt"]


def test_prefix_outside_the_output_folder_is_refused(make_bench, image_graph, folders):
    image_graph["9"]["inputs"]["filename_prefix"] = "../../x"
    bench = make_bench()
    bench.run(image_graph, ["9"])
    assert "outside the output folder" in bench.only("execution_error")["exception_message"]
    assert list(folders.directory.parent.glob("x*")) == []


def test_no_face_is_said_in_the_log_and_changes_nothing(make_bench, picture, folders):
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": picture}},
        "3": {
            "class_type": "ReActorFaceSwap",
            "inputs": {"enabled": True, "input_image": ["1", 0], "source_image": ["1", 0]},
        },
        "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "o"}},
    }
    bench = make_bench()
    entry = bench.run(graph, ["9"])
    assert entry["status"]["status_str"] == "success"
    assert any(line.startswith("[ReActor] ") and "face" in line for line in bench.log)
    with (
        Image.open(folders.directory / "input/pic.png") as a,
        Image.open(folders.directory / "output/o_00001_.png") as b,
    ):
        assert np.array_equal(np.asarray(a), np.asarray(b))
