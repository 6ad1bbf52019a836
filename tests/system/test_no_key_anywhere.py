"""A whole gateway is shown keys, good and bad, in right places and wrong ones, and fails in the middle: none is found again."""

from __future__ import annotations

import base64
import contextlib
from http import HTTPStatus

import httpx
import pytest
import websockets

from gateway.accounts import RANDOM_BYTES, KeyKind, hash_of, key_text
from tests.tools.faceswap_client import ended, parts, submit
from tests.tools.files import contents_below
from tests.tools.gateway_process import GatewayProcess

pytestmark = pytest.mark.system

#: One request ends in a traceback, with whatever that shows.
_PLANTED = """
from gateway.api import ops
plain = ops._limit
def planted(text):
    if text == "77":
        raise RuntimeError("planted")
    return plain(text)
ops._limit = planted
"""
#: Digits of a key that lists show, and what is before them.
SHOWN = len("cfg_live_") + 8
UNKNOWN = key_text(KeyKind.LIVE, bytes(range(RANDOM_BYTES)))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    settings = {"AUTH": "keys", "LOG_LEVEL": "debug"}
    with GatewayProcess(tmp_path_factory.mktemp("secret"), settings, first=_PLANTED) as process:
        yield process


def needles(secret: str) -> set[bytes]:
    """What would show that it was written down: its middle, and that in the spelling of subprotocols, at each offset."""
    middle = secret[SHOWN : SHOWN + 16] if secret.startswith("cfg_") else secret[:16]
    spelled = {base64.urlsafe_b64encode(b"\0" * offset + middle.encode())[4:-4] for offset in range(3)}
    whole = base64.urlsafe_b64encode(secret.encode()).rstrip(b"=")
    return {middle.encode(), whole, *spelled}


