"""Assets of ``comfy_v2`` over a real database and a real disk: bytes, owners, ranges, and what a failure leaves: nothing."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.accounts import RANDOM_BYTES, KeyKind, User, hash_of, key_text
from gateway.api.app import create_app
from gateway.asset_links import AssetLinks
from gateway.blobs.local import LocalBlobs
from gateway.engine.assets import Assets
from gateway.engine.claims import Claims
from gateway.engine.results import take_back
from gateway.interfaces import Blob
from gateway.settings import from_mapping
from gateway.store.sql_store import SqlStore
from tests.contract.published import PATH, hold
from tests.fakes.clock import FrozenClock
from tests.fakes.fake_service import NOW, FakeService
from tests.tools.asgi import Answer, ask, scope_of

ROOT = "/api/v2/assets"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
HASH = f"blake3:{blake3(PNG).hexdigest()}"
DAY = 86_400.0
BOUNDARY = "limit"
MULTIPART = {"content_type": f"multipart/form-data; boundary={BOUNDARY}"}


def part(name: str, value: str | bytes) -> bytes:
    filename = '; filename="whatever"' if isinstance(value, bytes) else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n'
    return head.encode() + (value if isinstance(value, bytes) else value.encode()) + b"\r\n"


def upload_body(file: bytes = PNG, *more: tuple[str, str], **fields: str) -> bytes:
    said = {"content_type": "image/png", "file_path": "photo.png", **fields}
    parts = [part(name, value) for name, value in (*said.items(), *more)]
    return b"".join((*parts, part("file", file))) + f"--{BOUNDARY}--\r\n".encode()


class House:
    """The gateway's windows over a store in memory and blobs on a disk; jobs are a fake's. Every answer is held against
    the published contract where that is here."""

    def __init__(self, folder: Any, **values: Any) -> None:
        settings_ = from_mapping({"auth": "keys", **values})
        self.folder = folder / "blobs"
        self.store = SqlStore.in_memory()
        self.clock = FrozenClock(NOW)
        self.blobs = LocalBlobs(self.folder, free=lambda _folder: 10**13)
        ids = (f"019a0000-0000-7000-9000-{number:012x}" for number in itertools.count(1))
        self.service = FakeService(settings_)
        self.service.clock = self.clock
        self.service.blobs = self.blobs
        self.service.assets = Assets(
            self.store.assets, self.clock, lambda: next(ids), AssetLinks(bytes(32)), retention_seconds=DAY
        )
        self.service.claims = Claims(self.store.claims, self.clock, lambda: next(ids))
        self.service.discard = self.discard
        self.app = create_app(self.service, settings_, admin_token=None)
        self.keys = {name: self.give_key(name) for name in ("ann", "bob")}

    def give_key(self, name: str) -> str:
        """A key of a user's; the owner is ``key-<name>``."""
        text = key_text(KeyKind.TEST, name.encode().ljust(RANDOM_BYTES, b"."))
        self.service.give_key()
        accounts = self.service.account_store
        accounts.by_name[name] = User(f"user-{name}", name, "free", email_verified=False, created_at=NOW)
        key = accounts.by_id["key-1"]
        accounts.by_id[f"key-{name}"] = type(key)(
            f"key-{name}", f"user-{name}", name, "cfg_test_", 10_000, 50, key.scopes, NOW
        )
        accounts.hashes[hash_of(text)] = (f"key-{name}", float("inf"))
        return text

    async def discard(self, blobs: Any) -> None:
        await take_back(self.store, self.blobs, blobs)

    async def ask(
        self, method: str, path: str, body: bytes = b"", *, who: str | None = "ann", **headers: str
    ) -> Answer:
        if who is not None:
            headers["authorization"] = f"Bearer {self.keys[who]}"
        answer = await ask(self.app, method, path, body, **headers)
        if PATH.is_file():
            hold(method, path, answer)
        return answer

    async def upload(self, file: bytes = PNG, *more: tuple[str, str], who: str = "ann", **fields: str) -> Answer:
        return await self.ask("POST", ROOT, upload_body(file, *more, **fields), who=who, **MULTIPART)

    async def from_hash(self, who: str = "ann", **body: Any) -> Answer:
        said = json.dumps({"hash": HASH, "file_path": "photo.png", **body}).encode()
        return await self.ask("POST", f"{ROOT}/from-hash", said, who=who, content_type="application/json")

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.rglob("*") if path.is_file())

    async def rows(self) -> int:
        def count(connection: Any) -> int:
            return connection.exec_driver_sql(
                "SELECT (SELECT count(*) FROM assets) + (SELECT count(*) FROM blobs)"
            ).scalar()

        return await self.store._executor.read(count)

    async def nothing_left(self) -> bool:
        return self.files() == [] and await self.rows() == 0

    async def close(self) -> None:
        await self.blobs.close()
        await self.store.close()


