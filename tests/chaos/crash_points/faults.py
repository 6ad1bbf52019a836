"""Faults to plant, each of which the inspection must find somewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from gateway.blobs.local import LocalBlobs
from gateway.delivering import planned
from gateway.engine.maintenance import Maintenance
from gateway.interfaces import NewJob
from gateway.job import JobState
from gateway.store.queries import claims, recording
from gateway.store.sql_store import SqlStore
from tests.chaos.crash_points import house


def remembers_no_draining() -> None:
    remember = SqlStore.set_upstream

    async def forgetful(self: SqlStore, name: str, *, draining: bool | None = None, **more: Any) -> Any:
        del draining
        return await remember(self, name, **more)

    SqlStore.set_upstream = forgetful  # type: ignore[method-assign]


def deletes_bytes_before_rows() -> None:
    purge = SqlStore.purge_job

    async def forget_late(self: SqlStore, job_id: str) -> Any:
        job = await self.job(job_id)
        folder = self._executor._path.parent / "blobs"  # type: ignore[attr-defined]
        for result in job.results if job is not None else ():
            (folder / result.blob[:2] / result.blob).unlink()
        return await purge(self, job_id)

    SqlStore.purge_job = forget_late  # type: ignore[method-assign]


def leaves_parts() -> None:
    def prepare(self: LocalBlobs) -> int:
        (self._root / "parts").mkdir(mode=0o700, parents=True, exist_ok=True)
        return 0

    LocalBlobs._prepare = prepare  # type: ignore[method-assign]


def leaves_scratch() -> None:
    house.clear_scratch = lambda _folder: None


def knows_no_strays() -> None:
    async def nothing(_self: Maintenance) -> None:
        return

    Maintenance.sweep_strays = nothing  # type: ignore[method-assign]


def writes_under_the_last_name() -> None:
    """Results and uploads appear under their hash before they are whole."""
    adopt = LocalBlobs._adopt

    def early(self: LocalBlobs, part: Any, blob_hash: str) -> None:
        target = self.path(blob_hash)
        if not target.exists():
            target.parent.mkdir(mode=0o700, exist_ok=True)
            target.write_bytes(part.read_bytes()[:5])
            self._stamp(target)
            target.unlink()
        adopt(self, part, blob_hash)

    LocalBlobs._adopt = early  # type: ignore[method-assign]


def refunds_in_a_second_transaction() -> None:
    close, cancel = recording.close_hold, SqlStore.request_cancel

    def forgets(connection: Any, job: Any, now: float) -> None:
        if job.state is not JobState.CANCELED:
            close(connection, job, now)

    async def late(self: SqlStore, job_id: str, states: frozenset[JobState], *, now: float) -> Any:
        recorded = await cancel(self, job_id, states, now=now)
        if recorded is not None and recorded.job.credit_cost and recorded.job.is_terminal:
            await self._executor.write(close, recorded.job, now)
        return recorded

    recording.close_hold = forgets
    SqlStore.request_cancel = late  # type: ignore[method-assign]


def keeps_answers_in_a_second_transaction() -> None:
    create = SqlStore.create_job

    async def late(self: SqlStore, new: NewJob, *, max_queue: int, now: float) -> Any:
        recorded = await create(self, replace(new, promise=None), max_queue=max_queue, now=now)
        if (promise := new.promise) is not None:
            await self._executor.write(claims.finish, promise.claim, promise.answer(recorded.job), now)
        return recorded

    SqlStore.create_job = late  # type: ignore[method-assign]


def tells_in_a_second_transaction() -> None:
    post, record = recording.post, SqlStore.record

    def forgets(connection: Any, job: Any, now: float) -> None:
        if job.state is JobState.CANCELED:
            post(connection, job, now)

    async def late(self: SqlStore, task_id: str, report: Any, *, limits: Any, now: float) -> Any:
        recorded = await record(self, task_id, report, limits=limits, now=now)
        if recorded is not None and recorded.job.is_terminal and recorded.job.state is not JobState.CANCELED:
            await self._executor.write(post, recorded.job, now)
        return recorded

    recording.post = forgets
    SqlStore.record = late  # type: ignore[method-assign]


def completes_consents_in_a_second_transaction() -> None:
    complete, record = recording.complete_consent, SqlStore.record

    def forgets(connection: Any, job: Any, now: float) -> None:
        if job.state is JobState.CANCELED:
            complete(connection, job, now)

    async def late(self: SqlStore, task_id: str, report: Any, *, limits: Any, now: float) -> Any:
        recorded = await record(self, task_id, report, limits=limits, now=now)
        if recorded is not None and recorded.job.is_terminal and recorded.job.state is not JobState.CANCELED:
            await self._executor.write(complete, recorded.job, now)
        return recorded

    recording.complete_consent = forgets
    SqlStore.record = late  # type: ignore[method-assign]


def plans_deliveries_in_a_second_transaction() -> None:
    add, record = recording.add_deliveries, SqlStore.record

    async def late(self: SqlStore, task_id: str, report: Any, *, limits: Any, now: float) -> Any:
        recorded = await record(self, task_id, report, limits=limits, now=now)
        if recorded is not None and recorded.job.state is JobState.SUCCEEDED:
            await self._executor.write(add, planned(recorded.job, now))
        return recorded

    recording.add_deliveries = lambda *_: None
    SqlStore.record = late  # type: ignore[method-assign]


#: Each with the place where a death shows it: in the life of a gateway that has it.
FAULTS: Mapping[str, tuple[Callable[[], None], str]] = {
    "remembers-no-draining": (remembers_no_draining, "rename in local._adopt"),
    "deletes-bytes-before-rows": (deletes_bytes_before_rows, "unlink in purging.purge_job"),
    "leaves-parts": (leaves_parts, "rename in local._adopt"),
    "leaves-scratch": (leaves_scratch, "rename in local._adopt"),
    "knows-no-strays": (knows_no_strays, "rename in local._adopt"),
    "writes-under-the-last-name": (writes_under_the_last_name, "unlink in"),
    "refunds-in-a-second-transaction": (refunds_in_a_second_transaction, "commit in"),
    "tells-in-a-second-transaction": (tells_in_a_second_transaction, "commit in"),
    "completes-consents-in-a-second-transaction": (completes_consents_in_a_second_transaction, "commit in"),
    "plans-deliveries-in-a-second-transaction": (plans_deliveries_in_a_second_transaction, "commit in"),
    "keeps-answers-in-a-second-transaction": (keeps_answers_in_a_second_transaction, "commit in"),
}
