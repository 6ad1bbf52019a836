"""A tiny web server on loopback for URL inputs: files out of a folder, what was asked, and bad manners on demand."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class FileServer:
    """Where it is, what it was asked for, and what it waits for."""

    url: str = ""
    asked: list[str] = field(default_factory=list)
    #: Cleared: requests for /slow/… wait.
    go: threading.Event = field(default_factory=threading.Event)


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *arguments: object, state: FileServer, **settings: object) -> None:
        self.state = state
        super().__init__(*arguments, **settings)

    def do_GET(self) -> None:
        self.state.asked.append(self.path)
        if self.path.startswith("/slow/"):
            self.state.go.wait(30)
            self.path = self.path.removeprefix("/slow")
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        with suppress(ConnectionError):  # whoever gave up waiting is gone
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(folder: Path, *, tls: ssl.SSLContext | None = None, name: str = "127.0.0.1") -> Iterator[FileServer]:
    """Serve a folder as long as the context lasts. Args: tls: https instead of http; name: as which it is to be asked."""
    state = FileServer()
    state.go.set()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder), state=state)) as server:
        server.daemon_threads = True
        if tls is not None:
            # The handshake is the handler thread's: one that stalls must not hold up the others.
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        state.url = f"{'http' if tls is None else 'https'}://{name}:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="file server")
        thread.start()
        try:
            yield state
        finally:
            state.go.set()
            server.shutdown()
            thread.join()
