"""``POST /comfygate/files`` and ``POST /comfygate/clean``: what ``cleaning.py`` does, for a gateway that has the token.

Served only where ``COMFYGATE_WORKER_TOKEN`` is set in ComfyUI's environment; the gateway sends the same in a header of its
own, because ``Authorization`` may be a proxy's. Whoever may use this ComfyUI still cannot delete what a gateway left: only
who knows the token can. ``answer`` knows no web server, so that the gateway's own worker serves the same.

Source: ComfyUI a125cd84, ``server.py`` (``PromptServer.instance.routes``, served below ``/`` and ``/api``),
``folder_paths.py``.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from .cleaning import MAX_FILES, NotOursError, as_json, check_gateway, clean, own_files, parts_of, reference_from
from .prompts import MAX_PROMPTS, History, forget, own_prompts

TOKEN_VARIABLE = "COMFYGATE_WORKER_TOKEN"  # noqa: S105 - the name of the variable, not a token
TOKEN_HEADER = "Comfygate-Token"  # noqa: S105 - the name of the header
LIST_PATH = "/comfygate/files"
CLEAN_PATH = "/comfygate/clean"
PATHS = (LIST_PATH, CLEAN_PATH)
#: Of a question; 1000 files with long names are less.
MAX_BODY_BYTES = 1024 * 1024

NOT_SET = (
    f"Set {TOKEN_VARIABLE} in the environment of this ComfyUI, and GATEWAY_UPSTREAM_TOKEN of the gateway to the same."
)
NOT_THE_TOKEN = f"The token is not the one in {TOKEN_VARIABLE} of this ComfyUI."


def refusal(token: str | None, environment: Mapping[str, str] | None = None) -> tuple[int, dict[str, Any]] | None:
    """Status and body for one who has not the token; None for one who has. Before anything of a body is read."""
    expected = (os.environ if environment is None else environment).get(TOKEN_VARIABLE, "")
    if not expected:
        return 403, {"error": NOT_SET}
    if not hmac.compare_digest((token or "").encode(errors="replace"), expected.encode(errors="replace")):
        return 403, {"error": NOT_THE_TOKEN}
    return None


def answer(path: str, body: bytes, roots: Mapping[str, str], history: History) -> tuple[int, dict[str, Any]]:
    """Status and body for one who has the token. Blocking.

    Args:
        path: one of ``PATHS``.
        body: ``{"gateway": id}``, and for the list ``after``, the last file already told; for cleaning ``files`` and ``prompts``.
        roots: "input", "output" and "temp" -> folder.
        history: of this ComfyUI.
    """
    try:
        asked = _object(body)
        gateway = check_gateway(asked.get("gateway"))
        work = _list if path == LIST_PATH else _clean
        return 200, work(roots, history, gateway, asked)
    except NotOursError as error:
        return 400, {"error": f"{error}"}
    except (ValueError, RecursionError):
        return 400, {"error": "the body is no JSON"}


def _object(body: bytes) -> dict[str, Any]:
    value = json.loads(body)
    if not isinstance(value, dict):
        raise NotOursError("an object is wanted")
    return value


def _list(roots: Mapping[str, str], history: History, gateway: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    after = None
    if asked.get("after") is not None:
        after = reference_from(asked["after"])
        parts_of(gateway, after)
    files, has_more = own_files(roots, gateway, after)
    prompts = own_prompts(history, gateway) if after is None else []
    return {"files": [as_json(file) for file in files], "has_more": has_more, "prompts": prompts}


def _clean(roots: Mapping[str, str], history: History, gateway: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    named, prompts = asked.get("files"), asked.get("prompts", [])
    if not isinstance(named, list) or len(named) > MAX_FILES:
        raise NotOursError(f"files is a list of {MAX_FILES} at most")
    if not isinstance(prompts, list) or len(prompts) > MAX_PROMPTS or not all(isinstance(one, str) for one in prompts):
        raise NotOursError(f"prompts is a list of {MAX_PROMPTS} ids at most")
    files = [reference_from(value) for value in named]
    results = clean(roots, gateway, files)
    return {
        "files": [{**as_json(file), "result": result} for file, result in zip(files, results, strict=True)],
        "prompts": [{"id": one, "result": forget(history, roots, gateway, one)} for one in prompts],
    }


# ---------------------------------------------------------------------------------------------------- on a real ComfyUI


def register() -> bool:
    """Have a ComfyUI that loads this pack serve the routes; False where there is none, or where they are there already.

    ComfyUI imports its ``server`` long before custom nodes; nobody else's module of that name is imported here.
    """
    server: Any = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    routes = getattr(server, "routes", None)
    if server is None or routes is None or any(getattr(route, "path", None) in PATHS for route in routes):
        return False  # two copies of the pack: a route that is there twice would keep ComfyUI from starting
    history = _history_of(server.prompt_queue)
    for path in PATHS:
        routes.post(path)(_handler(path, history))
    return True


def _history_of(queue: Any) -> History:
    def entries() -> Mapping[str, Any]:
        with queue.mutex:
            return dict(queue.history)

    return History(entries, queue.delete_history_item)


def _handler(path: str, history: History) -> Any:
    web = import_module("aiohttp.web")

    async def handle(request: Any) -> Any:
        refused = refusal(request.headers.get(TOKEN_HEADER))
        if refused is None:
            status, said = await _answer(path, request, history)
        else:
            status, said = refused
        return web.json_response(said, status=status)

    return handle


async def _answer(path: str, request: Any, history: History) -> tuple[int, dict[str, Any]]:
    body = bytearray()
    async for piece in request.content.iter_chunked(65_536):
        body += piece
        if len(body) > MAX_BODY_BYTES:
            return 413, {"error": f"the body is larger than {MAX_BODY_BYTES} bytes"}
    return await asyncio.get_running_loop().run_in_executor(None, answer, path, bytes(body), _roots(), history)


def _roots() -> dict[str, str]:
    folders = import_module("folder_paths")
    return {
        "input": folders.get_input_directory(),
        "output": folders.get_output_directory(),
        "temp": folders.get_temp_directory(),
    }
