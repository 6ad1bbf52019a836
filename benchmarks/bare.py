"""The floors: what the same work costs in a Starlette app that does nothing else, served as the gateway is.

* ``/relay/{index}``, ``/relay-ws/{index}``: one socket in, one answer out for each client, frames passed on as they came.
* ``/status/{id}``: a JSON endpoint.
* ``/upload``: the body streamed into a file; ``/download``: a ``FileResponse``.

No authentication, validation, persistence, resuming or limits. Two waits are left out that a careful app would have: the
upload is written in the event loop and not synced.

Run: ``python -m benchmarks.bare FOLDER [UPSTREAM_PORT...]``; prints {"port": N}.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import connect

#: Under which the relay's sockets are known upstream; prompts for it name it.
CLIENT_ID = "bare-{}"
_NEWS = asyncio.Queue[str]


class Bare:
    """The app and its state."""

    def __init__(self, folder: Path, upstream_ports: list[int]) -> None:
        self._folder = folder
        self._ports = upstream_ports
        self._listeners: list[set[_NEWS]] = [set() for _ in upstream_ports]
        self._status = json.loads((folder / "status.json").read_bytes()) if (folder / "status.json").exists() else {}

    def app(self) -> Starlette:
        """The app."""
        return Starlette(
            routes=[
                Route("/relay/{index:int}", self.relay),
                WebSocketRoute("/relay-ws/{index:int}", self.relay_socket),
                Route("/status/{id}", self.status),
                Route("/upload", self.upload, methods=["POST"]),
                Route("/download", self.download),
            ],
            lifespan=self.lifespan,
        )

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Keep the sockets to the upstreams open."""
        del app
        tasks = [
            asyncio.create_task(self._listen(index, port), name=f"socket {index}")
            for index, port in enumerate(self._ports)
        ]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, index: int, port: int) -> None:
        listeners = self._listeners[index]
        url = f"ws://127.0.0.1:{port}/ws?clientId={CLIENT_ID.format(index)}"
        async with connect(url, compression=None, proxy=None) as upstream:
            async for frame in upstream:
                if isinstance(frame, str):
                    for news in listeners:
                        news.put_nowait(frame)

    async def relay(self, request: Request) -> Response:
        """Frames as Server-Sent Events."""
        return StreamingResponse(self._events(request.path_params["index"]), media_type="text/event-stream")

    async def _events(self, index: int) -> AsyncIterator[str]:
        news: _NEWS = asyncio.Queue()
        self._listeners[index].add(news)
        try:
            yield ": here\n\n"
            while True:
                yield f"data: {await news.get()}\n\n"
        finally:
            self._listeners[index].discard(news)

    async def relay_socket(self, websocket: WebSocket) -> None:
        """Frames as messages of a WebSocket."""
        await websocket.accept()
        news: _NEWS = asyncio.Queue()
        self._listeners[websocket.path_params["index"]].add(news)
        try:
            await websocket.receive_text()
            while True:
                await websocket.send_text(await news.get())
        except WebSocketDisconnect:
            pass
        finally:
            self._listeners[websocket.path_params["index"]].discard(news)

    async def status(self, request: Request) -> Response:
        """The same fields that the gateway answers with."""
        del request
        return JSONResponse(self._status)

    async def upload(self, request: Request) -> Response:
        """The raw body, into a file."""
        size = 0
        with (self._folder / "uploaded").open("wb") as file:
            async for chunk in request.stream():
                size += file.write(chunk)
        return JSONResponse({"size": size})

    async def download(self, request: Request) -> Response:
        """A large file."""
        del request
        return FileResponse(self._folder / "large.bin")


def main() -> None:
    """Serve until killed, with the gateway's own settings of uvicorn."""
    bare = Bare(Path(sys.argv[1]), [int(port) for port in sys.argv[2:]])
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    config = uvicorn.Config(
        bare.app(),
        http="httptools",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        log_config=None,
    )
    server = uvicorn.Server(config)

    async def serve() -> None:
        serving = asyncio.create_task(server.serve([listener]), name="server")
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
        await serving

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


if __name__ == "__main__":
    main()
