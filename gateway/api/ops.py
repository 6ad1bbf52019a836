"""Routes of our own, under ``/-/``: jobs of every dialect, the pool, the templates. Errors are problem+json.

What belongs to an owner is shown to the owner; what changes the pool wants the admin token in every mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.api import deliveries, tickets
from gateway.api.auth import Access
from gateway.api.facade import Archive, Wait
from gateway.api.following import Frame, Until
from gateway.api.health import upstream_body
from gateway.api.problems import json_response
from gateway.api.shown import delivery_members, is_job_id, lookup_id, timestamp
from gateway.api.uploads import receive_json
from gateway.api.window import Call, Endpoint, Holds
from gateway.delivering import Delivery
from gateway.errors import InvalidInputError, NotFoundError
from gateway.events import Event, Progress
from gateway.job import Job, JobState

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 100

# ---------------------------------------------------------------------------------------------------------------- jobs


async def get_jobs(request: Request, call: Call) -> Response:
    """``GET /-/jobs?state=queued,running&before=<id>&limit=50``: the caller's jobs, newest first."""
    query = request.query_params
    limit = _limit(query.get("limit", str(DEFAULT_LIMIT)))
    states, before = _states(query.get("state")), _cursor(query.get("before"))
    try:
        # One more than asked for tells whether there is a next page.
        found = await call.service.jobs(call.known.owner, states=states, before=before, limit=limit + 1)
    except InvalidInputError as error:
        raise InvalidInputError("before names no job of yours.", field="before") from error
    page = found[:limit]
    delivered = await call.service.deliveries.of(page)
    prefix = call.window.link_prefix
    bodies = [job_body(job, call.service.progress(job.id), prefix, delivered.get(job.id, ())) for job in page]
    return json_response({"jobs": bodies, "next": page[-1].id if len(found) > limit else None})


async def get_job(request: Request, call: Call) -> Response:
    """``GET /-/jobs/{id}``."""
    job = await _job(request, call)
    told = await deliveries.told_of(call, job)
    body = job_body(job, call.service.progress(job.id), call.window.link_prefix, told)
    if job.state is JobState.QUEUED and (wait := await call.service.why_waiting(job)) is not None:
        body |= wait_body(wait)
    return json_response(body)


async def cancel_job(request: Request, call: Call) -> Response:
    """``DELETE /-/jobs/{id}``: 200 when it is canceled now, 202 when its upstream is being told, 409 when it had ended."""
    job = await _job(request, call)
    job = await call.service.cancel(job.id, job.owner)
    body = job_body(job, call.service.progress(job.id), call.window.link_prefix)
    return json_response(body, 200 if job.is_terminal else 202)


async def get_job_events(request: Request, call: Call) -> Response:
    """``GET /-/jobs/{id}/events``: every durable event as it is, and progress; ``?previews=1``: and pictures of the work.

    Of a job whose files are delivered, until that is over or a while has passed.
    """
    return await call.events(request, await _job(request, call), frames, Until.DELIVERED)


async def _job(request: Request, call: Call) -> Job:
    return await call.job(request.path_params["id"], "id")


