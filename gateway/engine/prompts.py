"""Which prompts somebody waits for. What an upstream has of ours beside these is stale, and is taken away there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gateway.job import Task


class LivePrompts:
    """The newest prompt of each task that is at work, or that will be taken up."""

    def __init__(self) -> None:
        self._by_task: dict[str, str] = {}

    def all(self) -> frozenset[str]:
        """Their ids."""
        return frozenset(self._by_task.values())

    def expect(self, task: Task) -> None:
        """This task will be taken up."""
        if task.prompt_id is not None:
            self._by_task[task.id] = task.prompt_id

    def let_go(self, task_id: str) -> None:
        """This task's prompt will not be taken up."""
        self._by_task.pop(task_id, None)

    @contextmanager
    def at_work(self, task_id: str, prompt_id: str) -> Iterator[None]:
        """A run of this task. When it breaks, or is let go of at our stop, its prompt stays awaited until it is taken up."""
        self._by_task[task_id] = prompt_id
        yield
        self._by_task.pop(task_id, None)
