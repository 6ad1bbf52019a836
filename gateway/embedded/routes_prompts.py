"""Submitting, watching and stopping prompts: ``/prompt``, ``/queue``, ``/interrupt``, ``/history``, ``/free``.

Bodies and status codes are those of ComfyUI a125cd84 (``server.py``), recorded. What a handler raises becomes the gate's
500, as it would there.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from gateway.embedded.replies import JSONReply
from gateway.embedded.state import QueuedPrompt, page_of_history
from gateway.embedded.validation import prompt_error, validate_prompt
from gateway.embedded.worker import Worker, now_ms


class PromptRoutes:
    """The handlers; ``routes`` lists them."""

    def __init__(self, worker_of: Callable[[], Worker]) -> None:
        self._worker_of = worker_of

    def routes(self) -> list[tuple[str, str, Callable[[Request], Awaitable[Response]]]]:
        """As (method, path, handler)."""
        return [
            ("GET", "/prompt", self._get_prompt),
            ("POST", "/prompt", self._post_prompt),
            ("GET", "/queue", self._get_queue),
            ("POST", "/queue", self._post_queue),
            ("POST", "/interrupt", self._post_interrupt),
            ("GET", "/history", self._get_history),
            ("GET", "/history/{prompt_id}", self._get_history_entry),
            ("POST", "/history", self._post_history),
            ("POST", "/free", self._post_free),
        ]

    async def _get_prompt(self, request: Request) -> Response:
        del request
        return JSONReply({"exec_info": {"queue_remaining": self._worker_of().queue.remaining()}})

    async def _post_prompt(self, request: Request) -> Response:
        return await _submit(self._worker_of(), await request.json())

    async def _get_queue(self, request: Request) -> Response:
        del request
        queue = self._worker_of().queue
        running = queue.running()
        items = {
            "queue_running": [running.as_item()] if running else [],
            "queue_pending": [prompt.as_item() for prompt in queue.pending()],
        }
        return JSONReply(items)

    async def _post_queue(self, request: Request) -> Response:
        body, queue = await request.json(), self._worker_of().queue
        if body.get("clear"):
            queue.clear()
        for prompt_id in body.get("delete", ()):
            queue.delete(prompt_id)
        return Response()

    async def _post_interrupt(self, request: Request) -> Response:
        try:
            body = await request.json()
        except ValueError:
            body = {}
        # Nothing, or nothing but the id of another prompt, is not told apart in the answer.
        self._worker_of().queue.interrupt(body.get("prompt_id") or None)
        return Response()

    async def _get_history(self, request: Request) -> Response:
        wanted = request.query_params.get("max_items")
        offset = int(request.query_params.get("offset", -1))
        entries = self._worker_of().queue.history()
        return JSONReply(page_of_history(entries, None if wanted is None else int(wanted), offset))

    async def _get_history_entry(self, request: Request) -> Response:
        return JSONReply(self._worker_of().queue.history(request.path_params["prompt_id"]))

    async def _post_history(self, request: Request) -> Response:
        body, queue = await request.json(), self._worker_of().queue
        if body.get("clear"):
            queue.forget_all()
        for prompt_id in body.get("delete", ()):
            queue.forget(prompt_id)
        return Response()

    async def _post_free(self, request: Request) -> Response:
        if (await request.json()).get("free_memory"):
            self._worker_of().free_memory()
        return Response()


async def _submit(worker: Worker, body: Any) -> Response:
    """POST /prompt. Whatever it raises is ComfyUI's 500."""
    if isinstance(body, list | str):
        body = {}  # "in" works on these too, and finds nothing
    number = float(body["number"]) if "number" in body else worker.queue.take_number(front=bool(body.get("front")))
    if "prompt" not in body:
        return _refused(prompt_error("no_prompt", "No prompt provided", "No prompt provided"))
    graph = body["prompt"] or ({} if isinstance(body["prompt"], list) else body["prompt"])
    if not isinstance(graph, dict) or not isinstance(body.get("extra_data", {}), dict):
        raise TypeError("prompt and extra_data are objects")
    prompt_id = _prompt_id(body, strict=worker.quirks.strict_prompt_ids)
    if prompt_id is None:
        return _refused(prompt_error("invalid_prompt_id", "prompt_id must be a canonical lowercase UUID"))
    verdict = await to_thread.run_sync(
        lambda: validate_prompt(
            graph,
            worker.registry,
            worker.folders,
            targets=body.get("partial_execution_targets"),
            named_graph_errors=worker.quirks.named_graph_errors,
        )
    )
    if verdict.error is not None:
        return _refused(verdict.error, verdict.node_errors)
    extra_data = dict(body.get("extra_data", {}))
    if "client_id" in body:
        extra_data["client_id"] = body["client_id"]
    created_ms = now_ms()
    if worker.quirks.create_time:
        extra_data["create_time"] = created_ms
    worker.log.write("got prompt\n")
    worker.queue.put(QueuedPrompt(number, prompt_id, graph, extra_data, verdict.outputs, created_ms))
    return await _accepted(worker, {"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors})


async def _accepted(worker: Worker, answer: dict[str, Any]) -> Response:
    """The answer to a prompt that is queued by now, unless it is to go wrong."""
    if seconds := worker.faults.reply_delay_seconds():
        await asyncio.sleep(seconds)
    if worker.faults.denies_prompt():
        raise RuntimeError("as --faults demands")
    if worker.faults.faults_prompt():
        error = {"type": "value_not_in_list", "message": "Value not in list", "details": "", "extra_info": {}}
        answer["node_errors"] = {"0": {"errors": [error], "dependent_outputs": ["0"], "class_type": "SaveImage"}}
    return JSONReply(answer)


def _prompt_id(body: Any, *, strict: bool) -> str | None:
    """The submission's id; None when it is refused. 0.3.64 takes anything and makes a string of it."""
    if not strict:
        return str(body.get("prompt_id", uuid.uuid4()))
    given = body.get("prompt_id")
    if given is None:
        return str(uuid.uuid4())
    try:
        return given if str(uuid.UUID(given)) == given else None
    except (ValueError, TypeError, AttributeError):
        return None


def _refused(error: dict[str, Any], node_errors: dict[str, Any] | None = None) -> Response:
    return JSONReply({"error": error, "node_errors": node_errors or {}}, 400)
