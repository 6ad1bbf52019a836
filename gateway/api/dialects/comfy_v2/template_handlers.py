"""The HTTP handlers of named inputs of the dialect ``comfy_v2``: templates, their schemas, jobs made of them."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.dialects.comfy_v2.job_bodies import PREFIX
from gateway.api.dialects.comfy_v2.job_handlers import body_of, created, extra_of
from gateway.api.dialects.comfy_v2.job_reading import read_template_job
from gateway.api.dialects.comfy_v2.job_refusals import of_a_create
from gateway.api.dialects.comfy_v2.template_schemas import AssetName, described_body, read_inputs, template_body
from gateway.api.dialects.comfy_v2.words import NAME
from gateway.api.facade import Submission, SubmittedFile, TemplateView
from gateway.api.problems import json_response
from gateway.api.window import Call
from gateway.errors import MissingAssetError, NotFoundError
from gateway.interfaces import Blob, Promise
from gateway.job import Job
from gateway.placed import placed_at


async def get_templates(request: Request, call: Call) -> Response:
    """``GET /api/v2/templates``: those that serve, by name."""
    views = call.service.template_views()
    return json_response(
        {"templates": [template_body(view, _url(request, call, view.template.name)) for view in views]}
    )


async def get_template(request: Request, call: Call) -> Response:
    """``GET /api/v2/templates/{name}``: with the schema of its inputs."""
    view = _view(request, call)
    return json_response(described_body(view, _url(request, call, view.template.name)))


async def post_template_jobs(request: Request, call: Call) -> Response:
    """``POST /api/v2/templates/{name}/jobs``: 201 once the job is stored."""
    template = _view(request, call).template
    with of_a_create():
        inputs, wishes = read_template_job(await body_of(request, call))
        extra = await extra_of(wishes, call)
        consent = call.consent(wishes.consent, request.headers, template.task)
        given = read_inputs(template, inputs)

        async def make(promise: Promise | None) -> Job:
            caller = call.known
            submission = Submission(
                owner=caller.owner,
                submitter=caller.submitter,
                dialect=NAME,
                inputs={role: await _file(named, call) for role, named in given.files.items()},
                accepts=given.accepts,
                task=template.task,
                template=template.name,
                parameters=given.parameters,
                priority=wishes.priority,
                extra=extra,
                must_be_runnable=True,
                consent=consent,
                promise=promise,
            )
            return await call.service.submit(submission)

        return await created(request, call, make)


async def _file(named: AssetName, call: Call) -> SubmittedFile:
    """The caller's asset of this id or name. Raises MissingAssetError."""
    assets, owner = call.service.assets, call.known.owner
    try:
        if named.asset_id is not None:
            found = await assets.get(named.asset_id, owner)
        else:
            found = await assets.named(named.file_path or "", owner)
    except NotFoundError as error:
        # As with workflows: a name is no id.
        details = {"missing_ids": [] if named.asset_id is None else [named.asset_id], "field": named.field}
        raise MissingAssetError(f"{named.field} names no asset of yours.", details=details) from error
    if placed_at(found.blob) is not None:
        details = {"missing_ids": [found.id], "field": named.field}
        raise MissingAssetError(
            f"{named.field} names a file that lies at a delivery target and not here.", details=details
        )
    return SubmittedFile(Blob(found.blob, found.size_bytes), named.field, found.id)


def _view(request: Request, call: Call) -> TemplateView:
    name = request.path_params["name"]
    for view in call.service.template_views():
        if view.template.name == name:
            return view
    raise NotFoundError("There is no such template.", field="name")


def _url(request: Request, call: Call, name: str) -> str:
    return f"{call.window.link_base(request)}{PREFIX}/templates/{name}"
