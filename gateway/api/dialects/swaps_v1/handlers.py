"""The HTTP handlers of the dialect ``swaps_v1``: they carry values between the web and the engine, no more."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from functools import wraps
from typing import Final

from python_multipart.multipart import parse_options_header
from starlette.requests import Request
from starlette.responses import Response

from gateway.api.dialects.swaps_v1 import detection, reading, refusals, translation
from gateway.api.dialects.swaps_v1.waiting import WAIT_SECONDS, until_ended
from gateway.api.facade import Done
from gateway.api.once import once, once_response, wanted_of
from gateway.api.problems import json_response, to_json
from gateway.api.shown import is_job_id, lookup_id
from gateway.api.uploads import receive_json
from gateway.api.url_inputs import UrlInput, check_urls, with_urls
from gateway.api.window import Call, HttpHandler
from gateway.audit import MediaKind
from gateway.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    SourceUnreachableError,
    UnauthorizedError,
    UnsupportedMediaError,
)
from gateway.interfaces import Promise
from gateway.job import Job, JobState
from gateway.strictjson import JsonValue

STILL_SECONDS: Final = 25.0
VIDEO_SECONDS: Final = 120.0


def unless_disabled(handler: HttpHandler) -> HttpHandler:
    """A handler behind the feature flag."""

    @wraps(handler)
    async def guarded(request: Request, call: Call) -> Response:
        if not call.window.settings.v1_enabled:
            raise refusals.disabled()
        return await handler(request, call)

    return guarded


@unless_disabled
async def get_me(request: Request, call: Call) -> Response:
    """``GET /api/v1/me``."""
    del request
    caller, service, now = call.known, call.service, call.service.clock.monotonic()
    user, quota = caller.user, call.window.limits.quota(caller, now)
    if user is None or quota is None:
        raise UnauthorizedError("This needs a key.")
    account = await service.credits.account(user.id)
    return json_response(translation.me_body(user, account, quota))


# --------------------------------------------------------------------------------------------------------------- swaps


@unless_disabled
async def get_swaps(request: Request, call: Call) -> Response:
    """``GET /api/v1/swaps``: the key's swaps, newest first."""
    limit = translation.limit_of(request.query_params.getlist("limit"))
    cursor = _cursor(request)
    try:
        # One more than asked for tells whether there is a next page.
        found = await call.service.jobs(call.known.owner, task=translation.TASK, before=cursor, limit=limit + 1)
    except InvalidInputError as error:
        raise translation.bad_cursor() from error
    bodies = [_body(request, call, job) for job in found[:limit]]
    return json_response(translation.page_body(bodies, has_more=len(found) > limit))


def _cursor(request: Request) -> str | None:
    cursors = request.query_params.getlist("cursor")
    if len(cursors) > 1 or (cursors and not is_job_id(cursors[0])):
        raise translation.bad_cursor()
    return cursors[0] if cursors else None


@unless_disabled
async def post_swaps(request: Request, call: Call) -> Response:
    """``POST /api/v1/swaps``: 201 once the swap is stored; with ``?wait=true`` once it has ended, or after 50 s."""
    deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
    wants_wait = reading.wants_wait(request.query_params.getlist("wait"))
    body = await _json_body(request, call)
    wanted = wanted_of(request, call, dict(body))

    async def create(promise: Promise | None) -> Job:
        return await _create(request, body, call, promise)

    def answer(job: Job) -> tuple[int, Mapping[str, object]]:
        return 201, _body(request, call, job)

    with refusals.in_its_words():
        done = await once(call, wanted, create, answer, until=call.service.clock.monotonic() + WAIT_SECONDS)
    response = once_response(done)
    if wants_wait and (ended := await _ended(request, call, done, deadline)) is not None:
        response = once_response(done, to_json(_body(request, call, ended)))
    response.headers["Location"] = f"{call.window.link_prefix}/api/v1/swaps/{done.answer.job_id}"
    return response


async def _ended(request: Request, call: Call, done: Done, deadline: float) -> Job | None:
    """The swap as it is when the wait is over; None when it is remembered no longer, but its answer is."""
    try:
        job = await call.service.job(done.answer.job_id, call.known.owner)
        return await until_ended(call.service, request, job, deadline)
    except NotFoundError:
        return None


