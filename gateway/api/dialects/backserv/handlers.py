"""The HTTP handlers of the dialect ``backserv``: they carry values between the web and the engine, no more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.dialects.backserv import translation
from gateway.api.facade import InputBlobs
from gateway.api.problems import json_response
from gateway.api.ready import may_be_kept
from gateway.api.uploads import receive_lifted_json
from gateway.api.url_inputs import check_urls, with_urls
from gateway.api.window import Call
from gateway.errors import CallerError, ConflictError, InvalidInputError, TooLargeError, UnsupportedMediaError
from gateway.job import JobState


async def submit_task(request: Request, call: Call) -> Response:
    """``POST /submit_task``: 202 once the task is stored; what is given as URLs is fetched first."""
    service, limits = call.service, call.window.form_limits
    with call.creating(), _parameters_at_fault():
        async with await receive_lifted_json(
            request, InputBlobs(service), limits, stopping=service.stopping
        ) as received:
            wanted = translation.read_request(received.body, received.files)
            translation.refuse_unknown_task(wanted.task_type, service.task_types())
            check_urls(service, wanted.urls.values())
            consent = call.consent(wanted.consent, request.headers, wanted.task_type)
            received.keep()
        inputs = await with_urls(service, wanted.files, wanted.urls)
        is_open = call.window.settings.auth == "open"
        asked = translation.submission(wanted, inputs, call.known, is_open=is_open)
        job = await service.submit(replace(asked, consent=consent))
    return json_response(translation.accepted_body(job), 202)


@contextmanager
def _parameters_at_fault() -> Iterator[None]:
    """What is wrong with a parameter is a 400 here, its size and kind included; 413 and 415 are about the body."""
    try:
        yield
    except (TooLargeError, UnsupportedMediaError) as error:
        if error.field is None:
            raise
        raise InvalidInputError(error.message, field=error.field) from error


async def query_task(request: Request, call: Call) -> Response:
    """``GET /query_task/{ticket_id}``."""
    service = call.service
    job = await call.job(request.path_params["ticket_id"], "ticket_id")
    position = await service.queue_position(job.id) if job.state is JobState.QUEUED else None
    base = call.window.link_base(request)
    if not job.results or call.window.settings.public_url is not None:
        # Otherwise the links hold the Host of this request, which the next one may not share.
        may_be_kept(request, job)
    return json_response(translation.task_body(job, service.progress(job.id), position, base))


async def cancel_task(request: Request, call: Call) -> Response:
    """``POST /cancel_task/{ticket_id}``: 400 when it has ended. Asked again while it ends, it is 200 again."""
    job = await call.job(request.path_params["ticket_id"], "ticket_id")
    try:
        await call.service.cancel(job.id, job.owner)
    except ConflictError as error:
        raise CallerError("The task has ended; there is nothing to cancel.", field="ticket_id") from error
    return json_response(translation.cancelled_body())


async def get_task_types(request: Request, call: Call) -> Response:
    """``GET /task_types``."""
    del request
    required = call.window.settings.require_consent
    return json_response(translation.types_body(call.service.task_types(), consent_required=required))
