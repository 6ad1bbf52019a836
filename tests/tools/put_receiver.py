"""A place that takes PUTs over TLS on loopback: keeps what it is sent by path, answers by script, and can be slow to say so."""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from tests.tools.gateway_process import free_port

#: The certificate of ``files.example.com``, and who signed it.
TLS = Path(__file__).parents[1] / "unit" / "blobs" / "tls"
HOST = "files.example.com"


@dataclass
class PutReceiver:
    """Where it is, and what came."""

    port: int = field(default_factory=free_port)
    #: Statuses of the next answers; afterwards 201. None: it takes the file, and says nothing until ``released``.
    script: list[int | None] = field(default_factory=list)
    #: (path with its query, body), of every PUT that came whole.
    got: list[tuple[str, bytes]] = field(default_factory=list)
    #: What lies there.
    there: dict[str, bytes] = field(default_factory=dict)
    released: threading.Event = field(default_factory=threading.Event)
    _server: ThreadingHTTPServer | None = None

    def url(self, path: str) -> str:
        return f"https://{HOST}:{self.port}{path}"

    @property
    def settings(self) -> dict[str, str]:
        """Of a gateway that may reach it."""
        return {"RESOLVE": f"{HOST}=127.0.0.1", "URL_ALLOWLIST": "127.0.0.1", "CA_FILE": str(TLS / "ca.pem")}

    def __enter__(self) -> Self:
        state = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = state.script.pop(0) if state.script else 201
                state.got.append((self.path, body))
                if status is None or status == 201:
                    state.there[self.path] = body
                if status is None:
                    state.released.wait()
                    return
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(TLS / "server.pem", TLS / "server.key")
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
