"""The pool: all upstreams, who is busy with what, and which could take more.

One prompt of ours runs per upstream; the queue is ours. An upstream takes work when it answers, has said what it can do,
is not drained, and has no prompts in its queue that are others' or were given up. The next prompt is sent when the last one is about to end, and
waits there for that moment, lest the upstream stand still while it is on its way. Fetching, checking and storing results
goes on beside, as long as it does not fall behind. Beside real upstreams an embedded worker finds faces and does nothing
else: nobody who has a GPU shall get a preview by chance.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

import structlog

from gateway.breaker import Admission, Breaker, Fault
from gateway.engine.members import Judgment, MemberView
from gateway.engine.needs import Need
from gateway.errors import ConflictError, NotFoundError
from gateway.interfaces import Capabilities, Clock, Upstream
from gateway.lacks import missing_on
from gateway.naming import told_name
from gateway.scheduling import Refusals, Slot
from gateway.template import Template

log = structlog.get_logger(__name__)

#: What the form around an uploaded file takes of an upstream's limit, which counts the whole body.
FORM_BYTES = 1024
#: The class that an embedded worker is for where there are real upstreams.
DETECTION_CLASS = "GatewayFaceDetect"
ONLY_DETECTION = "beside other upstreams an embedded worker only detects faces"
#: Tasks whose refusals are kept in mind; one that is forgotten costs a try.
MAX_REFUSED_TASKS = 1024
_MAX_REQUIREMENTS = 1024
#: Ended prompts of one upstream whose results may be on their way before it waits for them. It bounds the scratch space
#: that results take: where checking is slower than making, the makers wait.
MAX_COLLECTING = 4

#: An upstream whose connection broke by a fault of ours is run again after this long.
RESTART_SECONDS = 2.0


class Room(Enum):
    """When an upstream would run what it is given."""

    #: It has nothing to do.
    NOW = auto()
    #: What it has to do is about to end, and nothing waits behind it.
    SOON = auto()
    LATER = auto()


@dataclass(slots=True)
class Member:
    """An upstream in the pool."""

    upstream: Upstream
    draining: bool
    #: Whether it is a worker of our own.
    embedded: bool
    runner: asyncio.Task[None]
    #: Its record of failing us.
    breaker: Breaker
    #: Task id -> job id of what is at work there. More than one only after a start that found more.
    at_work: dict[str, str] = field(default_factory=dict)
    #: Those of them whose prompt is about to end.
    ending: set[str] = field(default_factory=set)
    #: Tasks whose prompt has ended there and whose results are being fetched and checked.
    collecting: set[str] = field(default_factory=set)
    #: Its process, one of ours, is restarted once it has nothing to do.
    restarting: bool = False
    _known: Capabilities | None = None
    _lacks: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def lacks(self, requirement: str, need: Need) -> tuple[str, ...] | None:
        """What it misses; None while it has not said what it can do. Remembered until it says so anew."""
        capabilities = self.upstream.capabilities()
        if capabilities is None:
            return None
        if capabilities is not self._known or len(self._lacks) > _MAX_REQUIREMENTS:
            self._known, self._lacks = capabilities, {}
        if requirement not in self._lacks:
            self._lacks[requirement] = missing_on(need.template, capabilities, need.choices)
        return self._lacks[requirement]

    @property
    def is_available(self) -> bool:
        """Whether it works or could."""
        return self.upstream.status().reachable and not self.draining and not self.restarting

    def room(self, now: float) -> Room | None:
        """When a prompt given to it now would run; None where it is to get none for a while."""
        admission = self.breaker.admission(now)
        if admission is Admission.NOTHING:
            return None
        if len(self.collecting) > MAX_COLLECTING:
            return Room.LATER
        if not self.at_work:
            return Room.NOW
        is_ending = len(self.at_work) == 1 and self.at_work.keys() <= self.ending
        return Room.SOON if is_ending and admission is Admission.WORK else Room.LATER


class Pool:
    """All upstreams.

    Args:
        clock: time.
        on_change: called when an upstream may have become ready for work.
        chance: gives a number from 0 to 1.
    """

    def __init__(
        self, clock: Clock, *, on_change: Callable[[], None], chance: Callable[[], float] = random.random
    ) -> None:
        self._members: dict[str, Member] = {}
        self._clock = clock
        self._on_change = on_change
        self._chance = chance
        self._refusals: OrderedDict[str, frozenset[str]] = OrderedDict()

    # ------------------------------------------------------------------------------------------------ coming and going

    def add(self, upstream: Upstream, *, draining: bool = False, embedded: bool = False) -> None:
        """Take an upstream in and keep its connection. Raises ConflictError when the name is taken."""
        if upstream.name in self._members:
            raise ConflictError(f"there is an upstream named {upstream.name!r} already", field="name")
        runner = asyncio.create_task(self._keep(upstream), name=f"upstream {upstream.name}")
        self._members[upstream.name] = Member(upstream, draining, embedded, runner, Breaker(self._chance))
        self._on_change()

    async def _keep(self, upstream: Upstream) -> None:
        """Run it, and again when it breaks: one fault that nobody foresaw must not cost an upstream for good."""
        while True:
            try:
                return await upstream.run_forever()
            except Exception as error:
                log.error("upstream_broke", upstream=upstream.name, exc_info=error)
            await self._clock.sleep(RESTART_SECONDS)

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

    def set_draining(self, name: str, *, draining: bool) -> bool:
        """Stop or resume giving it work; what was set before. Raises NotFoundError."""
        member = self._members.get(name)
        if member is None:
            raise NotFoundError("There is no such upstream.")
        before, member.draining = member.draining, draining
        self._on_change()
        return before

    def set_restarting(self, name: str, *, restarting: bool) -> None:
        """Give it nothing while its process is being restarted; one that is gone is left alone."""
        if (member := self._members.get(name)) is not None:
            member.restarting = restarting
            self._on_change()

    # ------------------------------------------------------------------------------------------------------- at work

    def claim(self, name: str, task_id: str, job_id: str) -> None:
        """Mark an upstream busy with a task."""
        self._members[name].at_work[task_id] = job_id

    def prompt_ending(self, name: str, task_id: str) -> None:
        """That task's prompt is about to end: the next may be sent, so that nothing stands still in between."""
        member = self._members.get(name)
        if member is not None and task_id in member.at_work and task_id not in member.ending:
            member.ending.add(task_id)
            self._on_change()  # once: it is said again with every tick

    def prompt_ended(self, name: str, task_id: str) -> None:
        """That task's prompt has left the upstream; its results are still to be fetched from there."""
        member = self._members.get(name)
        if member is not None and member.at_work.pop(task_id, None) is not None:
            member.ending.discard(task_id)
            member.collecting.add(task_id)
        self._on_change()

    def release(self, name: str, task_id: str) -> None:
        """That task no longer needs it."""
        member = self._members.get(name)
        if member is not None:
            member.at_work.pop(task_id, None)
            member.ending.discard(task_id)
            member.collecting.discard(task_id)
        self._on_change()

    def is_busy(self, name: str) -> bool:
        """Whether a task of ours is at work there, or still needs results from there."""
        member = self._members.get(name)
        return member is not None and bool(member.at_work or member.collecting)

    def note_fault(self, name: str, kind: Fault) -> None:
        """It failed us: it is left alone for a while."""
        member = self._members.get(name)
        if member is not None:
            seconds = member.breaker.fault(kind, self._clock.monotonic())
            log.warning("upstream_left_alone", upstream=name, fault=kind.name.lower(), seconds=round(seconds, 1))

    def note_success(self, name: str) -> None:
        """It saw a job through."""
        member = self._members.get(name)
        if member is not None:
            member.breaker.success()

    def next_admission(self) -> float | None:
        """Monotonic seconds at which the next upstream that is left alone may be tried again; None when none is."""
        now = self._clock.monotonic()
        moments = [member.breaker.until for member in self._members.values()]
        return min((moment for moment in moments if moment > now), default=None)

    def note_refusal(self, task_id: str, name: str) -> None:
        """This task shall not be tried there again."""
        self._refusals[task_id] = self._refusals.get(task_id, frozenset()) | {name}
        self._refusals.move_to_end(task_id)
        while len(self._refusals) > MAX_REFUSED_TASKS:
            self._refusals.popitem(last=False)

    @property
    def refusals(self) -> Refusals:
        """Task id -> upstreams that have refused it."""
        return self._refusals

    # ------------------------------------------------------------------------------------------------------- looking

    def __len__(self) -> int:
        return len(self._members)

    def outages(self) -> dict[str, float]:
        """Members that could be reached and cannot any more, by name: since when, monotonic seconds."""
        found = {name: member.upstream.status().unreachable_since for name, member in self._members.items()}
        return {name: since for name, since in found.items() if since is not None}

    def lacks(self, name: str, requirement: str, need: Need) -> tuple[str, ...] | None:
        """What a member misses for a need, as it has said itself; None while it has not, or is no member."""
        member = self._members.get(name)
        return None if member is None else member.lacks(requirement, need)

    def views(self) -> tuple[MemberView, ...]:
        """How all members are, by name."""
        now = self._clock.monotonic()
        return tuple(
            MemberView(
                member.upstream.status(),
                member.draining,
                next(iter(member.at_work.values()), None),
                "; ".join(filter(None, (member.breaker.reason(now), _settling(member)))),
                member.restarting,
            )
            for _, member in sorted(self._members.items())
        )

    def slots(self, needs: Mapping[str, Need], room: Room = Room.NOW) -> list[Slot]:
        """Room for work among the needs named by requirement.

        Args:
            needs: by requirement.
            room: of which upstreams.
        """
        now = self._clock.monotonic()
        return [
            self._slot(name, member, capabilities, needs)
            for name, member in sorted(self._members.items())
            if member.room(now) is room and (capabilities := _ready(member)) is not None
        ]

    def _slot(self, name: str, member: Member, capabilities: Capabilities, needs: Mapping[str, Need]) -> Slot:
        fitting = frozenset(key for key, need in needs.items() if self._lacks(member, key, need) == ())
        return Slot(name, fitting, member.upstream.staged(), _largest_file(capabilities))

    def working_on(self, requirement: str, need: Need) -> list[tuple[str, ...]]:
        """Of each upstream that works and fits a need: the jobs that are at work or wait there."""
        return [
            tuple(member.at_work.values())
            for member in self._members.values()
            if _ready(member) is not None and self._lacks(member, requirement, need) == ()
        ]

    def judge(self, task_id: str, requirement: str, need: Need, size_bytes: int) -> tuple[Judgment, ...]:
        """What each upstream could do for a queued task, by name."""
        now = self._clock.monotonic()
        return tuple(
            self._judgment(name, member, self._why_never(member, task_id, requirement, need, size_bytes), now)
            for name, member in sorted(self._members.items())
        )

    def _judgment(self, name: str, member: Member, never: str | None, now: float) -> Judgment:
        if never:
            return Judgment(name, fits=False, reason=never)
        return Judgment(name, fits=None if never is None else True, reason=_why_not_now(member, now))

    def _why_never(self, member: Member, task_id: str, requirement: str, need: Need, size_bytes: int) -> str | None:
        """Why it cannot take it as it is: "" when it can, None when it has not said what it can do."""
        lacks, capabilities = self._lacks(member, requirement, need), member.upstream.capabilities()
        if lacks is None or capabilities is None:
            return None
        limit = _largest_file(capabilities)
        if lacks:
            return lacks[0]
        if limit is not None and size_bytes > limit:
            return f"it takes files of {limit} bytes at most"
        return "it refused the inputs" if member.upstream.name in self._refusals.get(task_id, ()) else ""

    def could_take(self, task_id: str, requirement: str, need: Need, *, now: bool = False) -> bool:
        """Whether there is an upstream that has not refused this task and may fit it; ``now``: that fits and works."""
        refused = self._refusals.get(task_id, frozenset())
        for name, member in self._members.items():
            lacks = self._lacks(member, requirement, need)
            if (
                name not in refused
                and (lacks == () or (lacks is None and not now))
                and (member.is_available or not now)
            ):
                return True
        return False

    def _lacks(self, member: Member, requirement: str, need: Need) -> tuple[str, ...] | None:
        if member.embedded and not _is_for_worker(need.template) and self._has_real:
            return (ONLY_DETECTION,)
        return member.lacks(requirement, need)

    @property
    def _has_real(self) -> bool:
        return any(not member.embedded for member in self._members.values())

    def unfit(self, templates: Iterable[Template]) -> dict[str, str]:
        """Templates that no upstream which works now fits, by name, each with one reason."""
        found: dict[str, str] = {}
        able = {name: member for name, member in self._members.items() if member.is_available}
        for template in templates:
            reasons = {
                name: self._lacks(member, template.requirement, Need(template, {})) for name, member in able.items()
            }
            if () not in reasons.values():
                named = [f"{name}: {reason[0]}" for name, reason in sorted(reasons.items()) if reason]
                found[template.name] = named[0] if named else "no upstream is available"
        return found

    def fits_now(self, requirement: str, need: Need) -> bool:
        """Whether an upstream that works now has all that this needs."""
        able = (member for member in self._members.values() if member.is_available)
        return any(self._lacks(member, requirement, need) == () for member in able)

    def able_for(self, template: Template) -> list[Capabilities]:
        """What the upstreams can do that work now and have all that a template needs."""
        need = Need(template, {})
        able = (member for member in self._members.values() if member.is_available)
        fitting = [member for member in able if self._lacks(member, template.requirement, need) == ()]
        known = [member.upstream.capabilities() for member in fitting]
        return [capabilities for capabilities in known if capabilities is not None]

    def lacking(self, requirement: str, need: Need) -> list[tuple[str, ...]]:
        """Of each upstream that has said what it can do, down or not: what it lacks for a need.

        A worker of our own that stands beside real upstreams is left out: it lacks nothing that could be put right.
        """
        found = (self._lacks(member, requirement, need) for member in self._members.values())
        return [lacks for lacks in found if lacks not in (None, (ONLY_DETECTION,))]

    def capabilities(self) -> list[Capabilities]:
        """What each upstream that has said so can do."""
        known = (member.upstream.capabilities() for member in self._members.values())
        return [capabilities for capabilities in known if capabilities is not None]

    def capabilities_by_name(self) -> dict[str, Capabilities]:
        """What each upstream can do that clients' own graphs may run on, as far as it has said so; by ``told_name``."""
        able = (member for member in self._members.values() if not (member.embedded and self._has_real))
        statuses = sorted((member.upstream.status().name, member.upstream) for member in able)
        known = {told_name(name, at.status().address, n): at.capabilities() for n, (name, at) in enumerate(statuses, 1)}
        return {name: capabilities for name, capabilities in known.items() if capabilities is not None}

    def working(self) -> list[Upstream]:
        """Those that work now."""
        return [member.upstream for member in self._members.values() if member.is_available]

    def upload_limits(self) -> list[int | None]:
        """Largest input per upstream; None for one that has not said or sets no limit."""
        known = (member.upstream.capabilities() for member in self._members.values())
        return [_largest_file(capabilities) if capabilities else None for capabilities in known]


