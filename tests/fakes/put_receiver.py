"""Storage that takes PUTs on loopback, and fails as it is told to.

Unrealistic: it knows no signature, keeps no object, and speaks no TLS.
"""

from __future__ import annotations

import hashlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    """Takes PUTs: answers with the next of ``answers``, 200 when there is none; "drop" closes in the middle, "refuse" answers 403 and hangs up unread."""

    def __init__(self):
        self.answers = []
        #: (answer, path and query, headers, size in bytes, sha256) of each that came whole.
        self.got = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self):
                answer = outer.answers.pop(0) if outer.answers else 200
                length = int(self.headers["Content-Length"])
                if answer == "drop":
                    self.rfile.read(length // 2)
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                if answer == "refuse":
                    self.send_response(403)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    self.close_connection = True
                    return
                digest, left = hashlib.sha256(), length
                while left and (piece := self.rfile.read(min(left, 65_536))):
                    digest.update(piece)
                    left -= len(piece)
                if left:
                    return  # the sender went away
                outer.got.append((answer, self.path, dict(self.headers), length, digest.hexdigest()))
                self.send_response(answer)
                if answer in {301, 307}:
                    self.send_header("Location", f"http://127.0.0.1:{outer.port}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
