"""The HTTP handlers of jobs of the dialect ``comfy_v2``: they carry values between the web and the engine, no more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from gateway.api import health, sse
from gateway.api.deliveries import told_of
from gateway.api.dialects.comfy_v2 import assets, job_reading, single_use
from gateway.api.dialects.comfy_v2.job_bodies import (
    METADATA,
    PREFIX,
    STATES_OF,
    Links,
    has_labels,
    job_body,
    listed_body,
    page_body,
    word,
)
from gateway.api.dialects.comfy_v2.job_events import Told, progress_frames
from gateway.api.dialects.comfy_v2.job_reading import Listing, Wishes, bad_cursor, read_job, read_listing
from gateway.api.dialects.comfy_v2.job_refusals import of_a_create
from gateway.api.dialects.comfy_v2.job_stream import Teller, stream
from gateway.api.dialects.comfy_v2.words import NAME
from gateway.api.facade import WorkflowSubmission
from gateway.api.problems import json_response
from gateway.api.ready import may_be_kept
from gateway.api.uploads import receive_json
from gateway.api.window import Call
from gateway.delivering import FIELD as DELIVERY
from gateway.errors import ConflictError, InvalidInputError
from gateway.idempotency import Answer
from gateway.interfaces import Promise
from gateway.job import Job, JobResult, JobState
from gateway.outbox import FIELD as WEBHOOK
from gateway.strictjson import JsonValue
from gateway.template import WORKFLOW

#: Jobs that one request of a list looks at: a filter that fits little would otherwise read all that there are.
MAX_SCAN: Final = 500
#: Outputs after which a page ends early: each is a signed link, and a job may have a thousand.
MAX_PAGE_OUTPUTS: Final = 2000

# -------------------------------------------------------------------------------------------------------------- create


async def post_jobs(request: Request, call: Call) -> Response:
    """``POST /api/v2/jobs``: 201 once the job is stored."""
    with of_a_create():
        wanted = read_job(await body_of(request, call))
        extra = await extra_of(wanted.wishes, call)
        consent = call.consent(wanted.wishes.consent, request.headers, WORKFLOW)

        async def make(promise: Promise | None) -> Job:
            caller = call.known
            submission = WorkflowSubmission(
                owner=caller.owner,
                submitter=caller.submitter,
                dialect=NAME,
                workflow=wanted.workflow,
                priority=wanted.wishes.priority,
                extra=extra,
                promise=promise,
                secrets=wanted.secrets,
                consent=consent,
                node_rules=caller.node_rules,
            )
            return await call.service.submit_workflow(submission)

        return await created(request, call, make)


async def body_of(request: Request, call: Call) -> dict[str, JsonValue]:
    """The JSON object that a request carries, whatever its Content-Type says. Raises what ``receive_json`` does."""
    return await receive_json(request, call.window.form_limits, stopping=call.service.stopping)


async def extra_of(wishes: Wishes, call: Call) -> dict[str, object]:
    """What is kept with the job. Raises InvalidInputError: a URL is refused, or there is no such target."""
    if wishes.webhook_url is not None:
        call.service.check_webhook(wishes.webhook_url, field=f"gateway.{WEBHOOK}")
    extra: dict[str, object] = {METADATA: wishes.metadata, WEBHOOK: wishes.webhook_url}
    if wishes.deliver_to is not None:
        owner = call.known.owner
        extra[DELIVERY] = await call.service.deliveries.wish(wishes.deliver_to, owner, field=f"gateway.{DELIVERY}")
    return {name: value for name, value in extra.items() if value is not None}


async def created(request: Request, call: Call, make: Callable[[Promise | None], Awaitable[Job]]) -> Response:
    """The answer to a create, which an ``Idempotency-Key`` is good for once. Args: make: submits.

    Raises:
        InvalidInputError: the key is malformed.
        IdempotencyReuseError: it was used before, or is being used.
        GatewayError: what ``make`` raises; the key is free again then.
    """
    wanted = await single_use.wanted_of(request, call)
    with call.creating():
        async with single_use.claimed(call, wanted) as claim:
            job = await make(None if claim is None else Promise(claim, _used_up))
    body = await shown(request, call, job)
    return json_response(body, 201, {"Location": f"{call.window.link_prefix}{PREFIX}/jobs/{job.id}"})


def _used_up(job: Job) -> Answer:
    """Nothing is told again: whoever repeats a request is refused."""
    return Answer(201, b"", job.id)


# ---------------------------------------------------------------------------------------------------------------- look


async def get_jobs(request: Request, call: Call) -> Response:
    """``GET /api/v2/jobs``: the caller's jobs of all dialects, newest first."""
    wanted = read_listing(request.query_params.multi_items(), STATES_OF)
    found, next_cursor, truncated = await _page(call, wanted)
    bodies = [listed_body(await shown(request, call, job), job) for job in found]
    return json_response(page_body(bodies, next_cursor=next_cursor, truncated=truncated))