async def _create(request: Request, body: Mapping[str, JsonValue], call: Call, promise: Promise | None) -> Job:
    wanted = reading.read_swap(body)
    wanted = replace(wanted, consent=call.consent(wanted.consent, request.headers))
    urls = {name: _strict(given) for name, given in wanted.urls.items()}
    with refusals.of_urls():
        check_urls(call.service, urls.values())
    if call.known.user is not None:
        # Else a key without credits could have anything fetched, as often as it may ask.
        least = call.service.least_price(translation.TASK, reading.TARGETS[wanted.type])
        await call.service.credits.require(call.known.user.id, least)
    if wanted.webhook_url is not None:
        await _vet_webhook(wanted.webhook_url, call)
    fetched = await with_urls(call.service, {}, urls)
    return await call.service.submit(translation.submission(wanted, fetched, call.known, promise))


def _strict(given: UrlInput) -> UrlInput:
    seconds = VIDEO_SECONDS if MediaKind.VIDEO in given.kinds else STILL_SECONDS
    return replace(given, https_only=True, deadline_seconds=seconds)


async def _vet_webhook(url: str, call: Call) -> None:
    """The guard's whole verdict at create time; when it is called, it is asked again."""
    try:
        await call.service.vet_url(url, field="webhook_url")
    except (InvalidInputError, SourceUnreachableError) as error:
        raise InvalidInputError("webhook_url must be a public https URL.", field="webhook_url") from error


@unless_disabled
async def get_swap(request: Request, call: Call) -> Response:
    """``GET /api/v1/swaps/{id}``."""
    return json_response(_body(request, call, await _job(request, call, translation.TASK)))


@unless_disabled
async def delete_swap(request: Request, call: Call) -> Response:
    """``DELETE /api/v1/swaps/{id}``: cancels what no worker has heard of; always 200, with the swap as it is then."""
    job = await _job(request, call, translation.TASK)
    try:
        job = await call.service.cancel(job.id, job.owner, translation.CANCELABLE)
    except ConflictError:
        job = await call.service.job(job.id, job.owner)
    return json_response(_body(request, call, job))


# -------------------------------------------------------------------------------------------------------------- faces


@unless_disabled
async def post_face_detect(request: Request, call: Call) -> Response:
    """``POST /api/v1/face-detect``: 202 once the picture is here and the task stored."""
    job, detector = await _create_detection(await _json_body(request, call), call)
    poll_url = f"{call.window.link_prefix}/api/v1/face-detect/{job.id}"
    body = detection.accepted_body(job, poll_url, detector)
    return json_response(body, 202, {"Location": poll_url, "Retry-After": "1"})


async def _create_detection(body: Mapping[str, JsonValue], call: Call) -> tuple[Job, str | None]:
    """The detection, and by whom faces will be found: the best one that the pool has by now."""
    given = _strict(reading.read_detection(body))
    with refusals.of_urls():
        check_urls(call.service, [given])
    with refusals.in_its_words(), refusals.of_detections():
        fetched = await with_urls(call.service, {}, {detection.ROLE: given})
        detector = next(iter(call.service.detectors()), None)
        return await call.service.submit(detection.submission(given, fetched, call.known, detector)), detector


@unless_disabled
async def get_face_detect(request: Request, call: Call) -> Response:
    """``GET /api/v1/face-detect/{id}``: 404 once its report is kept no longer, too."""
    job = await _job(request, call, detection.TASK)
    report = await call.service.faces(job)
    if report is None and job.state is JobState.SUCCEEDED:
        raise _no_such_task()
    return json_response(detection.snapshot_body(job, report))


# -------------------------------------------------------------------------------------------------------------- pieces


def _body(request: Request, call: Call, job: Job) -> dict[str, object]:
    service = call.service
    base = call.window.link_base(request)
    return translation.swap_body(job, service.progress(job.id), base, is_preparing=service.is_preparing(job))


async def _job(request: Request, call: Call, task: str) -> Job:
    """The key's job that does this task. Raises NotFoundError, the same for all that it is not."""
    text = request.path_params["id"]
    try:
        job = await call.service.job(lookup_id(text), call.known.owner)
    except NotFoundError:
        job = None
    if job is None or job.task != task:
        raise _no_such_task()
    return job


def _no_such_task() -> NotFoundError:
    return NotFoundError("There is no such task.")


async def _json_body(request: Request, call: Call) -> dict[str, JsonValue]:
    content_type, _ = parse_options_header(request.headers.get("content-type"))
    if content_type.lower() != b"application/json":
        raise UnsupportedMediaError("The body must be application/json; media are given as public https URLs.")
    return await receive_json(request, call.window.form_limits, stopping=call.service.stopping)
