"""What ``comfy_v2`` does with templates, for the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from gateway.api.dialects.comfy_v2.asset_description import IDEMPOTENCY
from gateway.api.dialects.comfy_v2.job_description import CREATING, created, wishes
from gateway.api.dialects.comfy_v2.template_schemas import DIALECT
from gateway.api.openapi import samples
from gateway.api.openapi.agreement import IN_HEADER
from gateway.api.openapi.vocabulary import JSON, Body, Content, Model, Operation, Parameter, Schema, json_answer, opened
from gateway.errors import NotFoundError
from gateway.pricing import PricePer


class ComfyPrice(Model):
    """What a job costs."""

    credits: float
    per: PricePer


class ComfyTemplateUrls(Model):
    """Where to ask on."""

    self: str
    jobs: str


class ComfyTemplate(Model):
    """A template that serves."""

    name: str
    version: str
    title: str
    task: str
    price: ComfyPrice
    can_run: bool
    missing: list[str]
    """What keeps it from running."""
    urls: ComfyTemplateUrls


class ComfyDescribedTemplate(ComfyTemplate):
    """A template, and what it takes."""

    inputs: dict[str, Any]
    """JSON Schema of `inputs`."""


class ComfyTemplates(Model):
    """All templates, by name."""

    templates: list[ComfyTemplate]


_NAME: Final = Parameter("name", "Of the template.", where="path", example="faceswap_image")
_URL: Final = "https://faces.example.org/api/v2/templates/faceswap_image"
_TEMPLATE: Final = {
    "name": "faceswap_image",
    "version": "5d41402abc4b",
    "title": "Swap a face in a picture",
    "task": "face_swap",
    "price": {"credits": 1, "per": "job"},
    "can_run": True,
    "missing": [],
    "urls": {"self": _URL, "jobs": f"{_URL}/jobs"},
}
_SCHEMA: Final = {
    "$schema": DIALECT,
    "type": "object",
    "properties": {"target": {"type": "string"}, "face": {"type": "string"}},
    "required": ["face", "target"],
    "additionalProperties": False,
}


def operations() -> dict[str, Operation]:
    """All of them."""
    inputs: Schema = {
        "type": "object",
        "description": "As the template's own schema says. A file is an asset, or the file_path of an upload.",
    }
    never: dict[str, Schema] = {name: {"type": "null"} for name in ("webhook_url", "workflow", "extra_data")}
    files = {
        "target": {"__type": "core/ASSET", "info": {"id": samples.JOB_ID}},
        "face": "input/face.png",
    }
    body = Content(opened({"inputs": inputs, **wishes(), **never}, ("inputs",)), {"swap": {"inputs": files}})
    return {
        "GET /api/v2/templates": Operation(
            id="v2_list_templates",
            summary="The templates that serve",
            answers=(json_answer(200, "By name.", ComfyTemplates, {"one": {"templates": [_TEMPLATE]}}),),
        ),
        "GET /api/v2/templates/{name}": Operation(
            id="v2_get_template",
            summary="A template, with the schema of its inputs",
            parameters=(_NAME,),
            answers=(
                json_answer(200, "The template.", ComfyDescribedTemplate, {"one": {**_TEMPLATE, "inputs": _SCHEMA}}),
            ),
            raises=(NotFoundError,),
        ),
        "POST /api/v2/templates/{name}/jobs": Operation(
            id="v2_create_template_job",
            summary="Run a template with named inputs",
            parameters=(_NAME, IDEMPOTENCY, IN_HEADER),
            body=Body({JSON: body}),
            answers=(created("The job is stored."),),
            raises=(*CREATING, NotFoundError),
        ),
    }
