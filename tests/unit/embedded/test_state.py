from __future__ import annotations

import pytest

from gateway.embedded.state import PromptQueue, QueuedPrompt, SameNumberError, page_of_history


def prompt(number: float, prompt_id: str) -> QueuedPrompt:
    return QueuedPrompt(number, prompt_id, {}, {"api_key_comfy_org": "secret", "k": 1}, ["9"])


@pytest.fixture
def told():
    return []


@pytest.fixture
def queue(told):
    return PromptQueue(told.append)


def test_lowest_number_runs_first(queue):
    for number, prompt_id in [(3, "plain"), (-5, "front"), (1.5, "number"), (-1e9, "lowest")]:
        queue.put(prompt(number, prompt_id))
    assert [queue.get().prompt_id for _ in range(4)] == ["lowest", "front", "number", "plain"]


def test_numbers_count_up_and_front_is_negative(queue):
    assert [queue.take_number(front=front) for front in (False, False, True, False)] == [0, 1, -2, 3]


def test_status_is_told_at_put_get_and_end(queue, told):
    queue.put(prompt(0, "a"))
    queue.finish(queue.get(), {"outputs": {}})
    assert told == [1, 1, 0]


def test_interrupt_by_id_hits_that_prompt_or_nothing(queue):
    queue.put(prompt(0, "a"))
    queue.put(prompt(1, "b"))
    assert queue.interrupt("a") is False
    running = queue.get()
    assert queue.interrupt("b") is False
    assert not running.interrupted.is_set()
    assert queue.interrupt("a") is True
    assert running.interrupted.is_set()
    queue.finish(running, {})
    assert not queue.get().interrupted.is_set()


def test_deleted_prompt_leaves_no_trace(queue, told):
    queue.put(prompt(0, "a"))
    assert queue.delete("a") is True
    assert queue.delete("a") is False
    assert (queue.remaining(), queue.history()) == (0, {})
    assert told == [1, 0]


def test_history_holds_no_secrets(queue):
    queue.put(prompt(0, "a"))
    queue.finish(queue.get(), {"outputs": {}})
    assert queue.history("a")["a"]["prompt"] == [0, "a", {}, {"k": 1}, ["9"]]
    assert queue.history("b") == {}


def test_same_id_and_number_is_queued_though_it_fails_only_with_the_quirk(told):
    quirky = PromptQueue(told.append, error_on_same_number=True)
    quirky.put(prompt(7, "a"))
    with pytest.raises(SameNumberError):
        quirky.put(prompt(7, "a"))
    assert quirky.remaining() == 2
    well_behaved = PromptQueue(told.append)
    well_behaved.put(prompt(7, "a"))
    well_behaved.put(prompt(7, "a"))
    assert well_behaved.remaining() == 2


def test_closed_queue_gives_nothing_and_interrupts_what_runs(queue):
    queue.put(prompt(0, "a"))
    queue.put(prompt(1, "b"))
    running = queue.get()
    queue.close()
    assert running.interrupted.is_set()
    assert queue.get() is None


@pytest.mark.parametrize(
    ("max_items", "offset", "keys"),
    [(None, -1, "abcd"), (2, -1, "cd"), (2, 1, "bc"), (None, 1, "bcd"), (0, -1, ""), (-1, -1, ""), (9, -1, "abcd")],
)
def test_history_pages_as_comfyui_does(max_items, offset, keys):
    entries = {key: {} for key in "abcd"}
    assert "".join(page_of_history(entries, max_items, offset)) == keys
