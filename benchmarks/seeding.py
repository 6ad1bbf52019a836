"""Stored jobs by the thousand, put in by the gateway's own store before it starts: every row is one it wrote itself."""

from __future__ import annotations

import asyncio
import secrets
import time
from fractions import Fraction
from pathlib import Path

from uuid_utils.compat import uuid7

from gateway.audit import MediaFacts, MediaKind
from gateway.comfy.messages import OutputFile
from gateway.data_dir import prepare_data_dir
from gateway.interfaces import NewJob, Report
from gateway.job import JobInput, JobResult, RetryLimits, TaskEvent
from gateway.store.sql_store import SqlStore

_DAY_SECONDS = 86_400.0
#: As many as wait at once share a commit.
_AT_ONCE = 128
_FACTS = MediaFacts(
    kind=MediaKind.VIDEO,
    content_type="video/mp4",
    suffix=".mp4",
    width=320,
    height=180,
    frames=12,
    fps=Fraction(24),
    duration_seconds=0.5,
    has_audio=False,
    video_codec="h264",
)


async def seed(data_dir: Path, *, ended: int, queued: int = 0) -> tuple[list[str], list[str]]:
    """Fill a new data directory; the ids of the jobs that succeeded, and of those that wait."""
    prepare_data_dir(data_dir)
    store = await SqlStore.open(
        data_dir / "gateway.db", result_retention_seconds=_DAY_SECONDS, asset_retention_seconds=_DAY_SECONDS
    )
    try:
        done = [str(uuid7()) for _ in range(ended)]
        waiting = [str(uuid7()) for _ in range(queued)]
        for start in range(0, ended, _AT_ONCE):
            await asyncio.gather(*(_succeeded(store, job_id) for job_id in done[start : start + _AT_ONCE]))
        for start in range(0, queued, _AT_ONCE):
            await asyncio.gather(*(_queued(store, job_id) for job_id in waiting[start : start + _AT_ONCE]))
    finally:
        await store.close()
    return done, waiting


async def _queued(store: SqlStore, job_id: str) -> str:
    task_id = str(uuid7())
    now = time.time()
    inputs = {role: JobInput(str(uuid7()), secrets.token_hex(32), 100_000, _FACTS) for role in ("target", "face")}
    new = NewJob(
        id=job_id,
        task_id=task_id,
        owner="local",
        submitter="127.0.0.1",
        dialect="faceswap",
        task="face_swap",
        template="faceswap_video",
        template_version="0" * 64,
        priority=0,
        parameters={},
        inputs=inputs,
        output_name="faceswap",
        queue_deadline=now + _DAY_SECONDS,
        requirement="nobody has this",
        cost_seconds=1.0,
    )
    await store.create_job(new, max_queue=1_000_000, now=now)
    return task_id


async def _succeeded(store: SqlStore, job_id: str) -> None:
    task_id = await _queued(store, job_id)
    now, limits = time.time(), RetryLimits()
    dispatched = Report(TaskEvent.DISPATCHED, upstream="a", prompt_id=str(uuid7()), engine="comfyui")
    await store.record(task_id, dispatched, limits=limits, now=now)
    await store.record(task_id, Report(TaskEvent.STARTED, attempt=1), limits=limits, now=now)
    files = {"6": (OutputFile("out.mp4", "gateway", "output", "gifs", "video/h264-mp4"),)}
    await store.record_outputs(task_id, 1, files, now=now)
    link = f"faceswap_{secrets.token_hex(16)}.mp4"
    result = JobResult(str(uuid7()), secrets.token_hex(32), 100_000, _FACTS, link)
    await store.record(task_id, Report(TaskEvent.SUCCEEDED, attempt=1, results=(result,)), limits=limits, now=now)
