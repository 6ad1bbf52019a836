"""The bar never lies: it never falls, never runs ahead of what is known, and ends only at the end."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.comfy.messages import (
    Interrupted,
    Lost,
    NodeFinished,
    NodeOutput,
    NodeProgress,
    NodesCached,
    NodeStarted,
    PromptStarted,
    Succeeded,
)
from gateway.comfy.progress import (
    LEAST_RUN_TO,
    MOST_RUN_TO,
    PREVIEW_PASSES,
    RUN_FROM,
    RUN_TO,
    Tracker,
    plan_for,
    run_to,
    seconds_left,
    whole_job,
)

P = "prompt"
GRAPH = {
    "8": {"class_type": "VHS_LoadVideo", "inputs": {"video": "v.mp4"}},
    "10": {"class_type": "LoadImage", "inputs": {"image": "f.png"}},
    "3": {
        "class_type": "ReActorFaceSwap",
        "inputs": {"input_image": ["8", 0], "source_image": ["10", 0], "face_restore_model": "none"},
    },
    "9": {"class_type": "VHS_VideoCombine", "inputs": {"images": ["3", 0], "audio": ["8", 2]}},
}


def ticks(values, maximum=24, node="3"):
    return [NodeProgress(P, node, value, maximum) for value in values]


def run(messages, graph=GRAPH, frames=24):
    tracker = Tracker(plan_for(graph, frames=frames), 0.0)
    for message in messages:
        tracker.feed(message, 0.0)
    return tracker.snapshot()


def test_shares_sum_to_one_and_the_swap_has_most() -> None:
    plan = plan_for(GRAPH, frames=24)
    assert sum(plan.shares.values()) == pytest.approx(1.0)
    assert plan.shares["3"] > 0.5
    assert plan.parents["9"] == {"3", "8"}


def test_three_passes_share_the_swap_node_evenly() -> None:
    share = plan_for(GRAPH, frames=24).shares["3"]
    before = run([NodeStarted(P, "3")]).fraction
    for passes_done in (1, 2, 3):
        messages = [NodeStarted(P, "3")]
        for _ in range(passes_done):
            messages += ticks([*range(1, 25), 0])
        snapshot = run(messages)
        assert snapshot.fraction == pytest.approx(before + share * passes_done / 3)
        assert (snapshot.pass_number, snapshot.passes) == (passes_done, 3)


def test_zero_tick_after_the_last_pass_begins_no_pass() -> None:
    snapshot = run([NodeStarted(P, "3"), *ticks([1, 24, 0])])
    assert snapshot.pass_number == 1


def test_throttled_server_without_zero_tick_shows_a_pass_by_the_falling_value() -> None:
    snapshot = run([NodeStarted(P, "3"), *ticks([1, 9, 20, 24, 1, 11, 24, 3])])
    assert (snapshot.pass_number, snapshot.step) == (3, 3)


def test_unforeseen_pass_makes_the_bar_wait() -> None:
    passes = [value for _ in range(3) for value in (*range(1, 25), 0)]
    full = run([NodeStarted(P, "3"), *ticks(passes)])
    more = run([NodeStarted(P, "3"), *ticks([*passes, 1, 2, 3])])
    assert more.fraction == full.fraction
    assert (more.pass_number, more.passes) == (4, 4)


def test_restore_model_adds_a_pass_unless_an_enabled_boost_takes_its_place() -> None:
    swap = GRAPH["3"]["inputs"] | {"face_restore_model": "GFPGANv1.4.pth"}

    def passes(boost):  # how many
        graph = GRAPH | {"3": {"class_type": "ReActorFaceSwap", "inputs": swap}}
        if boost is not None:
            graph["3"]["inputs"]["face_boost"] = ["11", 0]
            graph["11"] = {"class_type": "ReActorFaceBoost", "inputs": boost}
        return len(plan_for(graph, frames=24).passes["3"])

    assert passes(None) == 4
    assert passes({"enabled": True, "restore_with_main_after": False}) == 3
    assert passes({"enabled": True, "restore_with_main_after": True}) == 4
    assert passes({"enabled": False, "restore_with_main_after": False}) == 4
    assert plan_for(GRAPH, frames=1).passes["3"] == (1.0,)


def test_passes_of_the_preview_engine_share_the_work_as_measured() -> None:
    swap = GRAPH["3"]["inputs"] | {"swap_model": "cpu-preview"}
    plan = plan_for(GRAPH | {"3": {"class_type": "ReActorFaceSwap", "inputs": swap}}, frames=24)
    assert plan.passes["3"] == PREVIEW_PASSES
    assert sum(PREVIEW_PASSES) == pytest.approx(1.0)


def test_start_of_a_node_proves_its_ancestors_done() -> None:
    snapshot = run([NodeStarted(P, "9")])
    assert (snapshot.nodes_done, snapshot.nodes_total, snapshot.node_class) == (3, 4, "VHS_VideoCombine")


def test_cached_nodes_count_as_done() -> None:
    assert run([NodesCached(P, ("8", "10"))]).nodes_done == 2


def test_success_is_the_whole_bar_of_the_prompt_but_not_of_the_job() -> None:
    snapshot = run([Succeeded(P, {})])
    assert snapshot.fraction == pytest.approx(1.0)
    assert whole_job(snapshot.fraction) == pytest.approx(RUN_TO)
    assert whole_job(0.0) == RUN_FROM


def test_graph_of_thousands_of_nodes_and_a_cycle_are_walked_without_recursion() -> None:
    chain = {str(n): {"class_type": "X", "inputs": {"a": [str(n - 1), 0]} if n else {}} for n in range(5000)}
    assert run([NodeStarted(P, "4999")], graph=chain).nodes_done == 4999
    loop = {"a": {"class_type": "X", "inputs": {"i": ["b", 0]}}, "b": {"class_type": "X", "inputs": {"i": ["a", 0]}}}
    assert run([NodeStarted(P, "a")], graph=loop).nodes_done == 2


NODES = st.sampled_from(["8", "10", "3", "9", "77"])
NUMBERS = st.one_of(st.integers(-5, 100), st.floats(allow_nan=False, allow_infinity=True, width=32))
MESSAGES = st.one_of(
    st.just(PromptStarted(P)),
    st.builds(NodesCached, st.just(P), st.lists(NODES, max_size=3).map(tuple)),
    st.builds(NodeStarted, st.just(P), NODES),
    st.builds(NodeProgress, st.just(P), NODES, NUMBERS, NUMBERS),
    st.builds(NodeFinished, st.just(P), NODES),
    st.builds(NodeOutput, st.just(P), NODES, st.just(())),
    st.just(Interrupted(P)),
    st.just(Lost(P, "gone")),
)


@given(st.lists(MESSAGES, max_size=60))
@example([NodeProgress(P, "8", 1, float("inf")), NodeProgress(P, "8", float("nan"), 10), NodeProgress(P, "8", 2, 10)])
def test_whatever_the_order_the_fraction_never_falls_and_stays_within_bounds(messages) -> None:
    tracker = Tracker(plan_for(GRAPH, frames=24), 0.0)
    last = 0.0
    for message in messages:
        tracker.feed(message, 0.0)
        snapshot = tracker.snapshot()
        assert last <= snapshot.fraction <= 1.0
        assert whole_job(snapshot.fraction) < 1.0
        assert snapshot.nodes_done <= snapshot.nodes_total == 4
        if snapshot.steps is not None:
            assert 0 <= snapshot.step <= snapshot.steps
        last = snapshot.fraction
    done = {m.node_id for m in messages if isinstance(m, NodeFinished | NodeOutput)}
    if not done and not any(isinstance(m, NodesCached | NodeStarted | NodeProgress) for m in messages):
        assert last == 0.0


def test_without_a_prediction_seconds_left_are_told_once_enough_was_watched() -> None:
    assert seconds_left(1.9, 0.5, 0.5, predicted=None) is None
    assert seconds_left(60.0, 0.04, 0.66, predicted=None) is None
    assert seconds_left(10.0, 0.25, 0.75, predicted=None) == pytest.approx(30.0)
    assert seconds_left(10.0, 0.25, 0.25, predicted=None) == pytest.approx(10.0)


# ------------------------------------------------------------------------------------------- laps, and plans made of them

SECONDS = {
    ("VHS_LoadVideo", 1): 2.0,
    ("VHS_LoadVideo", 0): 1.0,
    ("LoadImage", 0): 0.5,
    ("ReActorFaceSwap", 1): 1.0,
    ("ReActorFaceSwap", 2): 6.0,
    ("ReActorFaceSwap", 3): 3.0,
    ("ReActorFaceSwap", 0): 0.5,
    ("VHS_VideoCombine", 1): 4.0,
    ("VHS_VideoCombine", 0): 2.0,
}
TOTAL = sum(SECONDS.values())


def planned(known=SECONDS, graph=GRAPH, frames=24):
    return plan_for(graph, frames=frames, seconds_of=lambda name, number: known.get((name, number)))


def timed(*messages, plan=None):
    """Feed (seconds, message) pairs."""
    tracker = Tracker(plan or planned(), 0.0)
    for at, message in messages:
        tracker.feed(message, at)
        tracker.snapshot()
    return tracker


def test_learned_seconds_are_the_shares_and_the_passes() -> None:
    plan = planned()
    assert plan.seconds == pytest.approx(TOTAL)
    assert plan.shares["9"] == pytest.approx(6.0 / TOTAL)
    assert plan.passes["3"] == pytest.approx((1 / 10.5, 6 / 10.5, 3 / 10.5))
    assert plan.passes["9"] == pytest.approx((4 / 6,))
    assert "10" not in plan.passes


def test_a_class_never_met_takes_what_its_share_would_be_beside_the_others() -> None:
    known = {key: seconds for key, seconds in SECONDS.items() if key[0] != "VHS_VideoCombine"}
    plan = planned(known)
    assert plan.seconds == pytest.approx(sum(known.values()) * (1 + 10 / 85))
    assert sum(plan.shares.values()) == pytest.approx(1.0)


def test_a_pass_never_met_takes_as_long_as_the_others_of_its_node() -> None:
    known = {key: seconds for key, seconds in SECONDS.items() if key != ("ReActorFaceSwap", 2)}
    assert planned(known).passes["3"] == pytest.approx((1 / 6.5, 2 / 6.5, 3 / 6.5))


def test_what_the_work_takes_is_not_predicted_from_its_surroundings() -> None:
    known = {key: seconds for key, seconds in SECONDS.items() if key[0] != "ReActorFaceSwap"}
    assert planned(known) == plan_for(GRAPH, frames=24)
    assert planned({("ReActorFaceSwap", 0): 0.0}).seconds is None


def test_in_a_graph_of_unknown_classes_all_nodes_count_alike() -> None:
    graph = {key: {**node, "class_type": f"Strange{key}"} for key, node in GRAPH.items()}
    graph["8"]["class_type"] = "VHS_LoadVideo"
    assert set(plan_for(graph, frames=24).shares.values()) == {0.25}


def test_passes_of_a_class_nobody_foresaw_are_those_that_were_seen() -> None:
    graph = {"1": {"class_type": "Strange", "inputs": {}}}
    known = {("Strange", 1): 1.0, ("Strange", 2): 3.0, ("Strange", 0): 0.0, ("Strange", 4): 9.0}
    plan = planned(known, graph)
    assert plan.passes["1"] == pytest.approx((0.25, 0.75))


def test_laps_are_the_time_between_messages_divided_at_the_passes() -> None:
    tracker = timed(
        (0.0, PromptStarted(P)),
        (1.0, NodeStarted(P, "8")),
        (1.5, NodeProgress(P, "8", 1, 2)),
        (2.0, NodeProgress(P, "8", 2, 2)),
        (2.5, NodeFinished(P, "8")),
        (2.5, NodeStarted(P, "10")),
        (3.0, NodeStarted(P, "3")),
        (4.0, NodeProgress(P, "3", 1, 2)),
        (5.0, NodeProgress(P, "3", 2, 2)),
        (5.0, NodeProgress(P, "3", 0, 2)),
        (7.0, NodeProgress(P, "3", 1, 2)),
        (9.0, NodeProgress(P, "3", 2, 2)),
        (9.5, NodeStarted(P, "9")),
    )
    assert [(lap.node_class, lap.pass_number, lap.seconds) for lap in tracker.laps()] == [
        ("VHS_LoadVideo", 1, 1.0),
        ("VHS_LoadVideo", 0, 0.5),
        ("LoadImage", 0, 0.5),
        ("ReActorFaceSwap", 1, 2.0),
        ("ReActorFaceSwap", 2, 4.0),
        ("ReActorFaceSwap", 0, 0.5),
    ]


def test_loading_of_a_model_before_the_first_tick_is_left_out() -> None:
    tracker = timed(
        (0.0, NodeStarted(P, "3")),
        (30.0, NodeProgress(P, "3", 1, 10)),
        (34.5, NodeProgress(P, "3", 10, 10)),
        (34.5, NodeFinished(P, "3")),
    )
    assert tracker.laps()[0].seconds == pytest.approx(4.5 + 0.5 + 4.5)


def test_what_did_not_begin_and_end_under_our_eyes_is_no_lap() -> None:
    tracker = timed(
        (0.0, NodesCached(P, ("10",))),
        (1.0, NodeProgress(P, "8", 5, 10)),
        (2.0, NodeProgress(P, "8", 10, 10)),
        (3.0, NodeStarted(P, "3")),
        (9.0, Succeeded(P, {})),
    )
    assert tracker.laps() == ()


def test_with_a_prediction_seconds_left_are_told_from_the_start() -> None:
    assert timed((0.0, PromptStarted(P))).seconds_left(0.0) == pytest.approx(TOTAL)


def test_cached_nodes_make_the_rest_no_faster() -> None:
    tracker = timed((0.0, PromptStarted(P)), (0.0, NodesCached(P, ("8", "10"))))
    assert tracker.seconds_left(0.0) == pytest.approx(TOTAL - 3.5)


def test_what_was_done_before_we_came_makes_the_rest_no_faster() -> None:
    tracker = timed((0.0, NodeProgress(P, "3", 24, 24)))
    assert tracker.seconds_left(0.0) == pytest.approx(TOTAL - 3.5 - 1.0)


def test_seconds_left_of_a_run_at_twice_the_time_end_near_the_truth() -> None:
    half = seconds_left(TOTAL, 0.5, 0.5, predicted=TOTAL)
    near = seconds_left(1.8 * TOTAL, 0.9, 0.1, predicted=TOTAL)
    assert 0.5 * TOTAL < half < TOTAL
    assert near == pytest.approx(0.2 * TOTAL, rel=0.2)


@given(
    st.floats(0, 1e6),
    st.floats(0, 1),
    st.floats(0, 1),
    st.one_of(st.none(), st.floats(0, 1e6)),
)
def test_seconds_left_are_never_negative_and_finite(elapsed, gained, left, predicted) -> None:
    told = seconds_left(elapsed, gained, left, predicted=predicted)
    assert told is None or 0.0 <= told < float("inf")
    assert predicted is None or told is not None


@given(st.lists(st.tuples(st.floats(0, 100), MESSAGES), max_size=60))
def test_whatever_the_order_a_learned_bar_never_falls_and_laps_are_never_negative(messages) -> None:
    tracker, last, now = Tracker(planned(), 0.0), 0.0, 0.0
    for seconds, message in messages:
        now += seconds
        tracker.feed(message, now)
        fraction = tracker.snapshot().fraction
        assert last <= fraction <= 1.0
        last = fraction
        assert 0.0 <= tracker.seconds_left(now) < float("inf")
    assert all(lap.seconds >= 0.0 for lap in tracker.laps())


def test_the_bar_leaves_room_for_results_by_their_seconds_within_bounds() -> None:
    assert run_to(None, 1.0) == run_to(10.0, None) == RUN_TO
    assert run_to(75.0, 25.0) == pytest.approx(0.02 + 0.98 * 0.75)
    assert run_to(1.0, 99.0) == LEAST_RUN_TO
    assert run_to(1000.0, 0.0) == MOST_RUN_TO
    assert whole_job(1.0, 0.7) == pytest.approx(0.7)
