"""Fair between submitters, near to where the inputs lie, never where it does not fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.interfaces import Candidate
from gateway.scheduling import HALF_LIFE_SECONDS, Shares, Slot, assign, fair_order, fits


def candidate(
    task, submitter="a", *, needs="swap@1", priority=0, queued_at=0.0, cost=1.0, blobs=(), size=10, avoid=None
):
    return Candidate(
        task, f"job-{task}", submitter, needs, priority, queued_at, cost, frozenset(blobs), size, 0, 0, avoid
    )


def slot(name, *, needs=("swap@1",), staged=(), limit=None):
    return Slot(name, frozenset(needs), frozenset(staged), limit)


def plan(candidates, slots, shares=None):
    return [(a.candidate.task_id, a.upstream) for a in assign(candidates, slots, shares or {})]


def test_one_slot_takes_the_submitter_who_had_least() -> None:
    assert plan([candidate("1", "a"), candidate("2", "b", queued_at=9.0)], [slot("u")], {"a": 50.0, "b": 3.0}) == [
        ("2", "u")
    ]


def test_a_hundred_of_one_and_one_of_another_share_two_slots() -> None:
    crowd = [candidate(f"a{n:03}", "a", queued_at=n) for n in range(100)]
    assert {task[0] for task, _ in plan([*crowd, candidate("b", "b", queued_at=500.0)], [slot("u"), slot("v")])} == {
        "a",
        "b",
    }


def test_within_a_submitter_priority_goes_before_age() -> None:
    tasks = [candidate("old", queued_at=1.0), candidate("urgent", queued_at=9.0, priority=5)]
    assert plan(tasks, [slot("u")]) == [("urgent", "u")]


def test_task_goes_only_where_class_and_bytes_fit() -> None:
    slots = [slot("small", limit=5), slot("other", needs=("upscale@1",)), slot("fit", limit=10)]
    assert plan([candidate("1")], slots) == [("1", "fit")]
    assert not fits(candidate("1"), slots[0])


def test_task_goes_where_its_inputs_lie() -> None:
    assert plan([candidate("1", blobs=("x",))], [slot("a"), slot("b", staged=("x",))]) == [("1", "b")]


def test_lost_task_avoids_where_it_was_lost_unless_there_is_no_other() -> None:
    lost = candidate("1", blobs=("x",), avoid="a")
    assert plan([lost], [slot("a", staged=("x",)), slot("b")]) == [("1", "b")]
    assert plan([lost], [slot("a")]) == [("1", "a")]


def test_versatile_upstream_stays_free_for_what_only_it_can_do() -> None:
    tasks = [candidate("swap"), candidate("scale", "b", needs="upscale@1")]
    slots = [slot("both", needs=("swap@1", "upscale@1")), slot("swapper")]
    assert dict(plan(tasks, slots)) == {"swap": "swapper", "scale": "both"}


def test_shares_fade_by_half_life() -> None:
    shares = Shares()
    shares.charge("a", 100.0, now=0.0)
    assert shares.of("a", HALF_LIFE_SECONDS) == pytest.approx(50.0)
    assert shares.of("nobody", 0.0) == 0.0


def test_shares_forget_the_faded_when_there_are_very_many() -> None:
    shares = Shares()
    for number in range(10_001):
        shares.charge(str(number), 0.5, now=0.0)
    assert len(shares._used) <= 1


CANDIDATES = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from(["x@1", "y@1"]),
        st.integers(0, 3),
        st.floats(0, 100),
        st.integers(0, 20),
    ),
    max_size=12,
)
SLOTS = st.lists(
    st.tuples(st.sets(st.sampled_from(["x@1", "y@1"])), st.one_of(st.none(), st.integers(0, 20))), max_size=5
)


@given(CANDIDATES, SLOTS)
def test_no_task_and_no_slot_twice_and_no_fitting_pair_left_over(raw_candidates, raw_slots) -> None:
    tasks = [
        candidate(str(i), who, needs=needs, priority=priority, queued_at=at, size=size)
        for i, (who, needs, priority, at, size) in enumerate(raw_candidates)
    ]
    slots = [slot(f"u{i}", needs=needs, limit=limit) for i, (needs, limit) in enumerate(raw_slots)]
    made = assign(tasks, slots, {})
    assert len({a.candidate.task_id for a in made}) == len({a.upstream for a in made}) == len(made)
    by_name = {s.upstream: s for s in slots}
    assert all(fits(a.candidate, by_name[a.upstream]) for a in made)
    left = [c for c in tasks if c.task_id not in {a.candidate.task_id for a in made}]
    free = [s for s in slots if s.upstream not in {a.upstream for a in made}]
    assert not any(fits(c, s) for c in left for s in free)


@given(
    st.lists(
        st.builds(
            candidate,
            st.uuids().map(str),
            st.sampled_from("abc"),
            priority=st.integers(0, 2),
            queued_at=st.floats(0, 9),
            cost=st.floats(0.5, 9),
        ),
        max_size=12,
    ),
    st.dictionaries(st.sampled_from("abc"), st.floats(0, 20)),
)
def test_the_fair_order_is_that_in_which_one_upstream_would_get_them(tasks, shares) -> None:
    left, used, order = list(tasks), dict(shares), []
    while left:
        (given_out,) = assign(left, [slot("u")], used)
        order.append(given_out.candidate)
        left.remove(given_out.candidate)
        used[order[-1].submitter] = used.get(order[-1].submitter, 0.0) + order[-1].cost_seconds
    assert fair_order(tasks, shares) == order
