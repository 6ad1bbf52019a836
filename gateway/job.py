r"""The life of a job: states, events, the table of transitions, the retry rule. Read this first.

A **job** is what a client asked for. It has one or more **tasks**, each one graph to run; a task is tried in
**attempts**, each on one upstream under a prompt id of its own, chosen and stored before the upstream hears of it.

::

    state \ event    dispatched  started  succeeded  attempt_lost  interrupted  failed  cancel_requested  canceled  expired
    queued          dispatched  -        -          -             -            failed  canceled          -         failed
    dispatched      -           running  succeeded¹ queued        queued       failed  (flag)            canceled  failed
    running         -           -        succeeded  queued        queued       failed  (flag)            canceled  failed
    succeeded, failed, canceled: nothing more happens

¹ the start was missed; only history tells.

Three guards stand beside the table (``decide``): a task whose cancel was requested never goes back to the queue and
ends canceled however its attempt ends, because **a cancel wins until the job's terminal commit**; a lost attempt with
none left ends the task as failed; so does an interruption too many. What an older attempt still says is dropped by
attempt number before the table is asked (``store``).

``succeeded`` is said in the terminal commit only, when the results lie in our own store. Between the upstream's success
and that commit the attempt is *finishing*; if its files turn out to be gone, the attempt is lost and the task runs anew.

Pure: no clock, no I/O. ``engine/recorder.py`` acts on what is decided here, the schema repeats the promises as CHECKs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.audit import MediaFacts
from gateway.errors import UpstreamLostError


class TaskState(StrEnum):
    """Where a task is."""

    QUEUED = "queued"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


class JobState(StrEnum):
    """Where a job is; follows from its tasks (``job_state``)."""

    QUEUED = "queued"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    FINISHING = "finishing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


class TaskEvent(StrEnum):
    """What can happen to a task."""

    DISPATCHED = "dispatched"
    STARTED = "started"
    SUCCEEDED = "succeeded"
    ATTEMPT_LOST = "attempt_lost"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    CANCEL_REQUESTED = "cancel_requested"
    CANCELED = "canceled"
    EXPIRED = "expired"


class Cause(StrEnum):
    """What ended an attempt that was lost or interrupted: evidence, kept with the attempt."""

    #: Its upstream went away, or came back without knowing of it, and it was not us.
    DIED = "died"
    #: A worker that lives and dies with us was stopped or killed.
    STOPPED = "stopped"
    #: Nothing was heard of it for too long.
    STALLED = "stalled"
    #: Its upstream ran out of memory.
    OUT_OF_MEMORY = "out_of_memory"
    #: Somebody at the upstream dequeued or interrupted it, or its inputs were not there any more.
    TAKEN_BACK = "taken_back"
    #: It was gone when we came back to it.
    UNSEEN = "unseen"
    #: Its upstream was done, and could not give the file.
    RESULT_LOST = "result_lost"
    #: Its upstream was done, and we could not keep the file.
    NOT_STORED = "not_stored"


#: States that nothing leaves.
TERMINAL = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELED})
TERMINAL_JOB = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED})
#: States in which an upstream may know the task's prompt.
LIVE = frozenset({TaskState.DISPATCHED, TaskState.RUNNING})

#: How often our own stop may cut a task short before it is given up. Costs no attempt below that: each is our doing,
#: but a task that is always running when the gateway dies may be why it dies.
MAX_INTERRUPTIONS = 20

_Q, _D, _R = TaskState.QUEUED, TaskState.DISPATCHED, TaskState.RUNNING
TRANSITIONS: Mapping[tuple[TaskState, TaskEvent], TaskState] = {
    (_Q, TaskEvent.DISPATCHED): _D,
    (_Q, TaskEvent.FAILED): TaskState.FAILED,
    (_Q, TaskEvent.CANCEL_REQUESTED): TaskState.CANCELED,
    (_Q, TaskEvent.EXPIRED): TaskState.FAILED,
    (_D, TaskEvent.STARTED): _R,
    (_D, TaskEvent.SUCCEEDED): TaskState.SUCCEEDED,
    (_D, TaskEvent.ATTEMPT_LOST): _Q,
    (_D, TaskEvent.INTERRUPTED): _Q,
    (_D, TaskEvent.FAILED): TaskState.FAILED,
    (_D, TaskEvent.CANCEL_REQUESTED): _D,
    (_D, TaskEvent.CANCELED): TaskState.CANCELED,
    (_D, TaskEvent.EXPIRED): TaskState.FAILED,
    (_R, TaskEvent.SUCCEEDED): TaskState.SUCCEEDED,
    (_R, TaskEvent.ATTEMPT_LOST): _Q,
    (_R, TaskEvent.INTERRUPTED): _Q,
    (_R, TaskEvent.FAILED): TaskState.FAILED,
    (_R, TaskEvent.CANCEL_REQUESTED): _R,
    (_R, TaskEvent.CANCELED): TaskState.CANCELED,
    (_R, TaskEvent.EXPIRED): TaskState.FAILED,
}


@dataclass(frozen=True, slots=True)
class JobInput:
    """One input of a job, stored before the job is."""

    #: Asset that holds it; expires with the job.
    asset_id: str
    #: blake3 of its bytes, 64 hex digits.
    blob: str
    size_bytes: int
    facts: MediaFacts
    #: The uploaded file or the result of another job that it was made of, by its asset's id; None when it came with the job.
    source: str | None = None


@dataclass(frozen=True, slots=True)
class JobResult:
    """One finished file of a job."""

    asset_id: str
    #: blake3 of its bytes, 64 hex digits; or where it lies, when that is not with us (``placed.py``).
    blob: str
    size_bytes: int
    facts: MediaFacts
    #: Name under which ``/download/`` serves it; carries 128 random bits.
    link: str
    #: Of a client's own graph: the node that made it.
    node_id: str | None = None
    #: What the client's graph wants it to be called.
    name: str | None = None
    #: Id of the attempt that made it, which takes it along when it is lost. None: it was kept when the job ended.
    attempt_id: str | None = None
    #: What it was called on the upstream, folders and all: tells apart the files of a node.
    source: str | None = None
    #: Where it lies when its upstream has put it there and it is not with us, fit to be shown: ``s3://bucket/prefix/key``.
    place: str | None = None

    @property
    def key(self) -> tuple[str | None, str | None, str]:
        """The same for the same file of the same attempt, however often it is fetched."""
        return (self.attempt_id, self.node_id, self.asset_id if self.source is None else self.source)


@dataclass(frozen=True, slots=True)
class Job:
    """A job as stored. Times are Unix seconds."""

    #: UUIDv7; faceswap's prompt_id.
    id: str
    #: Whose it is; "local" in open mode.
    owner: str
    #: Who shares fairly with whom: the owner, in open mode the client's address.
    submitter: str
    #: The API it came in by.
    dialect: str
    #: What it does: "face_swap".
    task: str
    template: str
    #: Content version of the template that the job is pinned to.
    template_version: str
    state: JobState
    #: Higher runs earlier within one submitter.
    priority: int
    parameters: Mapping[str, object]
    #: By role: "target", "face".
    inputs: Mapping[str, JobInput]
    #: What the client wants the file to be called, already made safe; no extension.
    output_name: str
    created_at: float
    updated_at: float
    #: When it still waits by then, it fails with code expired.
    queue_deadline: float
    started_at: float | None = None
    finished_at: float | None = None
    #: Set once by a cancel that came while an upstream knew the job.
    cancel_requested_at: float | None = None
    error_code: str | None = None
    error_message: str | None = None
    #: The node that it failed at, where one did: its id and class in the graph.
    error_node_id: str | None = None
    error_node_class: str | None = None
    warnings: tuple[str, ...] = ()
    #: "comfyui" or "preview" (the embedded worker); None until an upstream took it.
    engine: str | None = None
    #: Name of the upstream that has or had it last.
    upstream: str | None = None
    #: Highest fraction that was ever shown, 0..1; 1.0 only when succeeded.
    fraction: float = 0.0
    #: The sentence beside it.
    step: str = ""
    results: tuple[JobResult, ...] = ()
    #: Number of its newest durable event.
    last_event: int = 0
    #: Credits taken for it when it was made, given back when it fails or is canceled; 0 where nobody pays.
    credit_cost: int = 0
    #: Anything a dialect wants to find again.
    extra: Mapping[str, object] = field(default_factory=dict)

    @property
    def is_terminal(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state in TERMINAL_JOB


@dataclass(frozen=True, slots=True)
class Task:
    """One graph to run for a job."""

    id: str
    job_id: str
    #: 0-based place among the job's tasks.
    position: int
    state: TaskState
    #: Number of the newest attempt; 0 before the first.
    attempt: int = 0
    #: Attempts whose upstream failed while we watched.
    losses: int = 0
    #: Attempts that our own stop ended.
    interruptions: int = 0
    cancel_requested: bool = False
    #: The upstream says it is done; results are being fetched, audited, stored.
    finishing: bool = False
    #: Set while dispatched or running.
    upstream: str | None = None
    #: The newest attempt's id: UUIDv4, sent to ComfyUI as prompt_id.
    prompt_id: str | None = None


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """How much loss a task survives."""

    #: Attempts in all of which none may remain after this many were lost.
    max_attempts: int = 3
    max_interruptions: int = MAX_INTERRUPTIONS


@dataclass(frozen=True, slots=True)
class Decision:
    """What an event does to a task."""

    state: TaskState
    cancel_requested: bool
    losses: int
    interruptions: int
    #: Set when the guards, not the event, made it fail.
    error_code: str | None = None
    error_message: str | None = None


def next_state(state: TaskState, event: TaskEvent) -> TaskState | None:
    """The table's answer, None where it refuses."""
    return TRANSITIONS.get((state, event))


