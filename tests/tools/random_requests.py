"""Requests nobody would write: from a seed, over a raw socket, so that nothing is put right on the way.

A request is a value made from a ``random.Random``; ``send`` puts it on a connection of its own and gives back what came.
It is biased towards the almost right: real routes, real ids, real forms with one thing wrong. Complete garbage never gets
past an HTTP parser.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
from dataclasses import dataclass, field
from random import Random

ANSWER_SECONDS = 30.0
#: What is read of one answer: streams go on for ever, results are large.
MOST_BYTES = 256 * 1024

METHODS = [
    "GET",
    "POST",
    "HEAD",
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "PROPFIND",
    "get",
    "M-SEARCH",
]
ROUTES = [
    "/",
    "/face-swap",
    "/face-swap-ws",
    "/status/{id}",
    "/events/{id}",
    "/download/{link}",
    "/check_status",
    "/swap_image/",
    "/swap_video",
    "/check_task_status/{id}",
    "/static/{link}",
    "/submit_task",
    "/query_task/{id}",
    "/cancel_task/{id}",
    "/task_types",
    "/health",
    "/health/ready",
    "/-/jobs",
    "/-/jobs?state={word}&limit={word}&before={id}",
    "/-/jobs/{id}",
    "/-/jobs/{id}/events",
    "/-/upstreams",
    "/-/upstreams/{word}",
    "/-/upstreams/{word}/drain",
    "/-/upstreams/{word}/resume",
    "/-/templates",
    "/-/ui/{word}",
    "/-/{word}",
    "/openapi.json",
    "/metrics",
    "/api/v1/swaps",
    "/{word}",
]
WORDS = [
    "", "..", "../../etc/passwd", "..%2f..%2fgateway.db", "%2e%2e%2fadmin-token", "%00", "a%00b", "%ff%fe", "%c0%ae%c0%ae",
    "%", "%zz", "embedded-1", "page.js", "index.html", "null", "-1", "0", "1", "101", "99999999999999999999", "1e9", "NaN",
    "queued", "running,failed", "x" * 300, "x" * 5000, "é", "%F0%9F%8E%89", "a/b", "//", "\\", ";a=b", "?", "#", "+", "%20",
    "01a20000-0000-7000-8000-000000000000", "01A20000-0000-7000-8000-000000000000", "{}", "' OR 1=1 --", "%0d%0aX-A:%20b",
]  # fmt: skip
FIELDS = [
    "video", "image", "target_image", "video_url", "image_url", "target_image_url", "output_name", "return_prompt_id_only",
    "target_video", "output", "video_path", "", "é", "a" * 200,
]  # fmt: skip
FILE_FIELDS = {"video", "image", "target_image", "target_video"}
#: Where forms with files go.
SUBMISSIONS = ["/face-swap", "/face-swap", "/swap_image/", "/swap_video/", "/swap_image", "/swap_video"]
TASK_FIELDS = ["source_image", "target_image", "image_url", "scale_factor", "prompt", "width", "output_name", "é"]
VALUES = [
    "", "true", "false", "1", "maybe", "../../x", "x" * 300, "x" * 70_000, "\0", "\r\n", "é🎉", "\u202e",
    "http://127.0.0.1/a.mp4", "https://[::1]/a", "https://10.0.0.1/", "file:///etc/passwd", "https://" + "a" * 3000, "//",
]  # fmt: skip
TYPES = [
    "multipart/form-data; boundary=x",
    "multipart/form-data",
    "multipart/form-data; boundary=",
    'multipart/form-data; boundary="x y"; charset=\xff',
    "application/json",
    "application/json; charset=utf-16",
    "application/x-www-form-urlencoded",
    "text/plain",
    "application/octet-stream",
    ";;;=",
    "",
]
#: (name, values): each at random, with other names at random beside.
HEADERS = [
    ("Host", ["evil.example", "", "localhost", "[::1]", "127.0.0.1:99999", "a b", "x" * 300]),
    ("Origin", ["http://evil.example", "null", "", "http://127.0.0.1", "x" * 3000]),
    ("Sec-Fetch-Site", ["cross-site", "same-origin", "none", "x"]),
    ("X-Forwarded-For", ["1.2.3.4", ",,,", "x"]),
    ("Forwarded", ["for=1.2.3.4", ";;"]),
    ("Authorization", ["Bearer", "Bearer x", "Basic eDp5", "\xff", "Bearer " + "x" * 3000]),
    ("Range", ["bytes=0-", "bytes=-1", "bytes=5-1", "bytes=0-0,2-3", "bytes=99999999999999999999-", "items=1", "bytes=" + "0-1," * 500]),
    ("If-Range", ['"x"', "Sun, 22 Nov 2026 00:00:00 GMT", "x"]),
    ("If-None-Match", ["*", '"x"', "W/", "x" * 1000]),
    ("If-Modified-Since", ["Sun, 22 Nov 2026 00:00:00 GMT", "x", "Sun, 22 Nov 99999 00:00:00 GMT"]),
    ("Last-Event-ID", ["0", "1", "-1", "9" * 400, "x", "\xb2", " 1", ""]),
    ("Accept", ["text/html", "application/problem+json", "*/*;q=x", "text/event-stream", "," * 500]),
    ("Content-Encoding", ["gzip", "br", "identity", ""]),
    ("Expect", ["100-continue", "200-ok"]),
    ("X-Request-ID", ["a", "x" * 65, "\xe9", "a b"]),
    ("Upgrade", ["websocket", "h2c"]),
    ("Connection", ["Upgrade", "keep-alive", "close", "x"]),
    ("Access-Control-Request-Method", ["DELETE"]),
    ("Cookie", ["a=b", ";" * 500]),
]  # fmt: skip


@dataclass
class Known:
    """What real things a request may name."""

    port: int
    ids: list[str]
    links: list[str]
    token: str
    picture: bytes
    clip: bytes


@dataclass
class Request:
    """Bytes to send, and what about them is broken on the HTTP level: then no answer is owed."""

    head: bytes
    body: bytes = b""
    is_http: bool = True
    #: Frames to send after a handshake that succeeded.
    frames: list[bytes] = field(default_factory=list)
    #: Say nothing more after this much of the body, and hang up.
    cut: int | None = None

    def __repr__(self) -> str:
        return f"{self.head[:600]!r} + {len(self.body)} bytes {self.body[:300]!r}"


@dataclass
class Reply:
    """What came back; status None when the connection was closed without a word."""

    status: int | None
    head: bytes = b""
    body: bytes = b""
    close_code: int | None = None


# --------------------------------------------------------------------------------------------------------------- making


def make(rng: Random, known: Known) -> Request:
    kind = rng.random()
    if kind < 0.03:
        return Request(rng.randbytes(rng.randint(1, 2000)) + b"\r\n\r\n", is_http=False)
    if kind < 0.20:
        return _socket(rng, known)
    if kind < 0.50:
        return _submission(rng, known)
    if kind < 0.60:
        return _task(rng, known)
    method = rng.choice(METHODS) if rng.random() < 0.4 else "GET"
    body = _noise(rng) if rng.random() < 0.3 else b""
    return _request(rng, known, method, _path(rng, known), body, rng.choice(TYPES) if body else None)


def _path(rng: Random, known: Known) -> str:
    def one(names: list[str]) -> str:
        return rng.choice(names) if names and rng.random() < 0.6 else rng.choice(WORDS)

    path = rng.choice(ROUTES)
    while "{id}" in path:
        path = path.replace("{id}", one(known.ids), 1)
    while "{word}" in path:
        path = path.replace("{word}", rng.choice(WORDS), 1)
    path = path.replace("{link}", one(known.links))
    if rng.random() < 0.2:
        place = rng.randint(0, len(path))
        path = path[:place] + rng.choice(WORDS) + path[place:]
    if rng.random() < 0.1:
        path += "?" + rng.choice(["last_event_id=", "limit=", "a=", "&" * 300]) + rng.choice(WORDS)
    return path if path.startswith("/") or rng.random() < 0.1 else "/" + path


def _request(rng: Random, known: Known, method: str, path: str, body: bytes, content_type: str | None) -> Request:
    target, is_http = _target(rng, path)
    given = {"Host": f"127.0.0.1:{known.port}"}
    for name, values in rng.sample(HEADERS, rng.choice([0, 0, 0, 1, 2, 4])):
        given[name] = rng.choice(values)
    if rng.random() < 0.1:
        given["Authorization"] = f"Bearer {known.token}"
    if content_type is not None:
        given["Content-Type"] = content_type
    if body or method in {"POST", "PUT", "PATCH"}:
        given["Content-Length"] = str(len(body))
    lines = [method.encode() + b" " + target + b" HTTP/1.1"]
    framing = rng.random()
    if framing < 0.06 and body:
        del given["Content-Length"]
        given["Transfer-Encoding"] = "chunked"
        body = _chunked(rng, body)
    cut = _cut(rng, given, body) if framing > 0.92 else None
    lines += [f"{name}: {value}".encode("latin-1", "replace") for name, value in given.items()]
    if rng.random() < 0.02:
        lines.append(rng.choice([b"no colon", b": empty", b"A\x00: b", b"Host: second", b"X: " + b"y" * 70_000]))
        is_http = False
    # With these two, what is owed depends on the parser.
    is_http &= _is_plain(method) and cut is None and not {"Upgrade", "Expect"} & set(given)
    return Request(b"\r\n".join(lines) + b"\r\n\r\n", body, is_http=is_http, cut=cut)


def _target(rng: Random, path: str) -> tuple[bytes, bool]:
    """What stands in the request line, and whether a parser must take it."""
    target = path.encode("utf-8", "replace")
    if rng.random() < 0.02:
        target += rng.choice([b"\x00", b" x", b"\x7f\x80", b"\xff"])
    return target, target.startswith(b"/") and all(0x20 < byte < 0x7F for byte in target)


def _cut(rng: Random, given: dict[str, str], body: bytes) -> int:
    """Announce another length than is sent, or hang up in the middle."""
    if rng.random() < 0.5:
        return rng.randint(0, len(body))
    wrong = ["-1", "x", "99999999999999999999999", "2147483648", "1", str(len(body) + 1000), "0x10", ""]
    given["Content-Length"] = rng.choice(wrong)
    return len(body)


def _is_plain(method: str) -> bool:
    return method in {"GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"}


def _chunked(rng: Random, body: bytes) -> bytes:
    size = rng.choice([1, 7, 1000, 60_000])
    pieces = [body[at : at + size] for at in range(0, min(len(body), 200 * size), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def _noise(rng: Random) -> bytes:
    return rng.choice(
        [
            b"",
            rng.randbytes(rng.randint(1, 3000)),
            json.dumps(_json(rng)).encode(),
            b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
            b"[" * 100_000,
            b'{"video_url": NaN}',
            b'{"a": "\xff"}',
            b'{"a": "\\ud800"}',
            b"9" * 50_000,
            b"&".join(b"a%d=b" % number for number in range(200)),
            b"a=%ff&b=%",
            bytes(2 * 1024 * 1024),
        ]
    )


def _json(rng: Random, depth: int = 0) -> object:
    if depth < 3 and rng.random() < 0.6:
        return {
            rng.choice([*FIELDS, "prompt_id", "cancel", "url", "name"]): _json(rng, depth + 1)
            for _ in range(rng.randint(0, 4))
        }
    upstreams = [
        "http://127.0.0.1:1",
        "http://127.0.0.1:99999",
        "http://[::1",
        "http://",
        "ftp://127.0.0.1",
        "http://127.0.0.1:1/\0",
    ]
    return rng.choice([None, True, 0, -1, 1e308, 10**30, [], {}, *VALUES, *upstreams])


def _submission(rng: Random, known: Known) -> Request:
    """A form that is nearly right; now and then it is right."""
    if rng.random() < 0.3:
        body, content_type = json.dumps(_json(rng)).encode(), "application/json"
        path = rng.choice([*SUBMISSIONS, "/-/upstreams"])
        return _request(rng, known, "POST", path, body, content_type)
    parts = []
    for _ in range(rng.randint(0, 5)):
        name = rng.choice(FIELDS)
        is_file = rng.random() < (0.8 if name in FILE_FIELDS else 0.1)
        filename = '; filename="' + rng.choice(["a.mp4", "", "../../a", "x" * 500, "\0", "é"]) + '"' if is_file else ""
        content = _content(rng, known) if is_file else rng.choice(VALUES).encode()
        disposition = f'Content-Disposition: form-data; name="{name}"{filename}'
        parts.append(b"--x\r\n" + disposition.encode() + b"\r\n\r\n" + content + b"\r\n")
    if rng.random() < 0.06:  # a whole one: its result is something to ask for
        for name, content in (
            ("target_image", known.picture),
            ("image", known.picture),
            ("return_prompt_id_only", b"1"),
        ):
            suffix = b'; filename="a.png"' if content != b"1" else b""
            parts.append(
                b'--x\r\nContent-Disposition: form-data; name="'
                + name.encode()
                + b'"'
                + suffix
                + b"\r\n\r\n"
                + content
                + b"\r\n"
            )
    body = b"".join(parts) + b"--x--\r\n"
    if rng.random() < 0.2:
        place = rng.randint(0, len(body) - 1)
        body = rng.choice([body[:place], body[:place] + rng.randbytes(5) + body[place + 5 :], body[place:]])
    content_type = rng.choice(TYPES) if rng.random() < 0.1 else TYPES[0]
    return _request(rng, known, "POST", rng.choice(SUBMISSIONS), body, content_type)


def _task(rng: Random, known: Known) -> Request:
    """``POST /submit_task`` with a body that is nearly right, and at times is; or a task queried or canceled."""
    if rng.random() < 0.3:
        path = rng.choice(["/query_task/", "/cancel_task/"]) + rng.choice([*known.ids, *WORDS])
        return _request(rng, known, rng.choice(["GET", "POST"]), path, b"", None)
    task: dict[str, object] = {
        "task_type": rng.choice(
            ["face_swap", "face_swap", "image_upscale", "image_creation", "video_creation", "x", 7]
        ),
        "task_params": {name: _value(rng, known) for name in rng.sample(TASK_FIELDS, rng.randint(0, 5))},
        "user_id": rng.choice(["user123", "u", "\x1f", "x" * 500, 5]),
    }
    if rng.random() < 0.2:
        task[rng.choice(list(task))] = _json(rng)
    if rng.random() < 0.2:
        task = {
            "task_type": "face_swap",
            "task_params": {n: _uri(known.picture) for n in TASK_FIELDS[:2]},
            "user_id": "u",
        }
    body = json.dumps(task).encode()
    if rng.random() < 0.3:
        place = rng.randint(0, len(body) - 1)
        body = rng.choice([body[:place], body[:place] + rng.randbytes(3) + body[place + 3 :], body[place:], body * 2])
    return _request(rng, known, "POST", "/submit_task", body, rng.choice(["application/json", *TYPES]))


def _value(rng: Random, known: Known) -> object:
    """What may stand for a file in JSON, and what may not."""
    uri = _uri(_content(rng, known), rng.choice(["image/png;base64", "", ";base64;x", "\0", "x" * 400, ";BASE64"]))
    return rng.choice([uri, uri, _uri(known.picture), uri[:-1], "data:", "data:,%", "data:,é", _json(rng), *VALUES])


def _uri(content: bytes, head: str = "image/png;base64") -> str:
    return f"data:{head}," + base64.b64encode(content).decode()


def _content(rng: Random, known: Known) -> bytes:
    whole = rng.choice([known.picture, known.clip])
    torn = bytearray(whole)
    for _ in range(rng.randint(1, 20)):
        torn[rng.randrange(len(torn))] = rng.randrange(256)
    return rng.choice(
        [
            whole,
            whole[: rng.randrange(len(whole))],
            bytes(torn),
            b"",
            b"text",
            b"ffconcat version 1.0\n",
            b"GIF89a",
            b"\0" * 5000,
        ]
    )


# -------------------------------------------------------------------------------------------------------------- sockets


def _socket(rng: Random, known: Known) -> Request:
    path = "/face-swap-ws" if rng.random() < 0.8 else _path(rng, known).split(" ", maxsplit=1)[0]
    given = {
        "Host": f"127.0.0.1:{known.port}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    if rng.random() < 0.3:
        name = rng.choice(list(given))
        given[name] = rng.choice(["", "x", "8", "dGhl", "\xff", "a, b"])
    if rng.random() < 0.2:
        given[rng.choice(["Origin", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Authorization"])] = (
            rng.choice(["null", "http://evil.example", "permessage-deflate", "x" * 2000, "Bearer x", ",,,", ""])
        )
    head = f"{rng.choice(['GET'] * 9 + ['POST'])} {path} HTTP/1.1\r\n" + "".join(
        f"{n}: {v}\r\n" for n, v in given.items()
    )
    frames = [_frame(rng, known) for _ in range(rng.randint(1, 5))]
    return Request(head.encode("latin-1", "replace") + b"\r\n", is_http=False, frames=frames)


def _frame(rng: Random, known: Known) -> bytes:
    if rng.random() < 0.1:
        return rng.randbytes(rng.randint(1, 200))
    prompt = {"prompt_id": rng.choice(known.ids or WORDS)}
    text = rng.choice(
        [json.dumps(_json(rng)), json.dumps(prompt), '{"cancel": true}', '{"a":' * 9000, "", "é", "x" * 70_000]
    )
    payload = text.encode() if rng.random() < 0.9 else rng.randbytes(100)
    opcode = rng.choice([1, 1, 1, 1, 1, 0, 2, 3, 8, 9, 10, 15])
    first = (
        (0x80 if rng.random() < 0.95 else 0) | (rng.choice([0x40, 0x20, 0x10]) if rng.random() < 0.05 else 0) | opcode
    )
    announced = len(payload) if rng.random() < 0.95 else rng.choice([0, 2**20 + 1, 2**40, 2**63])
    masked = 0x80 if rng.random() < 0.95 else 0
    if announced < 126:
        head = bytes([first, masked | announced])
    elif announced < 65_536:
        head = bytes([first, masked | 126]) + struct.pack(">H", announced)
    else:
        head = bytes([first, masked | 127]) + struct.pack(">Q", announced)
    if not masked:
        return head + payload
    mask = rng.randbytes(4)
    stretched = (mask * (len(payload) // 4 + 1))[: len(payload)]
    hidden = (int.from_bytes(payload, "big") ^ int.from_bytes(stretched, "big")).to_bytes(len(payload), "big")
    return head + mask + hidden


# --------------------------------------------------------------------------------------------------------------- sending


async def send(request: Request, port: int) -> Reply:
    """One request on a connection of its own. Raises TimeoutError when a whole request is not answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await _exchange(request, reader, writer)
    finally:
        # Without this a body nobody reads would keep the transport, and its warning, until the loop ends.
        writer.transport.abort()


