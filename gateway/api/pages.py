"""The page for people, and the files it is made of: read once from the package, served from memory.

The policy lets the page load from here and nowhere else, and run no inline script; nothing may frame it. ``blob:`` is for
the visitor's own files, which the page shows before they are sent and beside their results. Every address in the page
is relative, so it works below whatever path a proxy gives it.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.auth import Access
from gateway.api.window import Call, Endpoint
from gateway.errors import NotFoundError

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY: Final = (
    "default-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
)
INDEX: Final = "index.html"


def wants_html(request: Request) -> bool:
    """Whether a browser asks: it names text/html, programs do not."""
    return "text/html" in request.headers.get("accept", "").lower()


def index_page() -> Response:
    """The page."""
    return page(INDEX)


def page(name: str) -> Response:
    """One of the pages, whose addresses are relative to the root."""
    return _file(name)


async def get_file(request: Request, call: Call) -> Response:
    """``GET /-/ui/{name}``."""
    del call
    name = request.path_params["name"]
    if name not in _files():
        raise NotFoundError("There is no such page file.")
    etag = _files()[name][1]
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=_headers(name, etag))
    return _file(name)


async def get_index(request: Request, call: Call) -> Response:
    """``GET /-/ui/``: the page lives at the root, from where its relative addresses lead right."""
    del request, call
    return Response(status_code=308, headers={"Location": "../../"})


ENDPOINTS: Final = (
    Endpoint("GET", "/-/ui/", get_index, Access.PUBLIC),
    Endpoint("GET", "/-/ui/{name}", get_file, Access.PUBLIC),
)


@cache
def _files() -> dict[str, tuple[bytes, str]]:
    """Name -> (bytes, entity tag). A handful of small files, read at the first request."""
    folder = resources.files("gateway.api").joinpath("ui")
    found = {entry.name: entry.read_bytes() for entry in folder.iterdir() if _suffix(entry.name) in _TYPES}
    return {name: (body, f'"{hashlib.sha256(body).hexdigest()[:32]}"') for name, body in found.items()}


def _file(name: str) -> Response:
    body, etag = _files()[name]
    return Response(body, headers=_headers(name, etag))


def _headers(name: str, etag: str) -> dict[str, str]:
    return {
        "Content-Type": _TYPES[_suffix(name)],
        "Content-Security-Policy": _POLICY,
        "Cache-Control": "no-cache",
        "ETag": etag,
        "Vary": "Accept",
        "X-Frame-Options": "DENY",
    }


def _suffix(name: str) -> str:
    return name[name.rfind(".") :] if "." in name else ""
