"""Jobs that wait, as they were made or last read, so that giving one out asks the store nothing.

What a job is made of does not change while it waits; that it still waits is for the commit that gives it out to say. So
what is known here may be old, and is never more than a saved question: the newest few hundred, each good for one start.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from gateway.interfaces import Store
from gateway.job import Job, Task, TaskState

#: A job is some kB, so this is a MB or two.
MOST: Final = 256


class Waiting:
    """What is known of queued tasks, by id."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: OrderedDict[str, tuple[Job, Task]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def note(self, job: Job, task: Task) -> None:
        """As it is now: kept where it waits for its first attempt, forgotten where it does not wait any more."""
        self._known.pop(task.id, None)
        if task.state is TaskState.QUEUED and not task.attempt:
            self._known[task.id] = (job, task)
            if len(self._known) > MOST:
                self._known.popitem(last=False)

    async def look(self, task_id: str) -> tuple[Job, Task] | None:
        """A task and its job; None when it does not wait. Remembered for whoever takes it."""
        found = self._known.get(task_id) or await self._store.queued_task(task_id)
        if found is not None:
            self.note(*found)
        return found

    async def take(self, task_id: str) -> tuple[Job, Task] | None:
        """The same for whoever gives it out: the next one asks the store."""
        return self._known.pop(task_id, None) or await self._store.queued_task(task_id)
