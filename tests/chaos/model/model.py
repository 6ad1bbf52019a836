"""What the gateway promises of a job, written from the table of states and not from the engine.

The model knows what happened outside (who asked for what, what an upstream said, how time passed) and says what every
answer must then be. Where the engine is free (which waiting job goes to which upstream) it only judges the choice.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_LOSSES = 3
MAX_INTERRUPTIONS = 20
#: An upstream that does not obey a cancel is asked again so long after the last time.
ASK_AGAIN_SECONDS = 5.0
QUEUE_TTL_SECONDS = 300.0
RESTS = (6.0, 12.0)
ENDED = frozenset({"succeeded", "failed", "canceled"})
LIVE = frozenset({"dispatched", "running", "finishing"})


@dataclass
class Place:
    """An upstream in the pool."""

    draining: bool = False
    faults: int = 0
    ejections: int = 0
    rests_until: float = 0.0
    #: Its faults and the end of its rest as they were for a moment: between a prompt's success and the news that it cannot
    #: give the files it may have been given more.
    before: tuple[int, float] | None = None
    #: Jobs whose prompt is there, the first first.
    prompts: list[str] = field(default_factory=list)

    def fault(self, now: float) -> None:
        if now < self.rests_until:
            return
        self.faults += 1
        is_ejected = self.faults > len(RESTS)
        self.ejections += is_ejected
        self.rests_until = now + (min(30.0 * self.ejections, 300.0) if is_ejected else RESTS[self.faults - 1])

    def success(self) -> None:
        self.faults = self.ejections = 0
        self.rests_until = 0.0


@dataclass
class Job:
    """A job as it must be shown."""

    kind: str
    created_at: float
    state: str = "queued"
    events: list[str] = field(default_factory=lambda: ["queued"])
    is_flagged: bool = False
    #: When its upstream is asked again to let go of it.
    asked_again_at: float = 0.0
    losses: int = 0
    interruptions: int = 0
    attempt: int = 0
    place: str | None = None
    code: str | None = None
    #: Of the attempt at work, as the process at work knows it.
    heard: bool = False
    started: bool = False
    has_told_how_far: bool = False
    is_adopted: bool = False
    is_ahead: bool = False
    is_retry: bool = False
    #: What its result is to hold.
    content: bytes | None = None


class Model:
    """All jobs and upstreams."""

    def __init__(self) -> None:
        self.now = 0.0
        self.jobs: dict[str, Job] = {}
        self.places: dict[str, Place] = {}

    def at_work(self, *states: str) -> list[str]:
        return [name for name, job in self.jobs.items() if job.state in (states or LIVE)]

    def may_take(self, job_id: str, name: str) -> bool:
        job, place = self.jobs[job_id], self.places.get(name)
        if place is None or place.draining or not self.is_due(job):
            return False
        faults, rests_until = place.before or (place.faults, place.rests_until)
        if rests_until > self.now:
            return False
        first = self.jobs[place.prompts[0]] if place.prompts else None
        # One more is sent ahead to wait there, but not on trial, and not behind one that never said how far it is.
        return first is None or (len(place.prompts) == 1 and first.started and first.has_told_how_far and not faults)

    def is_due(self, job: Job) -> bool:
        retries = sum(self.jobs[name].is_retry for name in self.at_work())
        return job.state == "queued" and (not job.losses or retries < max(1, int(0.2 * len(self.at_work()))))

    def idle_with_work(self) -> list[tuple[str, str]]:
        """Who stands still although there is something to do."""
        idle = [name for name, place in self.places.items() if not place.prompts and place.rests_until <= self.now]
        return [(name, job_id) for name in idle for job_id in self.at_work("queued") if self.may_take(job_id, name)]

    def dispatch(self, job_id: str, name: str) -> None:
        job, place = self.jobs[job_id], self.places[name]
        job.is_ahead, job.is_retry = bool(place.prompts), job.losses > 0
        job.heard = job.started = job.has_told_how_far = job.is_adopted = False
        job.attempt, job.place, job.state = job.attempt + 1, name, "dispatched"
        place.prompts.append(job_id)
        job.events.append("dispatched")

    def start(self, job: Job) -> None:
        job.heard = job.started = True
        if job.state == "dispatched":
            job.state = "running"
            job.events.append("started")

    def tell_how_far(self, job: Job) -> None:
        job.heard = job.has_told_how_far = True

    def leave(self, job_id: str) -> None:
        place = self.places.get(self.jobs[job_id].place or "")
        if place is not None and job_id in place.prompts:
            place.prompts.remove(job_id)

    def end(self, job_id: str, state: str, code: str | None = None) -> None:
        """The terminal commit: a cancel that came before it wins."""
        job = self.jobs[job_id]
        self.leave(job_id)
        job.state = "canceled" if job.is_flagged else state
        job.code = code if job.state == "failed" else None
        job.events.append(job.state)

    def requeue(self, job_id: str, *, lost: bool) -> None:
        job = self.jobs[job_id]
        job.losses, job.interruptions = job.losses + lost, job.interruptions + (not lost)
        if job.is_flagged or job.losses >= MAX_LOSSES or job.interruptions >= MAX_INTERRUPTIONS:
            self.end(job_id, "failed", "upstream_lost")
            return
        self.leave(job_id)
        job.state = "queued"
        job.events.append("requeued")

    def lose(self, job_id: str, *, by_our_stop: bool) -> None:
        job = self.jobs[job_id]
        place, unseen = self.places[job.place or ""], job.is_adopted and not job.heard
        waited = job.is_ahead and not job.started
        self.requeue(job_id, lost=not (by_our_stop or waited or unseen))
        if not (by_our_stop or waited or unseen):
            place.fault(self.now)

    def interrupt(self, job_id: str) -> None:
        """Somebody at the upstream, or we, for a cancel."""
        if self.jobs[job_id].is_flagged:
            self.end(job_id, "canceled")
        else:
            self.requeue(job_id, lost=self.jobs[job_id].started)

    def cancel(self, job_id: str, *, obeys: bool) -> int:
        job = self.jobs[job_id]
        if job.state in ENDED:
            return 409
        if job.state == "queued":
            self.end(job_id, "canceled")
            return 200
        if not job.is_flagged:
            job.is_flagged = True
            job.events.append("cancel_requested")
            self.ask_to_let_go(job_id, obeys=obeys)
        return 202

    def ask_to_let_go(self, job_id: str, *, obeys: bool) -> None:
        """What a cancel does where the job is; one that is not obeyed is repeated after a while, not by a second wish."""
        job = self.jobs[job_id]
        job.asked_again_at = self.now + ASK_AGAIN_SECONDS
        if job.state == "finishing":
            self.collected(job_id, "canceled")
        elif obeys:
            self.interrupt(job_id)

    def finish(self, job_id: str) -> None:
        self.leave(job_id)
        job = self.jobs[job_id]
        job.state = "finishing"
        job.events.append("finishing")

    def collected(self, job_id: str, found: str) -> None:
        """What became of the files: "succeeded", "canceled", "unchanged", "gone"."""
        job = self.jobs[job_id]
        place = self.places.get(job.place or "", Place())
        if found == "gone" and not job.is_flagged:
            unseen = job.is_adopted and not job.heard
            self.requeue(job_id, lost=not unseen)
            if not unseen:
                place.before = (place.faults, place.rests_until)
                place.fault(self.now)
            return
        self.end(job_id, "failed" if found == "unchanged" else found, "result_unchanged")
        place.success()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for job_id in self.at_work("queued"):
            if self.jobs[job_id].created_at + QUEUE_TTL_SECONDS <= self.now:
                self.end(job_id, "failed", "expired")

    def restart(self) -> None:
        """What only a process knows is forgotten."""
        for place in self.places.values():
            place.success()
        for job in self.jobs.values():
            job.heard = job.started = job.has_told_how_far = job.is_ahead = job.is_retry = False
            job.is_adopted = True
