"""A scripted stand-in for one ComfyUI on loopback: it queues, tells and misbehaves as a test says.

Where it is unrealistic: it runs nothing, so a prompt waits until the test moves it (``start``, ``finish``, …); it does not
validate; frames go to every socket; uploads are kept in memory. Its wire shapes are those of ComfyUI 0.3.64
(a125cd84); ``has_jobs_api`` adds the later routes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator, Callable

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect


class ScriptedComfyUI:
    """The state of one server, and the means to move it."""

    def __init__(self) -> None:
        self.pending: list[list[object]] = []
        self.running: list[list[object]] = []
        self.history: dict[str, object] = {}
        self.uploads: dict[str, bytes] = {}
        self.upload_count = 0
        self.outputs: dict[str, bytes] = {}
        self.number = 0
        self.max_upload_size = 1000
        self.has_jobs_api = False
        #: What ``/object_info`` tells; a few invented classes when None.
        self.nodes: object = None
        self.infos = 0
        self.headers: list[dict[str, str]] = []
        self.calls: list[str] = []
        self.probes = 0
        self.connections = 0
        #: "ok", "cut" (queued, reply lost), "500" (queued, yet 500), "drop" (reply lost, never queued), "partly",
        #: "refuse", "missing file".
        self.prompt_answer = "ok"
        #: Whether sockets are sent anything at all.
        self.is_mute = False
        self.renames_to: str | None = None
        #: Interrupts are ignored this often.
        self.deaf_to_interrupts = 0
        self._sockets: list[WebSocket] = []
        self.on_prompt: Callable[[str], object] = lambda prompt_id: None
        self.changed = asyncio.Condition()

    # ------------------------------------------------------------------------------------------------- what tests do

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5), self.changed:
            await self.changed.wait_for(condition)

    async def tell(self, kind: str, **data: object) -> None:
        if self.is_mute:
            return
        for each in list(self._sockets):
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await each.send_text(json.dumps({"type": kind, "data": data}))

    async def start(self, prompt_id: str) -> None:
        item = next(item for item in self.pending if item[1] == prompt_id)
        self.pending.remove(item)
        self.running.append(item)
        await self.tell("execution_start", prompt_id=prompt_id, timestamp=1)
        await self.tell("executing", node="9", display_node="9", prompt_id=prompt_id)

    async def finish(self, prompt_id: str, status: str = "success", messages: object = (), **outputs: object) -> None:
        self.running = [item for item in self.running if item[1] != prompt_id]
        self.pending = [item for item in self.pending if item[1] != prompt_id]
        self.history[prompt_id] = {
            "prompt": [0, prompt_id, {}, {}, []],
            "outputs": outputs,
            "status": {"status_str": status, "completed": status == "success", "messages": messages},
        }
        await self.tell("executing", node=None, prompt_id=prompt_id)

    async def drop_sockets(self) -> None:
        for each in list(self._sockets):
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                await each.close(1011)

    async def restart(self) -> None:
        self.pending, self.running, self.history, self.number = [], [], {}, 0
        await self.drop_sockets()

    # ------------------------------------------------------------------------------------------------------- routes

    async def socket(self, ws: WebSocket) -> None:
        await ws.accept()
        self._sockets.append(ws)
        self.connections += 1
        await self._note(f"ws {ws.query_params['clientId']}")
        if not self.is_mute:
            status = {"status": {"exec_info": {"queue_remaining": 0}}, "sid": ws.query_params["clientId"]}
            await ws.send_text(json.dumps({"type": "status", "data": status}))
        try:
            while True:
                message = json.loads(await ws.receive_text())
                if message["type"] == "feature_flags":
                    self.probes += 1
                    if not self.is_mute:
                        await ws.send_text(json.dumps({"type": "feature_flags", "data": {"max_upload_size": 1}}))
                await self._note("probe")
        except WebSocketDisconnect:
            pass
        finally:
            self._sockets.remove(ws)

    async def prompt(self, request: Request) -> Response:
        body = await request.json()
        prompt_id = body["prompt_id"]
        self.headers.append(dict(request.headers))
        answer = {"prompt_id": prompt_id, "number": self.number, "node_errors": {}}
        fault = {"type": "custom_validation_failed", "message": "m", "details": "image - Invalid image file: x.png"}
        errors = {"1": {"errors": [fault], "class_type": "LoadImage", "dependent_outputs": ["9"]}}
        if self.prompt_answer in {"refuse", "missing file"}:
            if self.prompt_answer == "refuse":
                fault["type"] = "value_not_in_list"
            error = {"type": "prompt_outputs_failed_validation", "message": "m", "details": "", "extra_info": {}}
            return JSONResponse({"error": error, "node_errors": errors}, 400)
        if self.prompt_answer != "drop":
            extra = {**body.get("extra_data", {}), "client_id": body["client_id"]}
            self.pending.append([self.number, prompt_id, body["prompt"], extra, ["9"]])
            self.number += 1
        await self._note(f"prompt {prompt_id}")
        self.on_prompt(prompt_id)
        if self.prompt_answer in {"cut", "drop"}:
            return Response(b"{", headers={"content-length": "100", "connection": "close"})
        if self.prompt_answer == "500":
            return PlainTextResponse("500 Internal Server Error", 500)
        if self.prompt_answer == "partly":
            fault["type"] = "value_not_in_list"
            answer["node_errors"] = errors
        else:
            await self.tell("status", status={"exec_info": {"queue_remaining": len(self.pending)}})
        return JSONResponse(answer)

    async def queue(self, request: Request) -> Response:
        if request.method == "POST":
            deleted = (await request.json()).get("delete", [])
            self.pending = [item for item in self.pending if item[1] not in deleted]
            await self._note(f"delete {deleted}")
            return Response()
        await self._note("queue")
        return JSONResponse({"queue_running": self.running, "queue_pending": self.pending})

    async def interrupt(self, request: Request) -> Response:
        body = await request.json()
        prompt_id = body["prompt_id"]  # a blind interrupt is a KeyError, so a 500 and a failed test
        await self._interrupt(prompt_id)
        return Response()

    async def _interrupt(self, prompt_id: str) -> None:
        await self._note(f"interrupt {prompt_id}")
        if self.deaf_to_interrupts:
            self.deaf_to_interrupts -= 1
        elif any(item[1] == prompt_id for item in self.running):
            await self.finish(prompt_id, "error", [["execution_interrupted", {"prompt_id": prompt_id}]])

    async def history_of(self, request: Request) -> Response:
        prompt_id = request.path_params["prompt_id"]
        await self._note(f"history {prompt_id}")
        return JSONResponse({prompt_id: self.history[prompt_id]} if prompt_id in self.history else {})

    async def upload(self, request: Request) -> Response:
        body = await request.body()
        self.upload_count += 1
        if len(body) > self.max_upload_size:
            return PlainTextResponse("Maximum request body size exceeded.", 413)
        assert int(request.headers["content-length"]) == len(body)
        form = re.findall(
            rb'name="(\w+)"(?:; filename="([^"]+)")?\r\n(?:Content-Type: [^\r]+\r\n)?\r\n(.*?)\r\n--', body, re.DOTALL
        )
        fields = {name.decode(): (filename.decode(), content) for name, filename, content in form}
        name = self.renames_to or fields["image"][0]
        self.uploads[name] = fields["image"][1]
        assert fields["type"][1] == b"input"
        await self._note(f"upload {name}")
        return JSONResponse({"name": name, "subfolder": fields["subfolder"][1].decode(), "type": "input"})

    async def view(self, request: Request) -> Response:
        name = request.query_params["filename"]
        return Response(self.outputs[name]) if name in self.outputs else Response(status_code=404)

    async def jobs(self, request: Request) -> Response:
        return JSONResponse({"jobs": []}) if self.has_jobs_api else Response(status_code=404)

    async def cancel_job(self, request: Request) -> Response:
        if not self.has_jobs_api:
            return Response(status_code=404)
        prompt_id = request.path_params["prompt_id"]
        await self._note(f"cancel job {prompt_id}")
        self.pending = [item for item in self.pending if item[1] != prompt_id]
        if any(item[1] == prompt_id for item in self.running):
            await self.finish(prompt_id, "error", [["execution_interrupted", {"prompt_id": prompt_id}]])
        return JSONResponse({"cancelled": True})

    async def object_info(self, request: Request) -> Response:
        spec = {"required": {"model": [["a.onnx", "b.onnx"], {}], "scale": ["FLOAT", {"max": float("inf")}]}}
        v3 = {"optional": {"name": ["COMBO", {"options": ["x"]}]}}
        self.infos += 1
        info = self.nodes or {"Swap": {"input": spec, "output_node": False}, "V3": {"input": v3}}
        return Response(json.dumps(info), media_type="application/json")  # as ComfyUI: Infinity is written out

    async def system_stats(self, request: Request) -> Response:
        return JSONResponse({"system": {"comfyui_version": "0.3.64"}, "devices": []})

    async def features(self, request: Request) -> Response:
        return JSONResponse({"max_upload_size": self.max_upload_size})

    async def subscribe(self, request: Request) -> Response:
        await self._note("subscribe")
        return Response(status_code=404)

    async def _note(self, call: str) -> None:
        async with self.changed:
            self.calls.append(call)
            self.changed.notify_all()

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                WebSocketRoute("/ws", self.socket),
                Route("/prompt", self.prompt, methods=["POST"]),
                Route("/queue", self.queue, methods=["GET", "POST"]),
                Route("/interrupt", self.interrupt, methods=["POST"]),
                Route("/history/{prompt_id}", self.history_of),
                Route("/upload/image", self.upload, methods=["POST"]),
                Route("/view", self.view),
                Route("/api/jobs", self.jobs),
                Route("/api/jobs/{prompt_id}/cancel", self.cancel_job, methods=["POST"]),
                Route("/object_info", self.object_info),
                Route("/system_stats", self.system_stats),
                Route("/features", self.features),
                Route("/internal/logs/subscribe", self.subscribe, methods=["PATCH"]),
            ]
        )

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Serve on a free loopback port; gives the base URL."""
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(self.app(), log_config=None, lifespan="off", ws="websockets-sansio", http="h11")
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve([listener]), name="scripted ComfyUI")
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = server.force_exit = True
            await asyncio.wait({task})
            listener.close()