async def open_house(folder: Any, **values: Any) -> House:
    made = House(folder, **values)
    await made.blobs.prepare()
    return made


@pytest.fixture
async def house(tmp_path: Any) -> AsyncIterator[House]:
    made = await open_house(tmp_path)
    yield made
    await made.close()


# ----------------------------------------------------------------------------------------------------------- one owner


async def test_a_file_goes_up_and_comes_down_as_it_was(house: House):
    made = await house.upload(PNG, ("tags", "input"), ("tags", "face"))
    assert (made.status, made.json["created_new"], made.json["hash"]) == (201, True, HASH)
    assert made.json["size_bytes"] == len(PNG)
    known = await house.store.assets.get(made.json["id"], "key-ann", now=NOW)
    assert known is not None
    assert known.tags == ("input", "face")
    content = await house.ask("GET", f"{ROOT}/{made.json['id']}/content")
    assert (content.status, content.body, content.headers["content-type"]) == (200, PNG, "image/png")
    by_link = await house.ask("GET", made.json["url"].removeprefix("http://localhost:8000"), who=None)
    assert (by_link.status, by_link.body) == (200, PNG)
    again = await house.upload(PNG)
    assert (again.status, again.json["created_new"], again.json["id"]) == (200, False, made.json["id"])
    assert house.files() == [HASH.removeprefix("blake3:")]


async def test_what_the_sdk_does_twice_is_one_asset(house: House):
    assert (await house.ask("HEAD", f"{ROOT}/by-hash/{HASH}")).status == 404
    first = await house.upload(expected_hash=HASH)
    assert (await house.ask("HEAD", f"{ROOT}/by-hash/{HASH}")).status == 200
    again = await house.from_hash()
    assert (again.status, again.json["id"]) == (200, first.json["id"])
    other = await house.from_hash(file_path="b.png")
    assert other.status == 201
    assert other.json["id"] != first.json["id"]


async def test_retention_is_prolonged_by_whoever_names_it_again_and_never_shortened(house: House):
    long = await house.upload(expires_in="604800")
    short = await house.upload(expires_in="60")
    assert short.json["expires_at"] == long.json["expires_at"]
    house.clock.advance(DAY * 7)
    gone = await house.ask("GET", f"{ROOT}/{long.json['id']}")
    assert gone.status == 404


@pytest.mark.parametrize(
    ("asked", "status", "start", "end"),
    [
        ("bytes=0-0", 206, 0, 1),
        ("bytes=-1", 206, -1, None),
        ("bytes=10-", 206, 10, None),
        ("bytes=0-99999", 206, 0, None),
        ("bytes=5-4", 200, 0, None),
        ("items=0-1", 200, 0, None),
        (f"bytes={len(PNG)}-", 416, 0, 0),
    ],
)
async def test_ranges(house: House, asked: str, status: int, start: int, end: int | None):
    made = await house.upload()
    answer = await house.ask("GET", f"{ROOT}/{made.json['id']}/content", range=asked)
    assert (answer.status, answer.body) == (status, PNG[start:end])
    if status == 416:
        assert answer.headers["content-range"] == f"bytes */{len(PNG)}"


async def test_a_download_goes_on_where_it_stopped_and_an_unchanged_one_is_not_sent_again(house: House):
    made = await house.upload()
    path = f"{ROOT}/{made.json['id']}/content"
    etag = (await house.ask("GET", path)).headers["etag"]
    rest = await house.ask("GET", path, range="bytes=100-", if_range=etag)
    assert (rest.status, rest.body) == (206, PNG[100:])
    whole = await house.ask("GET", path, range="bytes=100-", if_range='"another"')
    assert (whole.status, whole.body) == (200, PNG)
    assert (await house.ask("GET", path, if_none_match=etag)).status == 304


# --------------------------------------------------------------------------------------------------------- two owners