class Heard:
    """Every answer of a client, whole."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []

    async def __call__(self, answer: httpx.Response) -> None:
        await answer.aread()
        head = b"\n".join(name + b": " + value for name, value in answer.headers.raw)
        self.answers.append(head + b"\n\n" + answer.content)


def places(key: str) -> list[tuple[str, str, dict[str, object]]]:
    """Where a key may be put, right or wrong, other than into what is kept because somebody asked for it."""
    bearer = {"Authorization": f"Bearer {key}"}
    no_id = "01a20000-0000-7000-8000-000000000000"
    return [
        ("GET", "/-/jobs", {"headers": bearer}),
        ("GET", "/-/jobs", {"headers": {"X-API-Key": key}}),
        ("GET", f"/status/{no_id}", {"headers": bearer}),
        ("GET", "/health", {"headers": bearer}),
        ("POST", "/swap_image/", {"headers": bearer}),
        ("POST", "/submit_task", {"headers": bearer, "json": {"task_type": key}}),
        ("GET", "/-/keys", {"headers": bearer}),
        ("GET", "/-/jobs", {"headers": {"Authorization": key}}),
        ("GET", "/-/jobs", {"headers": {"Authorization": f"Basic {key}"}}),
        ("GET", "/-/jobs", {"headers": {"Authorization": f"Bearer {key} {key}"}}),
        ("GET", "/-/jobs", {"headers": bearer | {"X-API-Key": key}}),
        ("GET", "/-/jobs", {"headers": {"Cookie": f"key={key}"}}),
        ("GET", "/-/jobs", {"headers": {"X-Request-ID": key}}),
        ("GET", "/-/jobs", {"headers": bearer | {"X-Request-ID": key, "User-Agent": key, "Referer": key}}),
        ("GET", f"/-/jobs?key={key}", {}),
        ("GET", f"/-/jobs?before={key}", {"headers": bearer}),
        ("GET", f"/events/{no_id}?ticket={key}", {}),
        ("GET", f"/status/{key}", {"headers": bearer}),
        ("GET", f"/{key}", {}),
        ("GET", f"/download/{key}", {}),
        ("GET", f"/-/ui/{key}", {}),
        ("POST", "/-/tickets", {"headers": bearer, "json": {"path": key}}),
        ("POST", "/face-swap", {"headers": bearer, "data": {"video_url": f"https://{key}@media.example.org/{key}"}}),
        ("GET", "/-/jobs", {"auth": (key, key)}),
    ]


async def knock_on_sockets(gateway: GatewayProcess, key: str) -> None:
    url = f"ws://127.0.0.1:{gateway.port}/face-swap-ws"
    encoded = base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")
    offered = {"subprotocols": ["gateway.v1", f"gateway.bearer.{encoded}"]}
    for address, how in (
        (url, {"additional_headers": {"Authorization": f"Bearer {key}"}}),
        (url, offered),
        (url, offered | {"origin": gateway.url}),
        (f"{url}?ticket={key}", {}),
        (f"{url}?key={key}", {"origin": gateway.url}),
    ):
        with contextlib.suppress(websockets.InvalidStatus, websockets.ConnectionClosed):
            async with websockets.connect(address, proxy=None, **how) as connection:
                await connection.send(f'{{"prompt_id": "{key}"}}')
                await connection.recv()


def written(gateway: GatewayProcess) -> dict[str, bytes]:
    """Everything that lies in its folders, what its workers keep too, but the one file that is there to hold a token."""
    found = {
        str(path.relative_to(gateway.folder)): content
        for path, content in contents_below(gateway.folder).items()
        if path != gateway.data_dir / "admin-token"
    }
    assert {"data/gateway.db", "data/gateway.db-wal", "stderr.txt"} <= found.keys()
    return found


def seen_in(texts: dict[str, bytes], secrets: dict[str, str]) -> list[tuple[str, str]]:
    return [
        (name, place)
        for name, secret in secrets.items()
        for place, text in texts.items()
        if any(needle in text for needle in needles(secret))
    ]


async def made(client: httpx.AsyncClient, path: str, **body: object) -> dict[str, str]:
    """The one answer that tells a key; heard by nobody else."""
    answer = await client.post(path, json=body)
    assert answer.is_success, answer.text
    return answer.json()


async def test_no_key_is_found_in_log_database_files_or_answers(gateway, material):
    heard = Heard()
    async with gateway.client(headers=gateway.bearer) as operator:
        good, admin, revoked, rotated = [
            await made(operator, "/-/keys", name=name, scopes=scopes, credits=100, rate_limit=6000)
            for name, scopes in (("good", ["jobs"]), ("admin", ["admin"]), ("revoked", ["jobs"]), ("rotated", ["jobs"]))
        ]
        newer = await made(operator, f"/-/keys/{rotated['id']}/rotate")
        assert (await operator.delete(f"/-/keys/{revoked['id']}")).status_code == HTTPStatus.OK
    secrets = {
        "good": good["key"], "admin": admin["key"], "revoked": revoked["key"], "rotated": rotated["key"],
        "newer": newer["key"], "unknown": UNKNOWN, "mistyped": UNKNOWN[:-1] + "_",
        "admin token": gateway.bearer["Authorization"].removeprefix("Bearer "),
    }  # fmt: skip

    async with gateway.client(event_hooks={"response": [heard]}) as client:
        # A job is run with a key, so that workers, results and events are there to be looked through.
        owner = {"Authorization": f"Bearer {good['key']}"}
        client.headers.update(owner)
        job_id = await submit(client, target_image=material.still, image=material.face(900))
        assert (await ended(client, job_id))["status"] == "SUCCESS"
        ticket = (await client.post("/-/tickets", json={"path": f"/events/{job_id}"})).json()
        client.headers.pop("Authorization")
        heard.answers.clear()  # the ticket is told in that answer, and nowhere else
        assert (await client.get(ticket["url"])).status_code == HTTPStatus.OK
        secrets["ticket"] = ticket["ticket"]
        for key in secrets.values():
            for method, path, how in places(key):
                if key == ticket["ticket"] and "X-Request-ID" in how.get("headers", {}):
                    continue  # random letters that nobody can tell from an id; and it is used up
                answer = await client.request(method, path, **how)
                assert answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR, answer.text
            await knock_on_sockets(gateway, key)
        failed = await client.get(f"/-/jobs?limit=77&key={good['key']}", headers=owner)
        assert failed.status_code == HTTPStatus.INTERNAL_SERVER_ERROR
        client.headers.update(owner)
        files = parts(video=material.face(900), image=material.face(900))
        assert (await client.post("/face-swap", files=files)).status_code < HTTPStatus.INTERNAL_SERVER_ERROR

    async with gateway.client(headers=gateway.bearer) as operator:
        backup = (await operator.get("/-/backup")).content
    texts = written(gateway) | {f"answer {number}": text for number, text in enumerate(heard.answers)}
    # The start that made the admin token prints it for the operator, once.
    printed = texts.pop("stdout.txt")
    assert "planted" in texts["stderr.txt"].decode(), "there was a traceback"
    assert len(heard.answers) > len(secrets) * len(places(""))
    assert seen_in(texts | {"backup": backup}, secrets) == []
    assert seen_in({"stdout.txt": printed}, secrets) == [("admin token", "stdout.txt")]

    # Or the search would find nothing whatever there is.
    hashes = [row[0] for row in gateway.rows("SELECT hash FROM key_hashes")]
    assert hash_of(good["key"]) in hashes
    assert all(any(hash_of(good["key"]).encode() in text for text in found) for found in (texts.values(), [backup]))
    assert seen_in({"planted": f"... {good['key']} ...".encode()}, secrets) == [("good", "planted")]
    assert seen_in({"planted": base64.urlsafe_b64encode(f".{good['key']}.".encode())}, secrets) == [("good", "planted")]