async def _exchange(request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Reply:
    body = request.body if request.cut is None else request.body[: request.cut]
    writing = asyncio.create_task(
        _write(writer, request.head + body, hang_up=not request.is_http and not request.frames)
    )
    try:
        head = await _head(reader)
        while head.startswith(b"HTTP/1.1 100"):
            head = await _head(reader)
        if not head:
            return Reply(None)
        status = int(head.split(b" ", 2)[1])
        if status == 101:
            return Reply(status, head, close_code=await _converse(request.frames, reader, writer))
        return Reply(status, head, await _body(head, request, reader))
    except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return Reply(None)
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


async def _write(writer: asyncio.StreamWriter, data: bytes, *, hang_up: bool) -> None:
    writer.write(data)
    await writer.drain()
    if hang_up:  # half a request is not waited for; its answer may still come
        writer.write_eof()


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as end:
        # Part of a head: its status still counts.
        return end.partial if end.partial.startswith(b"HTTP/1.1 ") else b""


async def _body(head: bytes, request: Request, reader: asyncio.StreamReader) -> bytes:
    lower = head.lower()
    if b"content-length: " in lower and not request.head.startswith(b"HEAD"):
        length = int(lower.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
        return await reader.readexactly(min(length, MOST_BYTES))
    if b"text/event-stream" in lower and not request.head.startswith(b"HEAD"):
        return await reader.read(4096)
    return b""


async def _converse(frames: list[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int | None:
    """Say the frames, listen for a moment; the close code, None when the gateway goes on waiting for more."""
    for frame in frames:
        writer.write(frame)
    received = b""
    try:
        async with asyncio.timeout(0.05):
            await writer.drain()
            while piece := await reader.read(65_536):
                received += piece
    except TimeoutError:
        pass
    return close_code(received)


def close_code(received: bytes) -> int | None:
    """The code of the close frame among a server's frames."""
    while len(received) >= 2:
        opcode, length = received[0] & 0x0F, received[1] & 0x7F
        start = 2
        if length == 126:
            length, start = int.from_bytes(received[2:4], "big"), 4
        elif length == 127:
            length, start = int.from_bytes(received[2:10], "big"), 10
        payload = received[start : start + length]
        if opcode == 8:
            return int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005
        received = received[start + length :]
    return None


def dice(seed: int) -> Random:
    """Where all chance of a run comes from."""
    return Random(seed)  # noqa: S311 - to be repeated, not to be secret


def seed_of_this_run() -> int:
    """From COMFYGATE_FUZZ_SEED, else new each time."""
    given = os.environ.get("COMFYGATE_FUZZ_SEED")
    return int(given) if given else int.from_bytes(os.urandom(4), "big")
