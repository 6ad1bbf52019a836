"""Sending a finished file from this machine to a URL that somebody else chose: where to, how, and how often.

The URL comes in a graph, and whoever may send graphs could write one. So it counts for nothing by itself: only https, and
only hosts that the operator has listed in this ComfyUI's environment (``COMFYGATE_UPLOAD_HOSTS``), are ever called. Redirects are not
followed, proxies of the environment are not used, and no sentence holds the URL, which is a secret. Standard library alone;
blocking.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import ssl
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import urlsplit

from .host import never_interrupted, no_tick

HOSTS_VARIABLE = "COMFYGATE_UPLOAD_HOSTS"
#: "1": http to hosts of the list that are this machine itself. For tests.
LOOPBACK_VARIABLE = "COMFYGATE_UPLOAD_LOOPBACK_HTTP"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

CONNECT_SECONDS = 10.0
#: Between two pieces, and for the answer: storage puts a large file together before it answers.
PIECE_SECONDS = 120.0
#: Waits before each further try.
WAIT_SECONDS = (1.0, 4.0, 15.0)
CHUNK_BYTES = 1024 * 1024
#: What one PUT of S3 takes.
MAX_BYTES = 5 * 1024**3
MAX_URL_CHARACTERS = 8192
#: Of an answer nothing but the status is wanted.
_ANSWER_BYTES = 4096
_TYPE = re.compile(r"[a-z0-9]+/[a-z0-9.+-]+(?:; ?[a-z0-9-]+=[a-z0-9-]+)?", re.IGNORECASE)
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})

UPLOADED, FAILED = "uploaded", "failed"


class RefusedUrlError(ValueError):
    """A URL that this machine does not call."""


class Target(NamedTuple):
    """Where a file goes."""

    is_encrypted: bool
    host: str
    port: int
    #: Path and query.
    target: str


class Sent(NamedTuple):
    """What came of it."""

    #: "uploaded" or "failed".
    status: str
    size_bytes: int
    #: Of the bytes that were sent, 64 hex digits; "" when not all were.
    sha256: str
    #: Why it failed; "" when it did not.
    reason: str


def check_url(url: object, environment: Mapping[str, str]) -> Target:
    """What a URL means, if it may be called. Raises RefusedUrlError; its sentence says what to set and not what was given."""
    if not isinstance(url, str) or len(url) > MAX_URL_CHARACTERS or not url.isascii():
        raise RefusedUrlError("the URL cannot be read")
    if any(sign <= " " or sign in '\x7f\\"<>^`{|}' for sign in url):
        raise RefusedUrlError("the URL cannot be read")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise RefusedUrlError("the URL cannot be read") from None
    host = (parts.hostname or "").lower()
    if not host or parts.username is not None or parts.password is not None or parts.fragment:
        raise RefusedUrlError("the URL must name a host, without credentials and fragment")
    is_encrypted = parts.scheme == "https"
    is_test = parts.scheme == "http" and environment.get(LOOPBACK_VARIABLE) == "1" and host in LOOPBACK
    if not is_encrypted and not is_test:
        raise RefusedUrlError("the URL must begin with https://")
    number = port if port is not None else (443 if is_encrypted else 80)
    if (host, number) not in _listed(environment.get(HOSTS_VARIABLE, "")):
        raise RefusedUrlError(f"its host is not in {HOSTS_VARIABLE}")
    return Target(is_encrypted, host, number, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))


def _listed(written: str) -> set[tuple[str, int]]:
    """Hosts and ports: ``bucket.example.com, store:9000, [::1]:9000``; without a port it is 443."""
    found = set()
    for word in filter(None, re.split(r"[\s,]+", written.lower())):
        try:
            parts = urlsplit(f"//{word}")
            found.add((parts.hostname or "", parts.port or 443))
        except ValueError:
            continue
    return found


def check_file(path: str, roots: Sequence[str]) -> str:
    """The real path of a plain file below one of the folders. Raises RefusedUrlError."""
    real = os.path.realpath(path)
    if not any(_is_below(real, os.path.realpath(root)) for root in roots):
        raise RefusedUrlError("the file does not lie in ComfyUI's output or temp folder")
    try:
        found = os.stat(real)  # noqa: PTH116 - a path as ComfyUI has it
    except OSError:
        raise RefusedUrlError("the file is not there") from None
    if not stat.S_ISREG(found.st_mode):
        raise RefusedUrlError("it is no plain file")
    return real


def _is_below(path: str, root: str) -> bool:
    try:
        return os.path.commonpath([path, root]) == root and path != root
    except ValueError:  # on another drive
        return False


# ------------------------------------------------------------------------------------------------------------- sending


class _AgainError(Exception):
    """It may go better next time."""


def send(
    path: str,
    target: Target,
    *,
    content_type: str = "",
    on_tick: Callable[[int, int], None] = no_tick,
    check_interrupted: Callable[[], None] = never_interrupted,
    sleep: Callable[[float], None] = time.sleep,
    tls: ssl.SSLContext | None = None,
) -> Sent:
    """PUT a file, at most four times. Memory holds one piece of it.

    Args:
        path: a file that nobody writes to any more.
        target: checked.
        content_type: sent when it is given: a presigned URL may ask for it.
        on_tick: is told how many bytes of how many were sent.
        check_interrupted: called before each piece; may raise.
        sleep: waits.
        tls: what certificates are checked against.
    """
    if content_type and not _TYPE.fullmatch(content_type):
        return Sent(FAILED, 0, "", "the content type cannot be read")
    reason = ""
    for wait in (*WAIT_SECONDS, None):
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - a path as ComfyUI has it
                return _once(file, target, content_type, on_tick, check_interrupted, tls)
        except _AgainError as error:
            reason = str(error)
        if wait is not None:
            _pause(wait, sleep, check_interrupted)
    return Sent(FAILED, os.path.getsize(path), "", reason)  # noqa: PTH202 - likewise


def _pause(seconds: float, sleep: Callable[[float], None], check_interrupted: Callable[[], None]) -> None:
    for _ in range(max(1, round(seconds))):
        check_interrupted()
        sleep(seconds / max(1, round(seconds)))


def _once(
    file: BinaryIO,
    target: Target,
    content_type: str,
    on_tick: Callable[[int, int], None],
    check_interrupted: Callable[[], None],
    tls: ssl.SSLContext | None,
) -> Sent:
    size_bytes = os.fstat(file.fileno()).st_size
    if size_bytes > MAX_BYTES:
        return Sent(FAILED, size_bytes, "", f"it is larger than one PUT may be ({MAX_BYTES} bytes)")
    digest = hashlib.sha256()

    def pieces() -> Iterator[bytes]:
        sent = 0
        while sent < size_bytes and (piece := file.read(min(CHUNK_BYTES, size_bytes - sent))):
            check_interrupted()
            digest.update(piece)
            yield piece
            sent += len(piece)
            on_tick(sent, size_bytes)

    headers = {"Content-Length": str(size_bytes), **({"Content-Type": content_type} if content_type else {})}
    status = _put(target, headers, pieces(), tls)
    if 200 <= status < 300:  # noqa: PLR2004 - what HTTP calls a success
        return Sent(UPLOADED, size_bytes, digest.hexdigest(), "")
    if status in _AGAIN:
        raise _AgainError(f"the storage answered with status {status}")
    return Sent(FAILED, size_bytes, "", f"the storage answered with status {status}")


def _put(target: Target, headers: Mapping[str, str], pieces: Iterator[bytes], tls: ssl.SSLContext | None) -> int:
    """The status of the answer. Raises _AgainError where there is none."""
    connection: Any
    if target.is_encrypted:
        context = tls or ssl.create_default_context()
        connection = http.client.HTTPSConnection(target.host, target.port, timeout=CONNECT_SECONDS, context=context)
    else:
        connection = http.client.HTTPConnection(target.host, target.port, timeout=CONNECT_SECONDS)
    try:
        connection.connect()
        connection.sock.settimeout(PIECE_SECONDS)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            # One that has refused it may hang up before it has all of it, and its answer lies there to be read.
            connection.request("PUT", target.target, body=pieces, headers=headers)
        answer = connection.getresponse()
        answer.read(_ANSWER_BYTES)
        return int(answer.status)
    except (OSError, http.client.HTTPException) as error:
        # Its words may name the address.
        raise _AgainError(f"the storage cannot be reached ({type(error).__name__})") from None
    finally:
        connection.close()