async def test_bytes_of_another_owner_are_not_there(house: House):
    first = await house.upload(who="bob")
    assert (await house.ask("HEAD", f"{ROOT}/by-hash/{HASH}")).status == 404
    missing = await house.from_hash()
    assert (missing.status, missing.json["error"]["code"]) == (404, "blob_not_found")
    own = await house.upload()
    assert (own.status, own.json["created_new"]) == (201, True)
    assert own.json["id"] != first.json["id"]
    assert house.files() == [HASH.removeprefix("blake3:")]


async def test_deleting_takes_nothing_from_another_owner(house: House):
    bobs, anns = await house.upload(who="bob"), await house.upload()
    assert (await house.ask("DELETE", f"{ROOT}/{anns.json['id']}")).status == 204
    await house.store.sweep(job_retention_seconds=1e9, blob_grace_seconds=0.0, now=NOW + 1)
    content = await house.ask("GET", f"{ROOT}/{bobs.json['id']}/content", who="bob")
    assert (content.status, content.body) == (200, PNG)


def without_id(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    """All of an answer but what differs between any two."""
    headers = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
    return (
        answer.status,
        {name: value for name, value in headers.items() if not name.startswith("ratelimit")},
        answer.body,
    )


@pytest.mark.parametrize(("method", "tail"), [("GET", ""), ("GET", "/content"), ("DELETE", ""), ("HEAD", "/content")])
async def test_unknown_foreign_and_deleted_ids_answer_alike_to_the_byte(house: House, method: str, tail: str):
    foreign = (await house.upload(who="bob")).json["id"]
    deleted = (await house.upload(file_path="x.png")).json["id"]
    assert (await house.ask("DELETE", f"{ROOT}/{deleted}")).status == 204
    expired = (await house.upload(file_path="y.png", expires_in="60")).json["id"]
    house.clock.advance(61)
    ids = (
        "019a0000-0000-7000-9000-ffffffffffff",
        foreign,
        deleted,
        expired,
        "no-id",
        "x" * 5000,
        "%00",
        "%F0%9F%92%A5",
    )
    told = []
    for asset_id in ids:
        # The contract has no HEAD of content; that is HTTP's.
        answer = await ask(house.app, method, f"{ROOT}/{asset_id}{tail}", authorization=f"Bearer {house.keys['ann']}")
        told.append(without_id(answer))
    assert told[0][0] == 404
    assert told == [told[0]] * len(ids)


async def test_a_link_opens_its_own_asset_alone(house: House):
    first, other = await house.upload(), await house.upload(file_path="b.png")
    path, _, query = first.json["url"].removeprefix("http://localhost:8000").partition("?")
    expires, signature = (pair.partition("=")[2] for pair in query.split("&"))
    for wrong in (
        f"{ROOT}/{other.json['id']}/content?{query}",
        f"{ROOT}/019a0000-0000-7000-9000-ffffffffffff/content?{query}",
        f"{path}?expires={int(expires) + 1}&signature={signature}",
        f"{path}?expires={expires}&signature=",
        f"{path}?signature={signature}",
        f"{path}?expires=%C2%B2&signature=%ff%fe",
    ):
        refused = await house.ask("GET", wrong, who=None)
        assert (refused.status, refused.json["error"]["code"]) == (403, "forbidden"), wrong
    assert (await house.ask("GET", path, who=None)).status == 401
    house.clock.advance(3601)
    assert (await house.ask("GET", f"{path}?{query}", who=None)).status == 403
    await house.ask("DELETE", f"{ROOT}/{first.json['id']}")
    fresh = house.service.assets.link(first.json["id"], None)
    assert (await house.ask("GET", f"{path}?{fresh.query}", who=None)).status == 404


steps = st.lists(
    st.tuples(
        st.sampled_from(["upload", "from_hash", "head", "get", "delete", "content"]),
        st.sampled_from([PNG, b"words"]),
        st.sampled_from(["a.png", "input/b.png"]),
        st.integers(0, 3),
    ),
    max_size=6,
)


@given(anns=steps, bobs=steps)
@example(anns=[("upload", PNG, "a.png", 0)], bobs=[("head", PNG, "a.png", 0), ("upload", PNG, "a.png", 0)])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_one_owner_is_told_does_not_depend_on_what_another_has(tmp_path_factory, anns, bobs):
    async def told(*, with_ann: bool) -> list[object]:
        house = await open_house(tmp_path_factory.mktemp("world"))
        made: dict[str, list[str]] = {"ann": [], "bob": []}
        answers = []
        try:
            for place in range(max(len(anns), len(bobs))):
                if with_ann and place < len(anns):
                    await act(house, "ann", anns[place], made["ann"])
                if place < len(bobs):
                    answers.append(await act(house, "bob", bobs[place], made["bob"]))
        finally:
            await house.close()
        return answers

    assert asyncio.run(told(with_ann=True)) == asyncio.run(told(with_ann=False))


async def act(house: House, who: str, step: tuple[str, bytes, str, int], made: list[str]) -> object:
    """One request of an owner's, and its answer without what is new each time: ids by their place, and links."""
    what, data, name, number = step
    spelled = f"blake3:{blake3(data).hexdigest()}"
    asset_id = made[number] if number < len(made) else "none"
    match what:
        case "upload":
            answer = await house.upload(data, who=who, file_path=name)
        case "from_hash":
            answer = await house.from_hash(who, hash=spelled, file_path=name)
        case "head":
            answer = await house.ask("HEAD", f"{ROOT}/by-hash/{spelled}", who=who)
        case "get":
            answer = await house.ask("GET", f"{ROOT}/{asset_id}", who=who)
        case "content":
            answer = await house.ask("GET", f"{ROOT}/{asset_id}/content", who=who)
        case _:
            answer = await house.ask("DELETE", f"{ROOT}/{asset_id}", who=who)
    if not answer.body.startswith(b'{"id"'):
        return without_id(answer)
    body = answer.json
    if body["id"] not in made:
        made.append(body["id"])
    return answer.status, {**body, "id": made.index(body["id"]), "url": ""}


# ------------------------------------------------------------------------------------------------- what failures leave


async def test_bytes_that_were_not_expected_are_refused_and_gone(house: House):
    for wrong in (f"blake3:{'0' * 64}", "blake3:xyz", "sha256:00", "é"):
        answer = await house.upload(expected_hash=wrong)
        assert (answer.status, answer.json["error"]["code"]) == (409, "hash_mismatch")
        assert await house.nothing_left()
    assert (await house.ask("HEAD", f"{ROOT}/by-hash/{HASH}")).status == 404
    assert (await house.upload(expected_hash=HASH.upper())).status == 201


async def test_bytes_that_were_there_survive_a_refusal_of_the_same_bytes(house: House):
    made = await house.upload()
    assert (await house.upload(expected_hash=f"blake3:{'0' * 64}")).status == 409
    assert (await house.ask("GET", f"{ROOT}/{made.json['id']}/content")).body == PNG


class Exchange:
    """A request whose body comes piece by piece, as a test says; ``None`` among the pieces: the client leaves."""

    def __init__(self, house: House, pieces: Iterator[bytes | None], **headers: str) -> None:
        spelled = {name.replace("_", "-"): value for name, value in (MULTIPART | headers).items()}
        self.scope = scope_of("http", ROOT, {"authorization": f"Bearer {house.keys['ann']}", **spelled}, "POST")
        self.house = house
        self.pieces = pieces
        self.status: int | None = None
        self.body = b""

    async def receive(self) -> dict[str, Any]:
        piece = next(self.pieces, b"")
        if piece is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": piece != b""}

    async def send(self, message: dict[str, Any]) -> None:
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")

    async def run(self) -> None:
        await self.house.app(self.scope, self.receive, self.send)


@pytest.mark.parametrize("cut_at", [0, 1, 100, 260, 400, 500])
async def test_an_upload_that_is_cut_off_leaves_nothing(house: House, cut_at: int):
    whole = upload_body()
    assert cut_at < len(whole)
    exchange = Exchange(house, iter([whole[:cut_at] or b"-", None]))
    await exchange.run()
    assert exchange.status is None
    assert await house.nothing_left()


async def test_an_upload_whose_task_is_canceled_in_the_middle_leaves_nothing(house: House):
    whole = upload_body()
    reached, never = asyncio.Event(), asyncio.Event()
    exchange = Exchange(house, iter([]))

    async def receive() -> dict[str, Any]:
        if not reached.is_set():
            reached.set()
            return {"type": "http.request", "body": whole[:400], "more_body": True}
        await never.wait()
        raise AssertionError

    exchange.receive = receive  # type: ignore[method-assign]
    task = asyncio.create_task(exchange.run())
    await reached.wait()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await house.nothing_left()


async def test_uploads_of_the_same_bytes_at_once_are_one_asset_and_one_file(house: House):
    answers = await asyncio.gather(*(house.upload() for _ in range(8)))
    assert {answer.json["id"] for answer in answers} == {answers[0].json["id"]}
    assert sorted(answer.status for answer in answers) == [200] * 7 + [201]
    assert house.files() == [HASH.removeprefix("blake3:")]


async def test_a_refused_twin_takes_nothing_from_the_upload_beside_it(house: House):
    good, bad = await asyncio.gather(house.upload(), house.upload(expected_hash="blake3:no"))
    assert (good.status, bad.status) == (201, 409)
    assert (await house.ask("GET", f"{ROOT}/{good.json['id']}/content")).body == PNG


# --------------------------------------------------------------------------------------------------- memory, by counting


async def test_an_upload_of_any_size_holds_one_batch_and_a_download_one_chunk(house: House, monkeypatch: Any):
    """Counted at each piece: what has come and was not yet given to the disk, and what was read and not yet sent."""
    piece, number = bytes(64 * 1024), 400
    come = written = held = 0
    head, tail = upload_body(b"").split(b"\r\n\r\n\r\n--limit--", 1)[0] + b"\r\n\r\n", b"\r\n--limit--\r\n"
    from gateway.blobs import parts

    real = parts.Part.write

    def write(self: Any, chunks: list[bytes]) -> None:
        nonlocal written
        written += sum(map(len, chunks))
        real(self, chunks)

    monkeypatch.setattr(parts.Part, "write", write)

    def pieces() -> Iterator[bytes]:
        nonlocal come, held
        yield head
        for _ in range(number):
            come += len(piece)
            yield piece
            held = max(held, come - written)
        yield tail

    exchange = Exchange(house, pieces())
    await exchange.run()
    made = json.loads(exchange.body)
    assert (exchange.status, made["size_bytes"]) == (201, number * len(piece))
    # A batch is 512 KiB: that much gathers before a thread is asked, and one piece is on its way.
    assert held <= 512 * 1024 + len(piece)

    read = sent = ahead = 0
    stream = house.blobs.stream

    async def counted(*which: Any) -> AsyncIterator[bytes]:
        nonlocal read
        async for chunk in stream(*which):
            read += len(chunk)
            yield chunk

    async def send(message: dict[str, Any]) -> None:
        nonlocal sent, ahead
        ahead = max(ahead, read - sent)
        sent += len(message.get("body", b""))

    house.service.blobs = SimpleNamespace(stream=counted, exists=house.blobs.exists, link=house.blobs.link)
    scope = scope_of("http", f"{ROOT}/{made['id']}/content", {"authorization": f"Bearer {house.keys['ann']}"})
    gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    await house.app(scope, receive, send)
    assert sent == read == number * len(piece)
    assert ahead <= 512 * 1024


# ----------------------------------------------------------------------------------------------------- idempotency keys


async def test_a_key_is_good_for_one_upload_whatever_is_sent_with_it_again(house: House):
    key = {"idempotency_key": "7f3d2c1b-9a8e-4d6f-b012-3c4d5e6f7a8b", **MULTIPART}
    first = await house.ask("POST", ROOT, upload_body(), **key)
    assert first.status == 201
    for body, seconds in ((upload_body(), 0), (upload_body(b"other"), 0), (upload_body(), DAY - 1)):
        house.clock.advance(seconds)
        again = await house.ask("POST", ROOT, body, **key)
        assert (again.status, again.json["error"]["code"]) == (422, "idempotency_key_reuse")
        assert "idempotent-replayed" not in again.headers
    assert (await house.ask("POST", ROOT, upload_body(), who="bob", **key)).status == 201
    house.clock.advance(2)
    assert (await house.ask("POST", ROOT, upload_body(b"other"), **key)).status == 201


async def test_a_key_is_free_again_after_a_refusal_and_after_a_client_that_left(house: House):
    key = {"idempotency_key": "k", **MULTIPART}
    assert (await house.ask("POST", ROOT, upload_body(expected_hash="x"), **key)).status == 409
    assert (await house.ask("POST", ROOT, upload_body(file_path="../x"), **key)).status == 422
    gone = Exchange(house, iter([upload_body()[:300], None]), idempotency_key="k")
    await gone.run()
    assert (await house.ask("POST", ROOT, upload_body(), **key)).status == 201


async def test_of_uploads_at_once_with_one_key_one_is_done(house: House):
    key = {"idempotency_key": "k", **MULTIPART}
    answers = await asyncio.gather(
        *(house.ask("POST", ROOT, upload_body(f"file {number}".encode()), **key) for number in range(6))
    )
    assert sorted(answer.status for answer in answers) == [201] + [422] * 5
    assert len(house.files()) == 1
    assert await house.rows() == 2


# ------------------------------------------------------------------------------------------------------- any bytes at all

PIECES = st.sampled_from(
    [
        f"--{BOUNDARY}\r\n".encode(),
        f"--{BOUNDARY}--\r\n".encode(),
        b'Content-Disposition: form-data; name="file"; filename="x"\r\n\r\n',
        b'Content-Disposition: form-data; name="tags"\r\n\r\n',
        b'Content-Disposition: form-data; name="expires_in"\r\n\r\n',
        b"\r\n",
        b"9" * 20,
        PNG[:20],
    ]
)


@given(body=st.lists(PIECES | st.binary(max_size=40), max_size=12).map(b"".join))
@example(body=upload_body(file_path="\u2028"))
@example(body=upload_body(expires_in="²"))
@example(body=upload_body(content_type="a/b; c=" + '"' * 50))
@settings(max_examples=50)
def test_no_upload_is_answered_with_5xx_and_a_refused_one_leaves_nothing(tmp_path_factory, body):
    async def run() -> None:
        house = await open_house(tmp_path_factory.mktemp("fuzz"))
        try:
            answer = await house.ask("POST", ROOT, body, **MULTIPART)
            assert answer.status in {201, 422}, answer
            assert answer.status == 201 or await house.nothing_left()
        finally:
            await house.close()

    asyncio.run(run())


@given(
    body=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["hash", "file_path", "tags", "expires_in", "x"]), inner, max_size=4)
        ),
        max_leaves=8,
    )
)
@settings(max_examples=50)
def test_no_from_hash_is_answered_with_5xx(tmp_path_factory, body):
    async def run() -> None:
        house = await open_house(tmp_path_factory.mktemp("fuzz"))
        try:
            answer = await house.ask("POST", f"{ROOT}/from-hash", json.dumps(body).encode())
            assert answer.status in {404, 422}, answer
        finally:
            await house.close()

    asyncio.run(run())


