"""A service that checks pictures, on loopback: it says what a test tells it to, and remembers what it was sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class SafetyService:
    """What it answers, and what came."""

    url: str = ""
    status: int = 200
    body: bytes = b'{"flagged": false, "score": 0.01}'
    headers: dict[str, str] = field(default_factory=dict)
    #: Cleared: it takes the picture and says nothing.
    go: threading.Event = field(default_factory=threading.Event)
    #: (headers, body) of each request.
    came: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *arguments: object, state: SafetyService) -> None:
        self.state = state
        super().__init__(*arguments)

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.state.came.append(({name.lower(): value for name, value in self.headers.items()}, data))
        self.state.go.wait(30)
        with suppress(ConnectionError):  # whoever gave up waiting is gone
            self.send_response(self.state.status)
            for name, value in {**self.state.headers, "Content-Length": str(len(self.state.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(self.state.body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[SafetyService]:
    """One that runs as long as the context lasts."""
    state = SafetyService()
    state.go.set()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, state=state)) as server:
        server.daemon_threads = True
        state.url = f"http://127.0.0.1:{server.server_port}/check"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="safety service")
        thread.start()
        try:
            yield state
        finally:
            state.go.set()
            server.shutdown()
            thread.join()
