"""``GET /openapi.json`` and ``GET /docs``: what is served, told by what serves it.

To a stranger the document tells what the code does; to whoever may use the gateway also which parameters the templates
of this one declare.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request
from starlette.responses import Response

from gateway.api import pages
from gateway.api.auth import Access
from gateway.api.problems import JSON_TYPE, problem
from gateway.api.window import Call, Dialect, Endpoint

if TYPE_CHECKING:
    from gateway.api.openapi.document import Section
    from gateway.api.openapi.vocabulary import Description, World

PAGE: Final = "docs.html"


def whole(world: World, dialects: Sequence[Dialect], own_endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The document of these dialects and of our own routes. Raises what ``document.build`` does."""
    from gateway.api.openapi.document import build

    return build(world, sections(world, dialects, own_endpoints))


def sections(world: World, dialects: Sequence[Dialect], own_endpoints: Sequence[Endpoint]) -> list[Section]:
    """Who is described, in the order in which they stand in the document. A dialect without a description is left out."""
    from gateway.api.openapi import own
    from gateway.api.openapi.document import Section
    from gateway.api.openapi.refusals import Manner

    spoken = [
        Section(description, Manner(dialect.envelope, dialect.status_of), dialect.endpoints)
        for dialect in dialects
        if (description := description_of(dialect, world)) is not None
    ]
    return [*spoken, Section(own.describe(world), Manner(problem), own_endpoints)]


def description_of(dialect: Dialect, world: World) -> Description | None:
    """What a dialect says of itself, if anything; its module is loaded now."""
    if dialect.description is None:
        return None
    told: Description = import_module(dialect.description).describe(world)
    return told


async def get_document(request: Request, call: Call) -> Response:
    """``GET /openapi.json``."""
    tasks = None if call.caller is None else call.service.task_types()
    document = await call.window.documents.encoded(tasks)
    # What is told depends on the key, and on templates that change on disk: ask each time, fetch when it is another.
    headers = {"ETag": document.etag, "Cache-Control": "private, no-cache", "Vary": "Authorization, X-API-Key"}
    if document.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(document.body, headers=headers, media_type=JSON_TYPE)


async def get_page(request: Request, call: Call) -> Response:
    """``GET /docs``: the document for people."""
    del request, call
    return pages.page(PAGE)


ENDPOINTS: Final = (
    Endpoint("GET", "/openapi.json", get_document, Access.PUBLIC),
    Endpoint("GET", "/docs", get_page, Access.PUBLIC),
)
