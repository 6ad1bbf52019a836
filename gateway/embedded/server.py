"""ComfyUI's HTTP and WebSocket routes; nothing but translation between them and the worker.

Every route also exists below ``/api``. Bodies and status codes are those of ComfyUI a125cd84 (0.3.64), recorded; what
differs in later versions is behind ``Quirks``. Prompts: ``routes_prompts.py``; files: ``routes_files.py``;
``/api/jobs``: ``routes_jobs.py``.
"""

from __future__ import annotations

import os
import platform
import sys
import uuid
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from anyio import to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Lifespan
from starlette.websockets import WebSocket

from gateway.embedded.gate import Handler, guarded
from gateway.embedded.replies import JSONReply
from gateway.embedded.routes_cleaning import cleaning_routes
from gateway.embedded.routes_files import file_routes
from gateway.embedded.routes_jobs import job_routes
from gateway.embedded.routes_prompts import PromptRoutes
from gateway.embedded.worker import Worker

#: Folders of models a client may ask for; all are empty but this one.
_MODELS = {"insightface": ["cpu-preview"], "facerestore_models": []}


def make_app(worker_of: Callable[[], Worker], lifespan: Lifespan[Starlette], *, jobs_api: bool) -> Starlette:
    """The application, without its gate.

    Args:
        worker_of: gives the worker; it exists from the lifespan's start on.
        lifespan: makes and stops the worker.
        jobs_api: add ``/api/jobs``.
    """
    routes: list[BaseRoute] = []
    plain = [*PromptRoutes(worker_of).routes(), *_information_routes(worker_of), *file_routes(worker_of)]
    plain += cleaning_routes(worker_of)
    for prefix in ("", "/api"):
        routes += [Route(prefix + path, guarded(handler), methods=[method]) for method, path, handler in plain]
        routes.append(WebSocketRoute(f"{prefix}/ws", _socket_handler(worker_of)))
    routes += [Route(path, guarded(handler), methods=[method]) for method, path, handler in _internal_routes(worker_of)]
    if jobs_api:
        routes += [Route(path, guarded(handler), methods=[method]) for method, path, handler in job_routes(worker_of)]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={404: _not_found, 405: _not_allowed})


async def _not_found(request: Request, error: Exception) -> Response:
    if request.method not in ("GET", "HEAD"):
        # Below "/" lies ComfyUI's web page, for GET alone.
        return await _not_allowed(request, error)
    return Response(status_code=404, media_type="application/octet-stream")


async def _not_allowed(request: Request, error: Exception) -> Response:
    del request, error
    return PlainTextResponse("405: Method Not Allowed", 405)


def _socket_handler(worker_of: Callable[[], Worker]) -> Callable[[WebSocket], Awaitable[None]]:
    async def handle(websocket: WebSocket) -> None:
        worker = worker_of()
        client_id = websocket.query_params.get("clientId") or uuid.uuid4().hex
        status = {"status": {"exec_info": {"queue_remaining": worker.queue.remaining()}}, "sid": client_id}
        greeting: list[tuple[str, dict[str, Any]]] = [("status", status)]
        running, node = worker.queue.running(), worker.executor.current_node
        if running is not None and running.client_id == client_id and node is not None:
            greeting.append(("executing", {"node": node}))
        await worker.hub.serve(websocket, client_id, greeting)

    return handle


def _information_routes(worker_of: Callable[[], Worker]) -> list[tuple[str, str, Handler]]:
    async def features(request: Request) -> Response:
        del request
        return JSONReply(worker_of().features)

    async def system_stats(request: Request) -> Response:
        del request
        return JSONReply(_system_stats(worker_of().quirks.comfyui_version))

    async def object_info(request: Request) -> Response:
        wanted, worker = request.path_params.get("class_type"), worker_of()
        chosen = [node for name, node in worker.registry.items() if wanted in (None, name)]
        described = await to_thread.run_sync(lambda: {node.name: node.object_info(worker.folders) for node in chosen})
        return JSONReply(described)

    async def models(request: Request) -> Response:
        folder = request.path_params.get("folder")
        if folder is None:
            return JSONReply(list(_MODELS))
        return JSONReply(_MODELS[folder]) if folder in _MODELS else Response(status_code=404)

    async def empty_list(request: Request) -> Response:
        del request
        return JSONReply([])

    return [
        ("GET", "/features", features),
        ("GET", "/system_stats", system_stats),
        ("GET", "/object_info", object_info),
        ("GET", "/object_info/{class_type}", object_info),
        ("GET", "/models", models),
        ("GET", "/models/{folder}", models),
        ("GET", "/embeddings", empty_list),
        ("GET", "/extensions", empty_list),
    ]


def _version() -> str:
    try:
        return version("comfygate")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"


def _system_stats(comfyui_version: str) -> dict[str, Any]:
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    total, free = os.sysconf("SC_PHYS_PAGES") * page_bytes, os.sysconf("SC_AVPHYS_PAGES") * page_bytes
    memory = {"vram_total": total, "vram_free": free, "torch_vram_total": total, "torch_vram_free": free}
    return {
        "system": {
            "os": os.name,
            "ram_total": total,
            "ram_free": free,
            "comfyui_version": comfyui_version,
            "python_version": f"{platform.python_version()} ({sys.implementation.name})",
            "pytorch_version": "none",
            "embedded_python": False,
            "argv": ["main.py", "--cpu"],
            # Not ComfyUI's: says what really answers here, and that results are previews.
            "embedded_worker": f"comfygate {_version()}",
        },
        "devices": [{"name": "cpu", "type": "cpu", "index": None, **memory}],
    }


def _internal_routes(worker_of: Callable[[], Worker]) -> list[tuple[str, str, Handler]]:
    async def subscribe(request: Request) -> Response:
        body = await request.json()
        worker_of().log.subscribe(str(body["clientId"]), enabled=bool(body["enabled"]))
        return Response()

    async def raw_logs(request: Request) -> Response:
        del request
        return JSONReply({"entries": worker_of().log.entries(), "size": {"cols": 80, "rows": 24}})

    async def logs(request: Request) -> Response:
        del request
        return JSONReply("".join(f"{entry['t']} - {entry['m']}" for entry in worker_of().log.entries()))

    async def files(request: Request) -> Response:
        kind = request.path_params["kind"]
        if kind not in ("input", "output", "temp"):
            return JSONReply({"error": "Invalid directory type"}, 400)
        return JSONReply(await to_thread.run_sync(worker_of().folders.listing, kind))

    return [
        ("PATCH", "/internal/logs/subscribe", subscribe),
        ("GET", "/internal/logs/raw", raw_logs),
        ("GET", "/internal/logs", logs),
        ("GET", "/internal/files/{kind}", files),
    ]
