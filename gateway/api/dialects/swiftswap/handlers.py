"""The HTTP handlers of the dialect ``swiftswap``: they carry values between the web and the engine, no more."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.dialects.swiftswap import translation
from gateway.api.dialects.swiftswap.translation import PICTURE, VIDEO, TargetField
from gateway.api.problems import json_response
from gateway.api.ready import may_be_kept
from gateway.api.window import Call


async def get_check_status(request: Request, call: Call) -> Response:
    """``GET /check_status``: that there is somebody who answers."""
    del request, call
    return json_response(translation.RUNNING_BODY)


async def post_swap_image(request: Request, call: Call) -> Response:
    """``POST /swap_image/``: a picture is the target."""
    return await _post_swap(request, call, PICTURE)


async def post_swap_video(request: Request, call: Call) -> Response:
    """``POST /swap_video/``: what moves is the target."""
    return await _post_swap(request, call, VIDEO)


async def _post_swap(request: Request, call: Call, target: TargetField) -> Response:
    job = await call.submit(
        request, lambda form, caller: translation.submission(form.fields, form.files, target, caller)
    )
    return json_response(translation.accepted_body(job))


async def get_task_status(request: Request, call: Call) -> Response:
    """``GET /check_task_status/{task_id}``."""
    job = await call.job(request.path_params["task_id"], "task_id")
    may_be_kept(request, job)
    return json_response(translation.status_body(job, call.window.link_prefix))


async def get_static(request: Request, call: Call) -> Response:
    """``GET /static/{name}``: whoever knows the name may have the file."""
    return await call.file(request, request.path_params["name"])