def _limit(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= len(str(MAX_LIMIT)) and 1 <= int(text) <= MAX_LIMIT:
        return int(text)
    raise InvalidInputError(f"limit is a number from 1 to {MAX_LIMIT}.", field="limit")


def _states(text: str | None) -> frozenset[JobState] | None:
    if not text:
        return None
    try:
        return frozenset(JobState(word.strip()) for word in text.split(","))
    except ValueError:
        known = ", ".join(state.value for state in JobState)
        raise InvalidInputError(f"state takes some of: {known}.", field="state") from None


def _cursor(text: str | None) -> str | None:
    return lookup_id(text) if text else None


def job_body(job: Job, snapshot: Progress | None, prefix: str, delivered: Sequence[Delivery] = ()) -> dict[str, object]:
    """A job in our own words.

    Args:
        job: of any dialect.
        snapshot: the newest one, while it is at work.
        prefix: path before every link.
        delivered: its deliveries.
    """
    live = snapshot if snapshot is not None and not job.is_terminal else None
    return {
        "id": job.id,
        "state": job.state.value,
        "cancel_requested": job.cancel_requested_at is not None,
        "dialect": job.dialect,
        "task": job.task,
        "template": job.template,
        "template_version": job.template_version,
        "fraction": max(job.fraction, live.fraction) if live else job.fraction,
        "step": live.message if live else job.step,
        "output_name": job.output_name,
        "inputs": {
            role: {"content_type": given.facts.content_type, "size_bytes": given.size_bytes}
            for role, given in job.inputs.items()
        },
        "results": [
            {
                "link": result.link,
                "url": f"{prefix}/download/{result.link}",
                "content_type": result.facts.content_type,
                "size_bytes": result.size_bytes,
            }
            for result in job.results
        ],
        "error": {"code": job.error_code, "message": job.error_message} if job.error_code else None,
        "warnings": list(job.warnings),
        "engine": job.engine,
        "upstream": job.upstream,
        "created_at": timestamp(job.created_at),
        "updated_at": timestamp(job.updated_at),
        "started_at": timestamp(job.started_at) if job.started_at is not None else None,
        "finished_at": timestamp(job.finished_at) if job.finished_at is not None else None,
        "last_event": job.last_event,
        **delivery_members(job, delivered),
    }


def wait_body(wait: Wait) -> dict[str, object]:
    """Why a job waits. Whose the other jobs are is nobody's business; how many there are is."""
    expected, standing = wait.expected_start_seconds, wait.standing
    return {
        "queue_position": wait.position,
        "expected_start_seconds": None if expected is None else round(expected, 1),
        "waiting": {
            "ahead_own": standing.ahead_own if standing else None,
            "ahead_others": standing.ahead_others if standing else None,
            "retry_in_seconds": round(standing.retry_in_seconds, 1) if standing else None,
            "upstreams": [
                {"name": judged.upstream, "fits": judged.fits, "reason": judged.reason} for judged in wait.upstreams
            ],
        },
    }


def frames(item: Event | Progress, job: Job, previous: Progress | None, prefix: str = "") -> tuple[Frame, ...]:
    """Events under their own names with their own data; nothing is left out or put together."""
    del previous, prefix
    if isinstance(item, Progress):
        return (Frame("progress", {**item._asdict(), "job_id": job.id}),)
    return (Frame(item.kind.value, {"job_id": job.id, "at": timestamp(item.at), **item.data}, item.number),)


# ------------------------------------------------------------------------------------------------------------- tickets


async def post_ticket(request: Request, call: Call) -> Response:
    """``POST /-/tickets`` {path}: what opens an event stream or a WebSocket once, for a browser."""
    body = await receive_json(request, call.window.form_limits, stopping=call.service.stopping)
    path = body.get("path")
    if not isinstance(path, str):
        raise InvalidInputError("path is that of an event stream or a WebSocket, without a query.", field="path")
    prefix = call.window.link_prefix
    path = path.removeprefix(prefix) if path.startswith(f"{prefix}/") else path
    ticket = call.window.tickets.issue(call.known, path)
    told = {"ticket": ticket, "url": f"{prefix}{path}?{tickets.FIELD}={ticket}"}
    return json_response({**told, "expires_in_seconds": tickets.LIFE_SECONDS}, 201)


# --------------------------------------------------------------------------------------------------- purge and backup


async def purge(request: Request, call: Call) -> Response:
    """``POST /-/purge`` {job} or {owner}: forget what has ended, rows and bytes, at once; 409 when something has not.

    ``consents`` (true): records of consent as well.
    """
    body = await receive_json(request, call.window.form_limits, stopping=call.service.stopping)
    consents = body.pop("consents", None) or False
    if not isinstance(consents, bool):
        raise InvalidInputError("consents is true or false.", field="consents")
    given = {name: body[name] for name in ("job", "owner") if body.get(name) is not None}
    if len(given) != 1 or len(body) > 1:
        raise InvalidInputError("Give either job, an id, or owner, a name.", field="job")
    ((field, value),) = given.items()
    if not isinstance(value, str) or not value:
        raise InvalidInputError(f"{field} is a text.", field=field)
    if field == "owner":
        purged = await call.service.archive.purge_owner(value, consents=consents)
    elif is_job_id(value):
        purged = await call.service.archive.purge_job(value, consents=consents)
    else:
        raise NotFoundError("There is no such job.", field=field)
    told = {"jobs": purged.jobs, "files": purged.files, "deleted_files": purged.blobs, "consents": purged.consents}
    return json_response(told)


async def get_backup(request: Request, call: Call) -> Response:
    """``GET /-/backup``: a tar of the database and every file that it speaks of; ends unfinished when it breaks."""
    del request
    return _BackupResponse(call.service.archive)


class _BackupResponse(Response):
    """Sends the tar, and sees to it that the copy of the database goes whatever happens."""

    media_type = "application/x-tar"

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        super().__init__(headers={"Content-Disposition": 'attachment; filename="comfygate.tar"'})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the backup; what goes wrong before the first byte is an ordinary refusal."""
        async with self._archive.backup() as chunks:
            await StreamingResponse(chunks, headers=dict(self.headers))(scope, receive, send)


# ------------------------------------------------------------------------------------------------------------ the pool


async def get_upstreams(request: Request, call: Call) -> Response:
    """``GET /-/upstreams``."""
    del request
    return json_response({"upstreams": [upstream_body(view) for view in call.service.upstreams()]})


async def add_upstream(request: Request, call: Call) -> Response:
    """``POST /-/upstreams`` {url, name?}."""
    body = await receive_json(request, call.window.form_limits, stopping=call.service.stopping)
    url, name = body.get("url"), body.get("name")
    if not isinstance(url, str) or not url:
        raise InvalidInputError("url is the base URL of a ComfyUI instance.", field="url")
    if name is not None and (not isinstance(name, str) or not name):
        raise InvalidInputError("name is a text.", field="name")
    return json_response(upstream_body(await call.service.add_upstream(url, name)), 201)


async def remove_upstream(request: Request, call: Call) -> Response:
    """``DELETE /-/upstreams/{name}``."""
    await call.service.remove_upstream(request.path_params["name"])
    return Response(status_code=204)


async def drain_upstream(request: Request, call: Call) -> Response:
    """``POST /-/upstreams/{name}/drain``: it gets nothing new."""
    return await _set_draining(request, call, draining=True)


async def resume_upstream(request: Request, call: Call) -> Response:
    """``POST /-/upstreams/{name}/resume``."""
    return await _set_draining(request, call, draining=False)


async def restart_upstream(request: Request, call: Call) -> Response:
    """``POST /-/upstreams/{name}/restart``: 202; a process of ours is restarted when it has nothing to do."""
    name = request.path_params["name"]
    call.service.restarts.begin(name)
    return _shown(call, name, 202)


async def _set_draining(request: Request, call: Call, *, draining: bool) -> Response:
    name = request.path_params["name"]
    await call.service.set_draining(name, draining=draining)
    return _shown(call, name)


def _shown(call: Call, name: str, status: int = 200) -> Response:
    for view in call.service.upstreams():
        if view.status.name == name:
            return json_response(upstream_body(view), status)
    raise NotFoundError("There is no such upstream.", field="name")


# ----------------------------------------------------------------------------------------------------------- templates


async def get_templates(request: Request, call: Call) -> Response:
    """``GET /-/templates``: those that serve, and what is wrong with those that do not, or not in their newest version."""
    del request
    problems = call.service.health().template_problems
    names = sorted({*call.service.templates(), *problems})
    serving = set(call.service.templates())
    bodies = [{"name": name, "serving": name in serving, "problem": problems.get(name)} for name in names]
    return json_response({"templates": bodies})


ENDPOINTS: Final = (
    Endpoint("GET", "/-/jobs", get_jobs),
    Endpoint("GET", "/-/jobs/{id}", get_job),
    Endpoint("DELETE", "/-/jobs/{id}", cancel_job),
    Endpoint("GET", "/-/jobs/{id}/events", get_job_events, holds=Holds.SLOT, takes_ticket=True),
    Endpoint("POST", "/-/tickets", post_ticket),
    Endpoint("GET", "/-/upstreams", get_upstreams),
    Endpoint("POST", "/-/upstreams", add_upstream, Access.ADMIN),
    Endpoint("DELETE", "/-/upstreams/{name}", remove_upstream, Access.ADMIN),
    Endpoint("POST", "/-/upstreams/{name}/drain", drain_upstream, Access.ADMIN),
    Endpoint("POST", "/-/upstreams/{name}/resume", resume_upstream, Access.ADMIN),
    Endpoint("POST", "/-/upstreams/{name}/restart", restart_upstream, Access.ADMIN),
    Endpoint("GET", "/-/templates", get_templates),
    Endpoint("POST", "/-/purge", purge, Access.ADMIN),
    Endpoint("GET", "/-/backup", get_backup, Access.ADMIN, holds=Holds.SLOT),
)
