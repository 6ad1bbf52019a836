"""``/api/jobs`` as later ComfyUI versions have it; only with the quirk.

Source: public ComfyUI sources around version 0.38 (``comfy_execution/jobs.py``, ``server.py``), read, not run.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.embedded.replies import JSONReply
from gateway.embedded.state import QueuedPrompt
from gateway.embedded.worker import Worker

_PREVIEWABLE = frozenset({"images", "video", "audio", "3d", "text"})
_BASE = "/api/jobs"


def job_routes(worker_of: Callable[[], Worker]) -> list[tuple[str, str, Callable[[Request], Awaitable[Response]]]]:
    """The routes, as (method, path, handler)."""

    async def list_jobs(request: Request) -> Response:
        query = request.query_params
        jobs = all_jobs(worker_of())
        if "status" in query:
            wanted = query["status"].split(",")
            jobs = [job for job in jobs if job["status"] in wanted]
        jobs.sort(key=lambda job: job["create_time"], reverse=query.get("sort_order", "desc") != "asc")
        offset = max(int(query.get("offset", 0)), 0)
        limit = int(query["limit"]) if "limit" in query else None
        end = len(jobs) if limit is None else offset + limit
        pagination = {"offset": offset, "limit": limit, "total": len(jobs), "has_more": end < len(jobs)}
        shown = [{key: value for key, value in job.items() if key not in _DETAILS} for job in jobs[offset:end]]
        return JSONReply({"jobs": shown, "pagination": pagination})

    async def get_job(request: Request) -> Response:
        for job in all_jobs(worker_of()):
            if job["id"] == request.path_params["job_id"]:
                return JSONReply(job)
        return JSONReply({"error": "Job not found"}, 404)

    async def cancel_job(request: Request) -> Response:
        return JSONReply({"cancelled": _cancel(worker_of(), request.path_params["job_id"])})

    async def cancel_jobs(request: Request) -> Response:
        ids = (await request.json()).get("job_ids")
        if not isinstance(ids, list) or not all(_is_uuid(job_id) for job_id in ids):
            return JSONReply({"error": "job_ids must be a list of UUIDs"}, 400)
        cancelled = [_cancel(worker_of(), job_id) for job_id in ids]
        return JSONReply({"cancelled": any(cancelled)})

    return [
        ("GET", _BASE, list_jobs),
        ("POST", f"{_BASE}/cancel", cancel_jobs),
        ("GET", f"{_BASE}/{{job_id}}", get_job),
        ("POST", f"{_BASE}/{{job_id}}/cancel", cancel_job),
    ]


_DETAILS = frozenset({"outputs", "execution_status", "workflow"})


def _cancel(worker: Worker, job_id: str) -> bool:
    deleted = worker.queue.delete(job_id)
    return worker.queue.interrupt(job_id) or deleted


def _is_uuid(value: object) -> bool:
    try:
        return str(uuid.UUID(str(value))) == value
    except ValueError:
        return False


def all_jobs(worker: Worker) -> list[dict[str, Any]]:
    """Every job the worker knows: pending, running, and those in history."""
    jobs = [_unfinished(prompt, "pending") for prompt in worker.queue.pending()]
    running = worker.queue.running()
    if running is not None:
        jobs.append(_unfinished(running, "in_progress"))
    return jobs + [_finished(job_id, entry) for job_id, entry in worker.queue.history().items()]


def _unfinished(prompt: QueuedPrompt, status: str) -> dict[str, Any]:
    job = {
        "id": prompt.prompt_id,
        "status": status,
        "priority": prompt.number,
        "create_time": prompt.created_ms,
        "outputs_count": 0,
        "workflow": {"prompt": prompt.graph, "extra_data": prompt.as_item()[3]},
    }
    return job if prompt.started_ms is None else {**job, "execution_start_time": prompt.started_ms}


def _finished(job_id: str, entry: dict[str, Any]) -> dict[str, Any]:
    number, _, graph, extra_data, _ = entry["prompt"]
    messages = dict(entry["status"]["messages"])
    if entry["status"]["status_str"] == "success":
        status = "completed"
    else:
        status = "cancelled" if "execution_interrupted" in messages else "failed"
    items = [(key, item) for ui in entry["outputs"].values() for key, many in ui.items() for item in many]
    job = {
        "id": job_id,
        "status": status,
        "priority": number,
        "create_time": extra_data.get("create_time", 0),
        "execution_start_time": messages.get("execution_start", {}).get("timestamp"),
        "execution_end_time": entry["status"]["messages"][-1][1]["timestamp"] if messages else None,
        "outputs_count": len(items),
        "previewable_outputs_count": sum(_previewable(key, item) for key, item in items),
        "outputs": entry["outputs"],
        "execution_status": entry["status"],
        "workflow": {"prompt": graph, "extra_data": extra_data},
    }
    if "execution_error" in messages:
        job["execution_error"] = messages["execution_error"]
    return job


def _previewable(key: str, item: Any) -> bool:
    form = item.get("format", "") if isinstance(item, dict) else ""
    return key in _PREVIEWABLE or str(form).startswith(("video/", "audio/"))