def _why_not_now(member: Member, now: float) -> str:
    status = member.upstream.status()
    reasons = (
        "" if status.reachable else status.reason or "it is not reachable",
        "it is being drained" if member.draining else "",
        member.breaker.reason(now),
        "it works on another job" if member.at_work else "",
        f"it is busy with {status.foreign_prompts} prompts of others" if status.foreign_prompts else "",
        _settling(member),
        "" if member.room(now) is Room.NOW else "its results are still being fetched",
    )
    return next(filter(None, reasons), "")


def _settling(member: Member) -> str:
    """That it is about to be restarted, or rid of prompts that were given up and are still there; "" where neither is."""
    if member.restarting:
        return "it is restarted when it has nothing to do"
    number = member.upstream.status().stale_prompts
    if not number:
        return ""
    return f"removing {number} prompt{'s' * (number > 1)} that nobody waits for any more, before it gets anything else"


def _ready(member: Member) -> Capabilities | None:
    status = member.upstream.status()
    is_available = status.reachable and not member.draining and not member.restarting
    if not is_available or status.foreign_prompts or status.stale_prompts:
        return None
    return member.upstream.capabilities()


def _largest_file(capabilities: Capabilities) -> int | None:
    limit = capabilities.max_upload_bytes
    return None if limit is None else max(0, limit - FORM_BYTES)


def _is_for_worker(template: Template) -> bool:
    is_ours = template.workflow is None and not template.swaps_faces
    return is_ours and any(node.class_type == DETECTION_CLASS for node in template.nodes.values())


async def _close(member: Member) -> None:
    await member.upstream.close()
    member.runner.cancel()
    await asyncio.gather(member.runner, return_exceptions=True)
