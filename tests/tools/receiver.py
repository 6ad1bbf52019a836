"""A receiver of webhooks on loopback: keeps what it is sent, answers by script, and can be away for a while."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from tests.tools.gateway_process import free_port


@dataclass
class Receiver:
    """Where it is, and what came."""

    port: int = field(default_factory=free_port)
    #: Statuses of the next answers; afterwards 204.
    script: list[int] = field(default_factory=list)
    #: (headers by lower-case name, body).
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    _server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/told?token=of-mine"

    def __enter__(self) -> Self:
        state = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                state.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(state.script.pop(0) if state.script else 204)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
