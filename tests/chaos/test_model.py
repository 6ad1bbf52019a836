"""The whole application against a model of it, by random steps; ``COMFYGATE_EXAMPLES`` makes it longer."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.chaos.model.machine import Gateway
from tests.chaos.model.mutations import MUTATIONS
from tests.tools.templates import parsed_once

IS_LONG = "COMFYGATE_EXAMPLES" in os.environ
#: Those of every day are the first of the others.
EVERY_DAY, EXAMPLES = 15, int(os.environ.get("COMFYGATE_EXAMPLES", "40"))
#: A planted fault is found in the first few, and they are the same ones in every run.
MUTANT_EXAMPLES = 1000
PATIENT = settings(deadline=None, stateful_step_count=30, suppress_health_check=list(HealthCheck))
SAME = settings(PATIENT, phases=[Phase.generate], derandomize=True, database=None)


@pytest.fixture(scope="module", autouse=True)
def templates_are_parsed_once() -> Iterator[None]:
    with parsed_once():
        yield


@pytest.mark.parametrize("examples", [EVERY_DAY, pytest.param(EXAMPLES, marks=pytest.mark.long)])
def test_every_answer_agrees_with_the_model(examples: int) -> None:
    # The same steps in every run; other ones, and the shortest that fail, where COMFYGATE_EXAMPLES asks for them.
    search = settings(PATIENT, print_blob=True) if IS_LONG else SAME
    run_state_machine_as_test(Gateway, settings=settings(search, max_examples=examples))


#: Those that take more than a second or two to find, and are looked for where long forms are asked for.
RARE = frozenset(
    {
        "a cancel loses against a success",
        "the bar forgets what was shown",
        "the upstream is not told of a cancel",
    }
)


@pytest.mark.parametrize("fault", MUTATIONS if IS_LONG else sorted(MUTATIONS.keys() - RARE))
def test_a_planted_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTATIONS[fault](monkeypatch)
    with pytest.raises((AssertionError, KeyError, BaseExceptionGroup)):
        run_state_machine_as_test(Gateway, settings=settings(SAME, max_examples=MUTANT_EXAMPLES))