def decide(task: Task, event: TaskEvent, limits: RetryLimits) -> Decision | None:
    """What ``event`` does to ``task``, guards included; None when nothing may change."""
    target = next_state(task.state, event)
    if target is None:
        return None
    losses = task.losses + (event is TaskEvent.ATTEMPT_LOST)
    interruptions = task.interruptions + (event is TaskEvent.INTERRUPTED)
    flagged = task.cancel_requested or (event is TaskEvent.CANCEL_REQUESTED and target in LIVE)
    if task.cancel_requested and target not in LIVE:
        return Decision(TaskState.CANCELED, True, losses, interruptions)
    if target is TaskState.QUEUED and (losses >= limits.max_attempts or interruptions >= limits.max_interruptions):
        sentence = f"Gave up after {losses} lost and {interruptions} interrupted attempts."
        return Decision(TaskState.FAILED, flagged, losses, interruptions, UpstreamLostError.code, sentence)
    return Decision(target, flagged, losses, interruptions)


def job_state(tasks: Iterable[Task]) -> JobState:
    """A job's state from its tasks': the worst end wins, else the furthest that any task has come."""
    seen = list(tasks)
    states = {task.state for task in seen}
    if states <= TERMINAL:
        for state in (TaskState.FAILED, TaskState.CANCELED):
            if state in states:
                return JobState(state.value)
        return JobState.SUCCEEDED
    if all(task.finishing or task.state is TaskState.SUCCEEDED for task in seen):
        return JobState.FINISHING
    if TaskState.RUNNING in states or TaskState.SUCCEEDED in states:
        return JobState.RUNNING
    return JobState.DISPATCHED if TaskState.DISPATCHED in states else JobState.QUEUED


def picture() -> str:
    """The table above, made from ``TRANSITIONS``; ``gateway/README.md`` shows it and a test compares."""
    head = "| state \\ event | " + " | ".join(event.value for event in TaskEvent) + " |"
    rule = "|---" * (len(TaskEvent) + 1) + "|"
    rows = []
    for state in (_Q, _D, _R):
        cells = []
        for event in TaskEvent:
            target = next_state(state, event)
            cells.append("-" if target is None else "flag" if target is state else target.value)
        rows.append(f"| {state.value} | " + " | ".join(cells) + " |")
    rows.append("| terminal | " + " | ".join("-" for _ in TaskEvent) + " |")
    return "\n".join([head, rule, *rows])
