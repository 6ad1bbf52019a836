"""Clients' own graphs as templates, remembered for a while: each round of the queue asks for those that wait.

Reading one again costs a look into the store and some milliseconds of a thread. What is remembered is bounded by number
and by the length of its text; a graph in memory takes about ten times that.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

from gateway.errors import TemplateError
from gateway.interfaces import Store
from gateway.pricing import Pricing
from gateway.template import WORKFLOW, Template
from gateway.workflow import Workflow, template_of

MAX_GRAPHS: Final = 512
MAX_CHARACTERS: Final = 16 * 1024 * 1024


class ClientGraphs:
    """Templates of clients' own graphs, by job."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: OrderedDict[str, tuple[Template, int]] = OrderedDict()
        self._characters = 0

    async def of(self, job_id: str, key: str | None = None) -> Template:
        """The template of a job.

        Args:
            job_id: whose.
            key: under which it is remembered too; jobs with one requirement have one answer for what they need.

        Raises:
            TemplateError: the job has no graph, or is forgotten.
        """
        name = key or job_id
        if name in self._known:
            self._known.move_to_end(name)
            return self._known[name][0]
        text = await self._store.workflow(job_id)
        if text is None:
            raise TemplateError(WORKFLOW, "the graph of this job is not kept")
        template = await asyncio.to_thread(_read, text)
        self._remember(name, template, len(text))
        return template

    def _remember(self, name: str, template: Template, characters: int) -> None:
        # Two may have read the same one at once.
        _, before = self._known.pop(name, (None, 0))
        self._known[name] = (template, characters)
        self._characters += characters - before
        while len(self._known) > 1 and (len(self._known) > MAX_GRAPHS or self._characters > MAX_CHARACTERS):
            _, (_, gone) = self._known.popitem(last=False)
            self._characters -= gone


def _read(text: str) -> Template:
    # What it cost was settled when the job was made.
    return template_of(Workflow.from_json(text), Pricing())
