"""Our own routes about the pool, described: upstreams, templates, and the pages."""

from __future__ import annotations

from typing import Final

from gateway.api.openapi.shapes import Upstream
from gateway.api.openapi.vocabulary import (
    JSON,
    Answer,
    Body,
    Content,
    Model,
    Operation,
    Parameter,
    closed,
    json_answer,
    nullable,
    opened,
)
from gateway.errors import ConflictError, InvalidInputError, NotFoundError

TAG: Final = "pool"
_UPSTREAM: Final = {
    "name": "gpu-1",
    "address": "http://10.0.0.5:8188",
    "engine": "comfyui",
    "version": "0.3.64",
    "reachable": True,
    "available": True,
    "draining": False,
    "restarting": False,
    "job_id": None,
    "foreign_prompts": 0,
    "stale_prompts": 0,
    "cleaning": "works",
    "reason": "",
}
_NAME: Final = Parameter("name", "Of the upstream.", where="path", example="gpu-1")


class Upstreams(Model):
    """The pool."""

    upstreams: list[Upstream]


class ServedTemplate(Model):
    """A template."""

    name: str
    serving: bool
    problem: str | None
    """Why it does not serve, or not in its newest version."""


class Templates(Model):
    """All templates."""

    templates: list[ServedTemplate]


def operations() -> dict[str, Operation]:
    """All of them."""
    return {**_upstreams(), **_turns(), **_pages()}


def _upstreams() -> dict[str, Operation]:
    one = {"idle": _UPSTREAM}
    url = {"type": "string", "format": "uri", "minLength": 1, "description": "Base URL of a ComfyUI instance."}
    name = nullable({"type": "string", "minLength": 1, "description": "What it is to be called."})
    added = Content(
        opened({"url": url, "name": name}, ("url",)), {"gpu-2": {"url": "http://10.0.0.6:8188", "name": "gpu-2"}}
    )
    return {
        "GET /-/upstreams": Operation(
            id="list_upstreams",
            tag=TAG,
            summary="The pool",
            answers=(json_answer(200, "Each upstream.", Upstreams, {"pool": {"upstreams": [_UPSTREAM]}}),),
        ),
        "POST /-/upstreams": Operation(
            id="add_upstream",
            tag=TAG,
            summary="Add an upstream",
            body=Body({JSON: added}),
            answers=(json_answer(201, "It is in the pool.", Upstream, one),),
            raises=(InvalidInputError, ConflictError),
        ),
        "DELETE /-/upstreams/{name}": Operation(
            id="remove_upstream",
            tag=TAG,
            summary="Take an upstream out of the pool",
            parameters=(_NAME,),
            answers=(Answer(204, "It is gone."),),
            raises=(NotFoundError, ConflictError),
        ),
        "GET /-/templates": Operation(
            id="list_templates",
            tag=TAG,
            summary="The templates, and what is wrong with those that do not serve",
            answers=(
                json_answer(
                    200,
                    "By name.",
                    Templates,
                    {"templates": {"templates": [{"name": "faceswap_video", "serving": True, "problem": None}]}},
                ),
            ),
        ),
    }


def _turns() -> dict[str, Operation]:
    one = {"idle": _UPSTREAM}
    drained = {"draining": {**_UPSTREAM, "draining": True, "available": False}}
    restarting = {"restarting": {**_UPSTREAM, "name": "comfyui-0", "restarting": True, "available": False}}
    return {
        "POST /-/upstreams/{name}/drain": Operation(
            id="drain_upstream",
            tag=TAG,
            summary="Give an upstream nothing new",
            parameters=(_NAME,),
            answers=(json_answer(200, "The upstream.", Upstream, drained),),
            raises=(NotFoundError,),
        ),
        "POST /-/upstreams/{name}/resume": Operation(
            id="resume_upstream",
            tag=TAG,
            summary="Give an upstream work again",
            parameters=(_NAME,),
            answers=(json_answer(200, "The upstream.", Upstream, one),),
            raises=(NotFoundError,),
        ),
        "POST /-/upstreams/{name}/restart": Operation(
            id="restart_upstream",
            tag=TAG,
            summary="Restart a process of the gateway's own when its job has ended",
            parameters=(_NAME,),
            answers=(json_answer(202, "The upstream.", Upstream, restarting),),
            raises=(NotFoundError, ConflictError),
        ),
    }


def _pages() -> dict[str, Operation]:
    html, text = Content({"type": "string"}), {"type": "string"}
    file_headers = {"ETag": "Of the file.", "Content-Security-Policy": "What the page may do."}
    document = closed({}) | {"additionalProperties": True}
    return {
        "GET /openapi.json": Operation(
            id="openapi",
            tag="pages",
            summary="This document",
            help="To a caller with a key it also tells which parameters the templates declare.",
            parameters=(Parameter("If-None-Match", "Answer 304 when it is still this one.", where="header"),),
            answers=(
                Answer(200, "OpenAPI 3.1.", {JSON: Content(document)}, {"ETag": "Of the document."}),
                Answer(304, "It is the one that the client has.", {}, {"ETag": "Of the document."}),
            ),
        ),
        "GET /docs": Operation(
            id="docs",
            tag="pages",
            summary="This document as a page, which loads nothing from elsewhere",
            answers=(Answer(200, "The page.", {"text/html": html}, file_headers),),
        ),
        "GET /-/ui/": Operation(
            id="ui_root",
            tag="pages",
            summary="Where the page is",
            answers=(Answer(308, "At the root.", {}, {"Location": "Relative."}),),
        ),
        "GET /-/ui/{name}": Operation(
            id="ui_file",
            tag="pages",
            summary="A file of a page",
            parameters=(
                Parameter("name", "Of the file.", where="path", example="page.js"),
                Parameter("If-None-Match", "Answer 304 when it is still this one.", where="header"),
            ),
            answers=(
                Answer(
                    200,
                    "The file.",
                    {kind: Content(text) for kind in ("text/html", "text/css", "text/javascript", "image/svg+xml")},
                    file_headers,
                ),
                Answer(304, "It is the one that the client has.", {}, file_headers),
            ),
            raises=(NotFoundError,),
        ),
    }
