"""The pool: all upstreams, who is busy with what, and which could take more.

One prompt of ours runs per upstream; the queue is ours. An upstream takes work when it answers, has said what it can do,
is not drained, and has no prompts of others in its queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from gateway.errors import ConflictError, NotFoundError
from gateway.interfaces import Capabilities, Upstream, UpstreamStatus
from gateway.scheduling import Slot
from gateway.template import Template, missing_on

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Member:
    """An upstream in the pool."""

    upstream: Upstream
    draining: bool
    runner: asyncio.Task[None]
    #: Task at work there, None when free.
    task_id: str | None = None
    job_id: str | None = None
    #: Only these task kinds run here; None: all.
    only_templates: frozenset[str] | None = None
    _fits: dict[tuple[str, int], bool] = field(default_factory=dict)

    def fits(self, requirement: str, template: Template) -> bool:
        """Whether every class and model of the template is here; remembered until it says anew what it can do."""
        capabilities = self.upstream.capabilities()
        if capabilities is None:
            return False
        key = (requirement, id(capabilities))
        if key not in self._fits:
            self._fits = {known: fit for known, fit in self._fits.items() if known[1] == id(capabilities)}
            self._fits[key] = not missing_on(template, capabilities)
        return self._fits[key]


@dataclass(frozen=True, slots=True)
class MemberView:
    """How a member is, for people; no secrets."""

    status: UpstreamStatus
    draining: bool
    job_id: str | None

    @property
    def available(self) -> bool:
        """Whether it works or could."""
        return self.status.reachable and not self.draining


class Pool:
    """All upstreams.

    Args:
        on_change: called when an upstream may have become ready for work.
    """

    def __init__(self, *, on_change: Callable[[], None]) -> None:
        self._members: dict[str, Member] = {}
        self._on_change = on_change

    def add(self, upstream: Upstream, *, draining: bool = False) -> None:
        """Take an upstream in and keep its connection. Raises ConflictError when the name is taken."""
        if upstream.name in self._members:
            raise ConflictError(f"there is an upstream named {upstream.name!r} already", field="name")
        runner = asyncio.create_task(upstream.run_forever(), name=f"upstream {upstream.name}")
        runner.add_done_callback(self._runner_ended)
        self._members[upstream.name] = Member(upstream, draining, runner)
        self._on_change()

    @staticmethod
    def _runner_ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("upstream_task_failed", upstream=task.get_name(), exc_info=error)

    async def remove(self, name: str) -> None:
        """Let an upstream go; its prompt, if any, is the dispatcher's to settle first."""
        member = self._members.pop(name, None)
        if member is not None:
            await _close(member)

    async def close(self) -> None:
        """Let all go; prompts there run on."""
        members, self._members = list(self._members.values()), {}
        await asyncio.gather(*(_close(member) for member in members))

    def get(self, name: str) -> Upstream | None:
        """An upstream by name."""
        member = self._members.get(name)
        return member.upstream if member else None

    def set_draining(self, name: str, *, draining: bool) -> None:
        """Stop or resume giving it work. Raises NotFoundError."""
        member = self._members.get(name)
        if member is None:
            raise NotFoundError("there is no such upstream")
        member.draining = draining
        self._on_change()

    def claim(self, name: str, task_id: str, job_id: str) -> None:
        """Mark an upstream busy with a task."""
        member = self._members[name]
        member.task_id, member.job_id = task_id, job_id

    def release(self, name: str, task_id: str) -> None:
        """Mark it free again, if it is still that task which kept it."""
        member = self._members.get(name)
        if member is not None and member.task_id == task_id:
            member.task_id = member.job_id = None
        self._on_change()

    def views(self) -> tuple[MemberView, ...]:
        """How all members are, by name."""
        return tuple(
            MemberView(member.upstream.status(), member.draining, member.job_id)
            for _, member in sorted(self._members.items())
        )

    def slots(self, templates: Mapping[str, Template], *, busy: bool = False) -> list[Slot]:
        """Room for work among the templates named by requirement; with ``busy``, what works now instead of what is free."""
        return [
            _slot(name, member, capabilities, templates)
            for name, member in sorted(self._members.items())
            if (member.task_id is not None) == busy and (capabilities := _ready(member)) is not None
        ]

    def capabilities(self) -> list[Capabilities]:
        """What each upstream that has said so can do."""
        known = (member.upstream.capabilities() for member in self._members.values())
        return [capabilities for capabilities in known if capabilities is not None]

    def upload_limits(self) -> list[int | None]:
        """Largest input per upstream; None for one that has not said or sets no limit."""
        known = (member.upstream.capabilities() for member in self._members.values())
        return [capabilities.max_upload_bytes if capabilities else None for capabilities in known]

    def others(self, name: str) -> bool:
        """Whether there is a usable upstream besides the one named."""
        return any(view.available and view.status.name != name for view in self.views())

    def lacking(self, template: Template) -> dict[str, tuple[str, ...]]:
        """Per upstream that has said what it can do, what the template misses there; empty tuples fit."""
        return {
            name: missing_on(template, capabilities)
            for name, member in self._members.items()
            if (capabilities := member.upstream.capabilities()) is not None
        }


def _ready(member: Member) -> Capabilities | None:
    status = member.upstream.status()
    if member.draining or not status.reachable or status.foreign_prompts:
        return None
    return member.upstream.capabilities()


def _slot(name: str, member: Member, capabilities: Capabilities, templates: Mapping[str, Template]) -> Slot:
    fitting = frozenset(key for key, template in templates.items() if member.fits(key, template))
    return Slot(name, fitting, member.upstream.staged(), capabilities.max_upload_bytes)


async def _close(member: Member) -> None:
    await member.upstream.close()
    member.runner.cancel()
    await asyncio.gather(member.runner, return_exceptions=True)
