"""A dialect that no gateway speaks: for the shared suite, and to see what one costs. Uploads, status, stream, cancel, file."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.auth import Access, Caller
from gateway.api.facade import Submission
from gateway.api.file_fields import MOVING, STILL, refuse_other_files, submitted_file
from gateway.api.following import Frame
from gateway.api.problems import json_response
from gateway.api.ready import may_be_kept
from gateway.api.uploads import Form
from gateway.api.window import Call, Dialect, Endpoint, Holds
from gateway.errors import GatewayError, InvalidInputError
from gateway.events import Event, Progress
from gateway.job import Job, JobState

WORDS = dict(zip(JobState, ["waits", "works", "works", "works", "done", "broken", "stopped"], strict=True))
ROLES = {"who": ("face", STILL), "where": ("target", MOVING | STILL)}


def submission(form: Form, caller: Caller) -> Submission:
    refuse_other_files(form.files, ROLES)
    if missing := [name for name in ROLES if name not in form.files]:
        raise InvalidInputError(f"There is no {missing[0]!r}.", field=missing[0])
    inputs = {role: submitted_file(name, form.files[name], kinds) for name, (role, kinds) in ROLES.items()}
    return Submission(caller.owner, caller.submitter, "fifth", inputs, dict(ROLES.values()))


def body(job: Job, prefix: str) -> dict[str, object]:
    file = f"{prefix}/fifth/files/{job.results[0].link}" if job.results else None
    return {"swap": job.id, "state": WORDS[job.state], "why": job.error_message, "file": file}


def frames(item: Event | Progress, job: Job, previous: Progress | None, prefix: str = "") -> tuple[Frame, ...]:
    if isinstance(item, Progress):
        return (Frame("bar", {"done": round(item.fraction, 2)}),)
    return (Frame("end", {"state": WORDS[JobState(item.kind)]}, item.number),) if item.is_terminal else ()


def envelope(error: GatewayError, request_id: str) -> dict[str, object]:
    return {"problem": error.message, "kind": error.code}


async def make(request: Request, call: Call) -> Response:
    return json_response(body(await call.submit(request, submission), call.window.link_prefix), 201)


async def look(request: Request, call: Call) -> Response:
    job = await call.job(request.path_params["id"], "id")
    may_be_kept(request, job)
    return json_response(body(job, call.window.link_prefix))


async def watch(request: Request, call: Call) -> Response:
    job = await call.job(request.path_params["id"], "id")
    return await call.events(request, job, frames)


async def stop(request: Request, call: Call) -> Response:
    job = await call.job(request.path_params["id"], "id")
    return json_response(body(await call.service.cancel(job.id, call.known.owner), call.window.link_prefix))


async def fetch(request: Request, call: Call) -> Response:
    return await call.file(request, request.path_params["name"])


ENDPOINTS = (
    Endpoint("POST", "/fifth/swaps", make, holds=Holds.SLOT),
    Endpoint("GET", "/fifth/swaps/{id}", look, is_polled=True),
    Endpoint("DELETE", "/fifth/swaps/{id}", stop),
    Endpoint("GET", "/fifth/swaps/{id}/watch", watch, holds=Holds.SLOT),
    Endpoint("GET", "/fifth/files/{name}", fetch, Access.PUBLIC),
)
DIALECT = Dialect("fifth", ENDPOINTS, ("/fifth",), envelope, WORDS)
