"""What of the files on upstreams something that has not ended still needs."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, bindparam, select

from gateway.job import TERMINAL, TERMINAL_JOB, JobState, TaskState
from gateway.store.queries import BATCH_ROWS
from gateway.store.schema import assets, attempts, job_inputs, jobs, tasks


def in_use(connection: Connection, hashes: Collection[str], prompts: Collection[str]) -> frozenset[str]:
    """Those of them that are inputs of jobs, or attempts of tasks, which have not ended. Each is found by an index."""
    found: set[str] = set()
    for statement, wanted in ((_INPUTS, sorted(hashes)), (_ATTEMPTS, sorted(prompts))):
        for start in range(0, len(wanted), BATCH_ROWS):
            found |= set(connection.execute(statement, {"wanted": wanted[start : start + BATCH_ROWS]}).scalars())
    return frozenset(found)


_INPUTS = (
    select(assets.c.blob)
    .join(job_inputs, job_inputs.c.asset_id == assets.c.id)
    .join(jobs, jobs.c.id == job_inputs.c.job_id)
    .where(
        assets.c.blob.in_(bindparam("wanted", expanding=True)),
        jobs.c.state.in_(sorted(state.value for state in JobState if state not in TERMINAL_JOB)),
    )
    .distinct()
)
_ATTEMPTS = (
    select(attempts.c.id)
    .join(tasks, tasks.c.id == attempts.c.task_id)
    .where(
        attempts.c.id.in_(bindparam("wanted", expanding=True)),
        tasks.c.state.in_(sorted(state.value for state in TaskState if state not in TERMINAL)),
    )
)