async def _page(call: Call, wanted: Listing) -> tuple[list[Job], str | None, bool]:
    """The jobs of a page, where the next begins, and whether the looking stopped before this one was full."""
    states = None if wanted.words is None else frozenset[JobState]().union(*(STATES_OF[w] for w in wanted.words))
    # Of what is filtered nobody knows how many have to be looked at; of the rest, one more tells whether there is more.
    at_once = job_reading.MAX_LIMIT if wanted.words or wanted.labels else wanted.limit + 1
    found: list[Job] = []
    cursor, scanned = wanted.cursor, 0
    while scanned < MAX_SCAN:
        some = await _some(call, states, cursor, min(at_once, MAX_SCAN - scanned))
        for place, job in enumerate(some, 1):
            if (wanted.words is None or word(job) in wanted.words) and has_labels(job, wanted.labels):
                found.append(job)
            cursor = job.id
            is_large = sum(len(each.results) for each in found) >= MAX_PAGE_OUTPUTS
            if len(found) == wanted.limit or is_large:
                has_more = place < len(some) or bool(await _some(call, states, cursor, 1))
                return found, cursor if has_more else None, has_more and len(found) < wanted.limit
        scanned += len(some)
        if not some:
            return found, None, False
    has_more = bool(await _some(call, states, cursor, 1))
    return found, cursor if has_more else None, has_more


async def _some(call: Call, states: frozenset[JobState] | None, before: str | None, limit: int) -> list[Job]:
    try:
        return list(await call.service.jobs(call.known.owner, states=states, before=before, limit=limit))
    except InvalidInputError as error:
        raise bad_cursor() from error


async def get_job(request: Request, call: Call) -> Response:
    """``GET /api/v2/jobs/{id}``."""
    job = await _job(request, call)
    if call.window.settings.public_url is not None:
        # Otherwise the links hold the Host of this request, which the next one may not share.
        may_be_kept(request, job)
    return json_response(await shown(request, call, job))


async def get_workflow(request: Request, call: Call) -> Response:
    """``GET /api/v2/jobs/{id}/workflow``: the graph as it was sent, without anything secret."""
    job = await _job(request, call)
    return json_response({"workflow": await call.service.workflow(job), "format": "api"})


async def get_events(request: Request, call: Call) -> Response:
    """``GET /api/v2/jobs/{id}/events``; 204 to a client that comes back and has had the terminal status."""
    job = await _job(request, call)
    cursor = await call.cursor(request, job)
    if cursor is None:
        return sse.nothing_more()
    window = call.window
    teller = Teller(call.service, window.told_once(progress_frames), window.previews)
    return sse.event_stream(stream(teller, job, cursor, Told(links_of(request, call))))


# -------------------------------------------------------------------------------------------------------------- cancel


async def post_cancel(request: Request, call: Call) -> Response:
    """``POST /api/v2/jobs/{id}/cancel``: always 200, with the job as it is then."""
    job = await _job(request, call)
    try:
        job = await call.service.cancel(job.id, job.owner)
    except ConflictError:
        job = await call.service.job(job.id, job.owner)
    return json_response(await shown(request, call, job))


# -------------------------------------------------------------------------------------------------------------- health


async def get_health(request: Request, call: Call) -> Response:
    """``GET /api/v2/health``: the word to everybody; how many workers there are to whoever may see jobs."""
    del request
    found = call.service.health()
    body = health.word(found)
    if call.caller is not None:
        available = sum(view.available for view in found.upstreams)
        body |= {"upstreams": len(found.upstreams), "available": available}
    return json_response(body)


# -------------------------------------------------------------------------------------------------------------- pieces


async def shown(request: Request, call: Call, job: Job) -> dict[str, object]:
    """A job's body."""
    service = call.service
    position = await service.queue_position(job.id) if job.state is JobState.QUEUED else None
    delivered = await told_of(call, job)
    links = links_of(request, call)
    return job_body(job, links, snapshot=service.progress(job.id), position=position, delivered=delivered)


def links_of(request: Request, call: Call) -> Links:
    """How what is told in answer to a request is linked."""
    service, settings = call.service, call.window.settings
    base = call.window.link_base(request)

    def content(job: Job, result: JobResult) -> tuple[str, float]:
        kept_from = job.finished_at if job.finished_at is not None else service.clock.now()
        link = service.assets.link(result.asset_id, kept_from + settings.result_retention)
        return assets.content_url(result.asset_id, link, base), link.expires_at

    return Links(base, content, min(settings.result_retention, settings.job_retention))


async def _job(request: Request, call: Call) -> Job:
    return await call.job(request.path_params["id"], "id")
