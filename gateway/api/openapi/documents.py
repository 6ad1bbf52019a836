"""The document as bytes, made when somebody asks for it and kept until what it says changes."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from gateway.api.facade import TaskType
from gateway.api.problems import to_json
from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.api.openapi.vocabulary import World

#: Half a MiB each: one for strangers, and of those that tell of templates the newest.
_KEPT: Final = 2


@dataclass(frozen=True, slots=True)
class Encoded:
    """A document as it goes out."""

    body: bytes
    etag: str


@dataclass(slots=True)
class Documents:
    """See the module.

    Args:
        settings: never change while a process lives.
        build: the document of a world.
    """

    settings: Settings
    build: Callable[[World], Mapping[str, Any]]
    _kept: OrderedDict[tuple[TaskType, ...] | None, Encoded] = field(default_factory=OrderedDict)
    _making: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def encoded(self, tasks: Sequence[TaskType] | None) -> Encoded:
        """The document. Args: tasks: what templates do; None for a reader who may not know."""
        # Whether it can run now is no part of what a task is.
        told = None if tasks is None else tuple(replace(task, can_run=True, missing=()) for task in tasks)
        async with self._making:
            if told not in self._kept:
                # A tenth of a second's work, and at the first time as much again to load what describes.
                self._kept[told] = await asyncio.to_thread(self._encode, told)
                if len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(told)
            return self._kept[told]

    def _encode(self, tasks: tuple[TaskType, ...] | None) -> Encoded:
        from gateway.api.openapi.vocabulary import World

        body = to_json(self.build(World(self.settings, tasks)))
        return Encoded(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
