"""The checker of histories: lets a good one pass, and finds each planted fault."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.chaos.history import (
    Acknowledged,
    CancelAnswered,
    CancelSent,
    Downloaded,
    Facts,
    Kept,
    Observation,
    Refused,
    Seen,
    Told,
    sent_twice,
    violations,
)

WANTED = Facts("image/png", (320, 240), 1)
KINDS = ("queued", "dispatched", "started", "requeued", "dispatched", "started", "finishing", "succeeded")
KEPT = Kept("a", "succeeded", tuple(range(1, 9)), KINDS, ("attempt_lost", "succeeded"), ("a.png",))
CANCELED = Kept("a", "canceled", (1, 2, 3), ("queued", "cancel_requested", "canceled"), (), ())


def told(kinds: tuple[str, ...] = KINDS, stream: int = 1) -> list[Observation]:
    """A stream of these, with a bar between them."""
    found: list[Observation] = []
    attempt = 0
    for number, kind in enumerate(kinds, start=1):
        attempt += kind == "dispatched"
        found.append(Told("a", stream, kind, number, attempt if kind in {"dispatched", "started"} else None))
        if kind == "started":
            found.append(Told("a", stream, "progress", fraction=attempt / 10))
    return found


def good() -> list[Observation]:
    return [
        Acknowledged("a", WANTED),
        Seen("a", "queued", 0.0, 1),
        Seen("a", "running", 0.5, 3),
        *told(),
        Seen("a", "succeeded", 1.0, 8, ("a.png",)),
        Downloaded("a", "a.png", "00ff", WANTED),
        Downloaded("a", "a.png", "00ff", WANTED),
    ]


def rules(observations: list[Observation], kept: list[Kept]) -> set[str]:
    return {sentence.partition(":")[0] for sentence in violations(observations, kept)}


def without(kind: type[Observation]) -> list[Observation]:
    return [observation for observation in good() if not isinstance(observation, kind)]


def test_a_good_history_passes() -> None:
    assert violations(good(), [KEPT]) == []


def test_a_canceled_job_passes() -> None:
    history = [
        Acknowledged("a", WANTED),
        CancelSent("a"),
        CancelAnswered("a", 200),
        Seen("a", "canceled", 0.0, 3),
        *told(CANCELED.kinds),
    ]
    assert violations(history, [CANCELED]) == []


def test_a_planted_loss_is_found() -> None:
    assert rules(good(), []) == {"nothing is lost"}
    assert rules([*good(), Refused("a", 404)], [KEPT]) == {"nothing is lost"}
    assert rules([Acknowledged("a", WANTED)], [KEPT]) == {"nothing is lost"}


def test_a_planted_stuck_job_is_found() -> None:
    stuck = Kept("a", "running", (1, 2, 3), KINDS[:3], (None,), ())
    history = [Acknowledged("a", WANTED), Seen("a", "running", 0.5, 3)]
    assert rules(history, [stuck]) == {"nothing is stuck"}
    assert rules([], [stuck]) == {"nothing is stuck"}, "also one that was never acknowledged"
    assert rules(good(), [replace(KEPT, outcomes=(None, "succeeded"))]) == {"nothing is stuck"}


def test_a_planted_double_end_is_found() -> None:
    doubled = (*KINDS, "succeeded")
    kept = replace(KEPT, numbers=tuple(range(1, 10)), kinds=doubled)
    assert "one end" in rules([*without(Told), *told(doubled)], [kept])
    assert "one end" in rules([*without(Told), *told((*KINDS, "warning"))], [KEPT])
    assert "one end" in rules([*good(), Seen("a", "canceled", 1.0, 9)], [KEPT])


def test_a_stream_that_never_told_the_end_is_found() -> None:
    assert "one end" in rules([*good(), *told(KINDS[:-1], stream=2)], [KEPT])


@pytest.mark.parametrize("numbers", [(1, 1), (1, 3), (2, 1), (2, 3)])
def test_numbers_told_twice_or_left_out_or_turned_round_are_found(numbers: tuple[int, int]) -> None:
    history = [Told("a", 2, kind, number) for kind, number in zip(("queued", "succeeded"), numbers, strict=True)]
    assert "numbers are dense" in rules([*good(), *history], [KEPT])


def test_a_number_that_means_two_things_is_found() -> None:
    other = tuple("warning" if kind == "finishing" else kind for kind in KINDS)
    assert rules([*good(), *told(other, stream=2)], [KEPT]) == {"all are told the same"}


def test_a_bar_that_falls_is_found() -> None:
    falling = [Told("a", 1, "progress", fraction=0.6), *told()]
    assert rules([*without(Told), *falling], [KEPT]) == {"bars never fall"}
    polled = [Acknowledged("a", WANTED), Seen("a", "running", 0.6, 2), *good()[1:]]
    assert "bars never fall" in rules(polled, [KEPT])


def test_a_full_bar_before_the_end_is_found() -> None:
    assert rules([Seen("a", "running", 1.0, 2), *without(Seen), good()[-4]], [KEPT]) >= {"one means done"}


def test_a_second_delivery_is_found() -> None:
    again = Seen("a", "succeeded", 1.0, 8, ("b.png",))
    assert "a result comes once" in rules([*good(), again], [KEPT])
    assert rules([*good(), Downloaded("a", "a.png", "ffff", WANTED)], [KEPT]) == {"a result stays what it is"}
    assert rules(good(), [replace(KEPT, links=("b.png",))]) == {"a result comes once"}


def test_a_result_of_another_job_is_found() -> None:
    other = [replace(observation, job_id="b") for observation in good()]
    assert rules([*good(), *other], [KEPT, replace(KEPT, job_id="b")]) == {"a result comes once"}


def test_a_result_that_is_something_else_is_found() -> None:
    other = Downloaded("a", "a.png", "00ff", replace(WANTED, frames=2))
    assert rules([*without(Downloaded), other], [KEPT]) == {"a result is what was asked for"}


def test_a_result_that_nobody_could_get_is_found() -> None:
    assert rules(without(Downloaded), [KEPT]) == {"a result comes once"}


def test_a_result_of_a_stale_attempt_is_found() -> None:
    assert rules(good(), [replace(KEPT, outcomes=("succeeded", "attempt_lost"))]) == {"the last attempt counts"}
    assert rules(good(), [replace(KEPT, outcomes=("succeeded", "succeeded"))]) == {"the last attempt counts"}
    assert rules([], [replace(CANCELED, outcomes=("succeeded", "attempt_lost"))]) == {"the last attempt counts"}
    assert rules([], [replace(CANCELED, outcomes=("attempt_lost", "succeeded"))]) == set(), "canceled behind its end"


@pytest.mark.parametrize(
    "kinds",
    [
        ("queued", "dispatched", "started", "requeued", "started", "finishing", "succeeded"),
        ("queued", "dispatched", "dispatched", "started", "finishing", "succeeded"),
        ("queued", "dispatched", "started", "requeued", "finishing", "succeeded"),
    ],
)
def test_word_of_an_attempt_that_is_over_is_found(kinds: tuple[str, ...]) -> None:
    kept = replace(KEPT, numbers=tuple(range(1, len(kinds) + 1)), kinds=kinds)
    assert rules([*without(Told), *told(kinds)], [kept]) == {"the last attempt counts"}


def test_a_cancel_that_nobody_asked_for_is_found() -> None:
    history = [Acknowledged("a", WANTED), Seen("a", "canceled", 0.0, 3)]
    assert rules(history, [CANCELED]) == {"canceled only when asked"}


def test_a_granted_cancel_that_does_not_hold_is_found() -> None:
    assert rules([*good(), CancelSent("a"), CancelAnswered("a", 202)], [KEPT]) == {"a cancel wins"}
    assert rules([*good(), CancelSent("a"), CancelAnswered("a", 409)], [KEPT]) == set()


def test_a_failure_is_found() -> None:
    kinds = (*KINDS[:3], "failed")
    kept = Kept("a", "failed", (1, 2, 3, 4), kinds, ("attempt_lost",), (), "upstream_lost")
    history = [Acknowledged("a", WANTED), Seen("a", "failed", 0.4, 4), *told(kinds)]
    assert rules(history, [kept]) == {"every job succeeds or is canceled"}


def test_a_prompt_sent_twice_is_found() -> None:
    assert sent_twice({"a": ["1", "2"], "b": ["3"]}) == []
    assert len(sent_twice({"a": ["1", "2"], "b": ["2"]})) == len(sent_twice({"a": ["1", "1"]})) == 1
