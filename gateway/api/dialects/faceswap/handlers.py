"""The HTTP handlers of the dialect ``faceswap``: they carry values between the web and the engine, no more."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response

from gateway.api import health, pages, sse
from gateway.api.deliveries import told_of
from gateway.api.dialects.faceswap import translation
from gateway.api.dialects.faceswap.obtaining import judged, obtain, obtain_in_stream
from gateway.api.dialects.faceswap.translation import SwapRequest
from gateway.api.following import Frame, Signal, Until
from gateway.api.previews import as_json, wants_previews
from gateway.api.problems import json_response
from gateway.api.ready import may_be_kept
from gateway.api.window import Call
from gateway.delivering import DeliveryState, is_by_its_client
from gateway.events import PreviewImage
from gateway.job import Job, JobState


async def post_face_swap(request: Request, call: Call) -> Response:
    """``POST /face-swap``: a stream of events, or the job's id."""
    show = as_json if wants_previews(request.query_params) else None
    async with await call.form(request) as form:
        wanted = await judged(call, translation.read_request(form.fields, form.files), request.headers)
        form.keep()
    if wanted.urls and not wanted.wants_id_only:
        return sse.event_stream(_transferred(call, wanted, show))
    job = await obtain(call, wanted)
    if wanted.wants_id_only:
        return json_response(translation.accepted_body(job, call.window.link_prefix))
    return sse.event_stream(job_frames(call, job, show))


def job_frames(call: Call, job: Job, show: Callable[[PreviewImage], Frame] | None) -> AsyncGenerator[Frame | Signal]:
    """A job's whole stream in this dialect's words. Args: show: how previews are shown, to those who asked."""
    return call.told(job, 0, translation.frames, show, until_of(job))


def until_of(job: Job) -> Until:
    """Who asked for a delivery waits for it; who had one by a key or a template may not know the word."""
    return Until.DELIVERED if is_by_its_client(job) else Until.TOLD


async def _transferred(
    call: Call, wanted: SwapRequest, show: Callable[[PreviewImage], Frame] | None
) -> AsyncGenerator[Frame | Signal]:
    """The whole stream of a request with URLs: the transfer, then the job's events."""
    async with aclosing(obtain_in_stream(call, wanted)) as items:
        async for item in items:
            if not isinstance(item, Job):
                yield item
                continue
            async with aclosing(job_frames(call, item, show)) as told:
                async for frame in told:
                    yield frame


async def get_status(request: Request, call: Call) -> Response:
    """``GET /status/{prompt_id}``."""
    service = call.service
    job = await call.job(request.path_params["prompt_id"], "prompt_id")
    position = await service.queue_position(job.id) if job.state is JobState.QUEUED else None
    delivered = await told_of(call, job)
    if not any(delivery.state is DeliveryState.PENDING for delivery in delivered):
        may_be_kept(request, job)
    prefix = call.window.link_prefix
    return json_response(translation.status_body(job, service.progress(job.id), position, prefix, delivered))


async def get_events(request: Request, call: Call) -> Response:
    """``GET /events/{prompt_id}``, for EventSource."""
    job = await call.job(request.path_params["prompt_id"], "prompt_id")
    return await call.events(request, job, translation.frames, until_of(job))


async def get_download(request: Request, call: Call) -> Response:
    """``GET /download/{filename}``: whoever knows the name may have the file."""
    return await call.file(request, request.path_params["filename"])


async def get_health(request: Request, call: Call) -> Response:
    """``GET /health``: everything to whoever may see jobs, the one word to others."""
    del request
    found = call.service.health()
    return json_response(health.full_body(found) if call.caller is not None else health.word(found))


async def get_ready(request: Request, call: Call) -> Response:
    """``GET /health/ready``: 503 when nothing can run."""
    del request
    found = call.service.health()
    is_ready = health.is_ready(found) and not call.service.stopping.is_set()
    return json_response({"ready": is_ready}, 200 if is_ready else 503)


async def get_root(request: Request, call: Call) -> Response:
    """``GET /``: the page for browsers, a description for programs."""
    if pages.wants_html(request):
        return pages.index_page()
    return json_response(description(call.window.link_prefix), headers={"Vary": "Accept"})


def description(prefix: str) -> dict[str, object]:
    """What there is, for programs. Args: prefix: path before every link."""
    return {
        "name": "comfygate",
        "description": "Face swap on a pool of ComfyUI instances, with progress as it happens.",
        "endpoints": {
            f"POST {prefix}/face-swap": "Swap a face; answers with Server-Sent Events, or with a prompt_id.",
            f"GET {prefix}/status/{{prompt_id}}": "Where a job is.",
            f"GET {prefix}/events/{{prompt_id}}": "A job's Server-Sent Events, from the beginning or Last-Event-ID.",
            f"WS {prefix}/face-swap-ws": "Submit by URL, or attach to a job, and watch it.",
            f"GET {prefix}/download/{{filename}}": "A finished file.",
            f"GET {prefix}/health": "How the gateway and its upstreams are.",
            f"GET {prefix}/health/ready": "503 when nothing can run.",
            f"GET {prefix}/-/jobs": "Your jobs.",
            f"GET {prefix}/openapi.json": "All of it, as OpenAPI 3.1.",
            f"GET {prefix}/docs": "The same as a page.",
        },
        "fields": {
            "video": "file: the video to change",
            "video_url": "URL instead of video",
            "target_image": "file: a picture to change, instead of a video",
            "target_image_url": "URL instead of target_image",
            "image": "file: the photo with the face to put in",
            "image_url": "URL instead of image",
            "webhook_url": "URL that is told when the job has ended",
            "deliver_to": "URL that the result is put to, or the name of a target of the operator's",
            "output_name": "what the result is called",
            "return_prompt_id_only": "true: answer at once with a prompt_id",
        },
        "usage": [
            'curl -N -F "video=@target.mp4" -F "image=@face.jpg" <base>/face-swap',
            'curl -F "video=@target.mp4" -F "image=@face.jpg" -F "return_prompt_id_only=true" <base>/face-swap',
            "curl <base>/status/<prompt_id>",
            "curl -O <base>/download/<filename>",
        ],
    }
