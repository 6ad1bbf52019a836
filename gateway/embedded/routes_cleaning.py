"""``/comfygate/files`` and ``/comfygate/clean``, as a ComfyUI with the node pack serves them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from comfy_nodes import routes as pack
from comfy_nodes.prompts import History
from gateway.embedded.files import FOLDER_TYPES
from gateway.embedded.replies import JSONReply
from gateway.embedded.worker import Worker

Handler = Callable[[Request], Awaitable[Response]]


def cleaning_routes(worker_of: Callable[[], Worker]) -> list[tuple[str, str, Handler]]:
    """The routes, as (method, path, handler)."""
    return [("POST", path, _handler(worker_of, path)) for path in pack.PATHS]


def _handler(worker_of: Callable[[], Worker], path: str) -> Handler:
    async def handle(request: Request) -> Response:
        refused = pack.refusal(request.headers.get(pack.TOKEN_HEADER))
        status, said = refused or await _answer(worker_of, path, request)
        return JSONReply(said, status)

    return handle


async def _answer(worker_of: Callable[[], Worker], path: str, request: Request) -> tuple[int, dict[str, object]]:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > pack.MAX_BODY_BYTES:
            return 413, {"error": f"the body is larger than {pack.MAX_BODY_BYTES} bytes"}
    worker = worker_of()
    roots = {kind: str(worker.folders.root(kind)) for kind in FOLDER_TYPES}
    history = History(worker.queue.history, worker.queue.forget)
    return await to_thread.run_sync(pack.answer, path, bytes(body), roots, history)
