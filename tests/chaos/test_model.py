"""The whole application against a model of it, by random steps; ``COMFYGATE_EXAMPLES`` makes it longer."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.chaos.model.machine import Gateway
from tests.chaos.model.mutations import MUTATIONS

EXAMPLES = int(os.environ.get("COMFYGATE_EXAMPLES", "40"))
#: A planted fault is found in the first few; the same ones in every run.
MUTANT_EXAMPLES = 500
STEPS = 30
PATIENT = settings(deadline=None, stateful_step_count=STEPS, suppress_health_check=list(HealthCheck))


def test_every_answer_agrees_with_the_model() -> None:
    run_state_machine_as_test(Gateway, settings=settings(PATIENT, max_examples=EXAMPLES, print_blob=True))


#: Those that a few examples find. The others take up to a minute, and are looked for where long forms are asked for.
QUICK = (
    "what runs is run anew after a restart",
    "the upstream is not told of a cancel",
    "the bar forgets what was shown",
    "a ready answer outlives a change",
    "a busy upstream gets more",
    "a cursor gives the last event again",
)


@pytest.mark.parametrize("fault", MUTATIONS if "COMFYGATE_EXAMPLES" in os.environ else QUICK)
def test_a_planted_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTATIONS[fault](monkeypatch)
    search = settings(PATIENT, max_examples=MUTANT_EXAMPLES, phases=[Phase.generate], derandomize=True, database=None)
    with pytest.raises((AssertionError, KeyError, BaseExceptionGroup)):
        run_state_machine_as_test(Gateway, settings=search)
