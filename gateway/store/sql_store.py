"""``interfaces.Store`` over SQL: each method is one query function in one transaction of an executor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Self
from uuid import uuid4

from gateway.comfy.messages import OutputFile
from gateway.events import Event
from gateway.faces import DETECTION_TASK
from gateway.interfaces import Blob, Candidate, NewJob, OpenTask, Purged, Recorded, Report, Swept, UpstreamRow
from gateway.job import Job, JobResult, JobState, RetryLimits, Task
from gateway.lease import Lease
from gateway.poison import Trail
from gateway.store.copying import blobs_of
from gateway.store.detections import Detections
from gateway.store.executors import Executor, InlineExecutor, SqliteExecutor
from gateway.store.queries import (
    assets,
    creating,
    in_use,
    jobs,
    leases,
    purging,
    queue,
    recording,
    sweeping,
    timings,
    trails,
    upstreams,
)
from gateway.store.sql_accounts import SqlAccounts
from gateway.store.sql_assets import SqlAssets
from gateway.store.sql_consents import SqlConsents
from gateway.store.sql_credits import SqlClaims, SqlCredits
from gateway.store.sql_deliveries import SqlDeliveries
from gateway.store.sql_webhooks import SqlWebhooks
from gateway.timings import Key, Row


def _random_id() -> str:
    return uuid4().hex


class SqlStore:
    """The durable truth.

    Args:
        executor: where the queries run.
        result_retention_seconds: how long results are kept after their job ended.
        asset_retention_seconds: how long inputs are kept after the last job that needs them ended.
        new_client_id: makes the client id of an upstream that is new.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        result_retention_seconds: float,
        asset_retention_seconds: float,
        new_client_id: Callable[[], str] = _random_id,
    ) -> None:
        self._executor = executor
        self.accounts = SqlAccounts(executor)
        self.assets = SqlAssets(executor)
        self.credits = SqlCredits(executor)
        self.claims = SqlClaims(executor)
        self.webhooks = SqlWebhooks(executor)
        self.consents = SqlConsents(executor)
        self.deliveries = SqlDeliveries(executor)
        self._retention = recording.Retention(result_retention_seconds, asset_retention_seconds)
        self._new_client_id = new_client_id
        self._detections = Detections()
        #: Where the window of candidates goes on; "" while all lanes fit into it.
        self._after_lane = ""

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        result_retention_seconds: float,
        asset_retention_seconds: float,
        claim: leases.Claim | None = None,
    ) -> Self:
        """The store in the SQLite file at ``path``, made or migrated first; its folder exists and is private.

        Args:
            path: of the file.
            result_retention_seconds: see the class.
            asset_retention_seconds: see the class.
            claim: the lease to take, and to write under from then on.

        Raises:
            LeaseMovedError: the lease was to be taken over, and its holder lives; nothing was changed.
            SchemaTooNewError: a newer version of the gateway wrote the file.
            OSError: the file cannot be made or opened.
        """
        executor = SqliteExecutor(path, claim=claim)
        try:
            await executor.start()
        except BaseException:
            await executor.close()
            raise
        return cls(
            executor,
            result_retention_seconds=result_retention_seconds,
            asset_retention_seconds=asset_retention_seconds,
        )

    @classmethod
    def in_memory(
        cls,
        *,
        result_retention_seconds: float = 86_400.0,
        asset_retention_seconds: float = 86_400.0,
        new_client_id: Callable[[], str] = _random_id,
        claim: leases.Claim | None = None,
        beside: SqlStore | None = None,
    ) -> Self:
        """A store for tests and simulations: the same SQL, in memory, in the caller's thread.

        Args:
            result_retention_seconds: see the class.
            asset_retention_seconds: see the class.
            new_client_id: see the class.
            claim: the lease to take, and to write under from then on.
            beside: another store in memory, to be the second gateway on its database.
        """
        other = None if beside is None else beside._executor  # noqa: SLF001 - shared by the two
        if not (other is None or isinstance(other, InlineExecutor)):
            raise TypeError("only a database in memory can be shared")
        return cls(
            InlineExecutor(claim, beside=other),
            result_retention_seconds=result_retention_seconds,
            asset_retention_seconds=asset_retention_seconds,
            new_client_id=new_client_id,
        )

    # ---- its lease

    @property
    def lease(self) -> Lease | None:
        """The lease that it writes under, as it was taken; None when it was opened without."""
        return self._executor.lease

    async def raise_counter(self) -> None:
        """Show others that the holder of the lease lives. Raises LeaseLostError."""
        if (held := self._executor.lease) is not None:
            await self._executor.write(leases.raise_counter, held)

    # ---- a job's life

    async def create_job(self, new: NewJob, *, max_queue: int, now: float) -> Recorded:
        """Store job, task, input assets and event 1 (queued), charge its price, keep its promise.

        Raises:
            QueueFullError: as many tasks wait as may.
            InsufficientCreditsError: whoever pays has less than its price.
            IdempotencyInFlightError: the promise's claim is somebody else's by now.
        """
        with self._detections.making(new.owner) if new.task == DETECTION_TASK else nullcontext():
            return await self._executor.write(creating.create_job, new, max_queue, now)

    async def record(self, task_id: str, report: Report, *, limits: RetryLimits, now: float) -> Recorded | None:
        """Apply an event by ``job.decide``; None when it is stale or refused: then no row changed."""
        return await self._executor.write(recording.record, task_id, report, limits, self._retention, now)

    async def record_outputs(
        self, task_id: str, attempt: int, outputs: Mapping[str, tuple[OutputFile, ...]], *, now: float
    ) -> Recorded | None:
        """The upstream succeeded: keep what it named, set finishing. None when stale."""
        return await self._executor.write(recording.record_outputs, task_id, attempt, outputs, now)

    async def keep_results(
        self, task_id: str, attempt: int, results: Sequence[JobResult], *, now: float
    ) -> Recorded | None:
        """Keep files that an attempt has made while it is at work, each once. None when stale, or being canceled."""
        return await self._executor.write(recording.keep_results, task_id, attempt, results, now)

    async def request_cancel(self, job_id: str, from_states: frozenset[JobState], *, now: float) -> Recorded | None:
        """Cancel: queued ends canceled, live gets its flag. None when the job is in none of ``from_states``."""
        return await self._executor.write(recording.request_cancel, job_id, from_states, self._retention, now)

    async def expire_queued(self, *, now: float) -> Sequence[Recorded]:
        """Fail what has waited past its deadline; one batch, so come again while something came back."""
        return await self._executor.write(recording.expire_queued, self._retention, now)

    async def save_progress(self, rows: Sequence[tuple[str, float, str]], *, now: float) -> None:
        """Raise jobs' highest fraction and its sentence: (job id, fraction, step). Never lowers; not for ended jobs."""
        await self._executor.write(jobs.save_progress, rows, now)

    # ---- looking

    async def job(self, job_id: str) -> Job | None:
        """One job, whoever owns it."""
        return await self._executor.read(jobs.job, job_id)

    async def job_of(self, job_id: str, owner: str) -> Job | None:
        """One job, when it is this owner's."""
        return await self._executor.read(jobs.job_of, job_id, owner)

    async def jobs(
        self,
        owner: str,
        *,
        states: frozenset[JobState] | None,
        before: str | None,
        limit: int,
        task: str | None = None,
    ) -> Sequence[Job]:
        """An owner's jobs, newest first; ``before`` is the id of the last one already seen.

        Args:
            owner: whose.
            states: only those in one of these.
            before: raises InvalidInputError where it is no job of theirs.
            limit: most.
            task: only those that do this.
        """
        return await self._executor.read(jobs.jobs_of, owner, states, task, before, limit)

    async def events_after(self, job_id: str, number: int, *, limit: int = 256) -> Sequence[Event]:
        """Durable events with a higher number, in order."""
        return await self._executor.read(jobs.events_after, job_id, number, limit)

    async def workflow(self, job_id: str) -> str | None:
        """The graph that a client sent, and what belongs to it; None for jobs of templates."""
        return await self._executor.read(jobs.workflow, job_id)

    async def result_by_link(self, link: str, *, now: float) -> tuple[Job, JobResult] | None:
        """A finished file by its capability name, while it is kept."""
        return await self._executor.read(assets.result_by_link, link, now)

    async def face_report(self, owner: str, picture: str) -> str | None:
        """Hash of the newest report that a detection of an owner's made of the faces of a picture, by its hash."""
        if self._detections.has_none(owner):
            return None
        turn = self._detections.turn
        found, has_any = await self._executor.read(assets.face_report, owner, picture)
        if not has_any:
            self._detections.note_none(owner, turn)
        return found

    async def counts(self) -> Mapping[JobState, int]:
        """How many jobs are in each state."""
        return await self._executor.read(jobs.counts)

    # ---- the queue

    async def candidates(self, *, limit: int) -> Sequence[Candidate]:
        """Heads of the queue per submitter and requirement, found by index; at most ``limit``."""
        found, self._after_lane = await self._executor.read(queue.candidates, limit, self._after_lane)
        return found

    async def queue_position(self, job_id: str) -> int | None:
        """How many tasks were queued before it, from 0; None when it does not wait."""
        return await self._executor.read(queue.queue_position, job_id)

    async def seconds_ahead(self, job_id: str) -> float | None:
        """Predicted seconds of the tasks queued before it; None when it does not wait."""
        return await self._executor.read(queue.seconds_ahead, job_id)

    async def queued_task(self, task_id: str) -> tuple[Job, Task] | None:
        """A task and its job, when it is still queued."""
        return await self._executor.read(queue.queued_task, task_id)

    async def open_tasks(self) -> Sequence[OpenTask]:
        """All dispatched and running tasks."""
        return await self._executor.read(queue.open_tasks)

    async def trails(self, task_ids: Sequence[str]) -> Mapping[str, Trail]:
        """Of each of these tasks, the upstreams that died while they ran it, and what else was lost around then."""
        return await self._executor.read(trails.trails, task_ids)

    async def note_outage(self, upstream: str, *, at: float) -> None:
        """An upstream that could be reached no longer can, since ``at``."""
        await self._executor.write(trails.note_outage, upstream, at)

    # ---- what is kept beside jobs

    async def forget_blob(self, blob_hash: str) -> bool:
        """Forget a blob that nothing refers to; True when its bytes may go."""
        return await self._executor.write(assets.forget_blob, blob_hash)

    async def save_template(self, name: str, version: str, toml: str, graph: str, *, now: float) -> None:
        """Keep a template version, so that jobs pinned to it survive an edit and a restart."""
        await self._executor.write(upstreams.save_template, name, version, toml, graph, now)

    async def template(self, name: str, version: str) -> tuple[str, str] | None:
        """(toml, graph) of a kept version."""
        return await self._executor.read(upstreams.template, name, version)

    async def upstream(self, name: str, *, url: str | None = None, now: float) -> UpstreamRow:
        """The row of an upstream, made with a new client id when there is none."""
        return await self._executor.write(upstreams.upstream, name, url, self._new_client_id(), now)

    async def upstreams(self) -> Sequence[UpstreamRow]:
        """All remembered upstreams."""
        return await self._executor.read(upstreams.all_upstreams)

    async def set_upstream(
        self, name: str, *, removed: bool | None = None, draining: bool | None = None, now: float
    ) -> UpstreamRow | None:
        """Change what is remembered; None when there is no such upstream."""
        return await self._executor.write(upstreams.set_upstream, name, removed=removed, draining=draining, now=now)

    async def timings(self) -> Sequence[Row]:
        """All that was learned of how long nodes take."""
        return await self._executor.read(timings.all_timings)

    async def save_timings(self, changed: Sequence[Row], gone: Sequence[Key], repriced: Mapping[str, float]) -> None:
        """Keep and forget learned rows; multiply the cost of what is queued of the templates in ``repriced``."""
        await self._executor.write(timings.save_timings, changed, gone, repriced)

    async def sweep(self, *, job_retention_seconds: float, blob_grace_seconds: float, now: float) -> Swept:
        """Forget expired assets, jobs past retention and blobs nobody refers to (committed longer ago than the grace).

        One batch of each: come again while something came back.
        """
        return await self._executor.write(sweeping.sweep, job_retention_seconds, blob_grace_seconds, now)

    async def in_use(self, hashes: Collection[str], prompts: Collection[str]) -> frozenset[str]:
        """Of these inputs and attempts those that something which has not ended needs."""
        return await self._executor.read(in_use.in_use, hashes, prompts)

    async def purge_job(self, job_id: str) -> Purged | None:
        """Forget an ended job, its files too; None when there is none. Raises ConflictError when it has not ended."""
        return await self._executor.write(purging.purge_job, job_id)

    async def purge_owner(self, owner: str) -> Purged:
        """Forget one batch of an owner's jobs and files; come again while something went.

        Raises:
            ConflictError: a job of the owner has not ended; nothing was changed.
        """
        return await self._executor.write(purging.purge_owner, owner)

    async def copy_to(self, path: Path) -> None:
        """Write a copy of one committed state to a new SQLite file, while others read and write.

        Raises:
            StorageFullError: there is no room for it.
        """
        await self._executor.copy_to(path)

    async def blobs_of_copy(self, path: Path, *, after: str, limit: int) -> Sequence[Blob]:
        """The next blobs that assets in such a copy refer to, by hash."""
        return await asyncio.to_thread(blobs_of, path, after=after, limit=limit)

    async def touch_blob(self, blob: Blob, *, now: float) -> None:
        """Take note of a committed blob, so that the sweep knows it."""
        await self._executor.write(assets.touch_blob, blob, now)

    async def close(self) -> None:
        """Finish what was begun and let go of the database."""
        await self._executor.close()