# --------------------------------------------------------------------------------------------------------------- open mode


async def test_in_open_mode_a_key_of_somebody_elses_is_ignored(tmp_path: Any):
    house = await open_house(tmp_path, auth="open")
    try:
        for shown in ("Bearer comfyui-123", "Bearer ", "Basic eA==", "Bearer a b"):
            answer = await ask(house.app, "POST", ROOT, upload_body(), authorization=shown, **MULTIPART)
            assert answer.status in {200, 201}
            assert (await house.store.assets.get(answer.json["id"], "local", now=NOW)) is not None
        foreign = await ask(house.app, "GET", f"{ROOT}/{answer.json['id']}", origin="https://evil.example")
        assert foreign.status == 403
    finally:
        await house.close()


async def test_a_file_whose_bytes_are_gone_is_not_there(house: House):
    made = await house.upload()
    assert await house.blobs.delete(Blob(made.json["hash"].removeprefix("blake3:"), 0).hash, untouched_since=1e12)
    answer = await house.ask("GET", f"{ROOT}/{made.json['id']}/content")
    assert (answer.status, answer.json["error"]["code"]) == (404, "not_found")


async def test_the_settings_limit_the_whole_body(tmp_path: Any):
    house = await open_house(tmp_path, max_upload=1000)
    try:
        assert (await house.upload(b"x" * 500)).status == 201
        for headers in (MULTIPART, {**MULTIPART, "content_length": "5"}):
            exchange = Exchange(house, iter([upload_body(b"y" * 500)[:-20], b"y" * 600, b""]), **headers)
            await exchange.run()
            assert exchange.status == 422
            assert json.loads(exchange.body)["error"]["code"] == "payload_too_large"
        assert len(house.files()) == 1
    finally:
        await house.close()
