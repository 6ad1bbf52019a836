"""What the dialect ``comfy_v2`` is, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from gateway.api.dialects.comfy_v2 import asset_description, job_description, template_description
from gateway.api.dialects.comfy_v2.envelope import CODES
from gateway.api.dialects.comfy_v2.words import NAME
from gateway.api.openapi.vocabulary import Description, Model, World


class ComfyReason(Model):
    """Why not."""

    code: str
    """A word for programs."""
    message: str
    """A sentence for people."""
    details: dict[str, Any] | None
    """What a program can read of it; the field at fault, where there is one."""


class ComfyError(Model):
    """An error over HTTP."""

    error: ComfyReason


def describe(world: World) -> Description:
    """The dialect."""
    del world
    return Description(
        tag=NAME,
        help="The Comfy API, version 2, for the whole pool: files, workflows as they are drawn, templates by name.",
        operations={
            **job_description.operations(),
            **template_description.operations(),
            **asset_description.operations(),
        },
        envelope=ComfyError,
        code_at=("error", "code"),
        code_of=_code,
        told_outside=job_description.ComfyJob,
    )


def _code(ours: str) -> str:
    return CODES.get(ours, ours)
