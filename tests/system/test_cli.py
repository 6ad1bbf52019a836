"""The operator's commands as they are typed, against a whole gateway and against the directory it leaves."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
import tarfile
from http import HTTPStatus
from pathlib import Path

import pytest
from blake3 import blake3

from gateway import logs
from gateway.cli import main
from tests.tools.faceswap_client import ended, submit
from tests.tools.gateway_process import GatewayProcess, free_port

pytestmark = pytest.mark.system

COMMAND_SECONDS = 60
TLS = Path(__file__).resolve().parents[1] / "unit" / "blobs" / "tls"
NO_ID = "01a20000-0000-7000-8000-000000000000"


def run(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command in a folder, with nobody's settings but those given."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    command = str(Path(sys.executable).parent / "comfygate")
    return subprocess.run(
        [command, *words],
        cwd=folder,
        env=own | {f"GATEWAY_{name}": value for name, value in variables.items()},
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )


async def said(gateway: GatewayProcess, *words: str, status: int = 0) -> str:
    """What a command says on the gateway's machine: it finds the gateway by the data directory. No traceback, ever."""
    done = await asyncio.to_thread(run, gateway.folder, *words)
    assert done.returncode == status, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout if status == 0 else done.stderr


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    # In keys mode, so that every command has to find the token too.
    with GatewayProcess(tmp_path_factory.mktemp("cli"), {"AUTH": "keys"}) as process:
        yield process


async def finished(gateway: GatewayProcess, material, variant: int) -> tuple[str, str]:
    """A job that is done: its id and where its result is."""
    async with gateway.client(headers=gateway.bearer) as client:
        job_id = await submit(client, target_image=material.still, image=material.face(variant))
        done = await ended(client, job_id)
    assert done["status"] == "SUCCESS"
    return job_id, done["result"]


async def test_status_names_upstreams_and_jobs(gateway):
    lines = (await said(gateway, "status")).splitlines()
    assert lines[0] == f"healthy at {gateway.url} (preview)"
    assert any(line.startswith("upstream embedded-1: ") for line in lines)
    without_token = await asyncio.to_thread(run, gateway.folder.parent, "status", "--url", gateway.url)
    assert without_token.returncode == 0
    assert "--token" in without_token.stdout


@pytest.mark.long
async def test_job_is_canceled_once_and_never_purged_before_it_ended(gateway, material):
    async with gateway.client(headers=gateway.bearer) as client:
        # The worker is busy with the first ones for longer than two commands take.
        ahead = [await submit(client, video=material.long, image=material.face(710 + number)) for number in range(7)]
        job_id = await submit(client, video=material.long, image=material.face(700))
        assert "cancel it first" in await said(gateway, "purge", "--job", job_id, status=1)
        assert "have not ended" in await said(gateway, "purge", "--owner", "local", status=1)
        assert await said(gateway, "cancel", job_id) == f"Canceled {job_id}\n"
        assert (await client.get(f"/-/jobs/{job_id}")).json()["state"] == "canceled"
        for other in ahead:
            await client.delete(f"/-/jobs/{other}")
            await ended(client, other)
    assert "has ended" in await said(gateway, "cancel", job_id, status=1)
    assert "no such job" in (await said(gateway, "cancel", NO_ID, status=1)).lower()
    assert "nothing here" in await said(gateway, "cancel", "../health", status=1)


async def test_purge_through_the_gateway_deletes_rows_and_bytes_of_that_job_only(gateway, material):
    kept_id, kept = await finished(gateway, material, 701)
    before = gateway.leftovers()
    job_id, link = await finished(gateway, material, 702)
    assert gateway.leftovers() != before
    assert "jobs 1" in await said(gateway, "purge", "--job", job_id)
    assert gateway.leftovers() == before
    async with gateway.client(headers=gateway.bearer) as client:
        assert (await client.get(f"/status/{job_id}")).status_code == HTTPStatus.NOT_FOUND
        assert (await client.get(link)).status_code == HTTPStatus.NOT_FOUND
        assert (await client.get(kept)).status_code == HTTPStatus.OK
        assert (await client.get(f"/status/{kept_id}")).json()["status"] == "SUCCESS"


@pytest.mark.long
async def test_consent_that_was_given_with_a_swap_outlives_its_purge(gateway, material):
    words = ("submit", str(material.still), str(material.face(703)), "--consent", "-o", "swapped.png")
    assert "Saved" in await said(gateway, *words)
    (record,) = map(json.loads, (await said(gateway, "consent", "export")).splitlines())
    await said(gateway, "purge", "--job", record["job"])
    assert json.loads(await said(gateway, "consent", "show", record["job"])) == record
    face, result = material.face(703).read_bytes(), (gateway.folder / "swapped.png").read_bytes()
    assert record["inputs"]["face"] == f"blake3:{blake3(face).hexdigest()}"
    assert (record["state"], record["outputs"]) == ("succeeded", [f"blake3:{blake3(result).hexdigest()}"])
    assert "Records of consent: 1." in await said(gateway, "purge", "--job", record["job"], "--consents")
    assert await said(gateway, "consent", "export") == ""


def unpack(backup: Path, into: Path) -> None:
    into.mkdir(parents=True)
    with tarfile.open(backup) as tar:
        tar.extractall(into, filter="data")


@pytest.mark.long
async def test_backup_of_a_serving_gateway_is_a_gateway_when_unpacked(gateway, material, tmp_path):
    job_id, link = await finished(gateway, material, 703)
    file = tmp_path / "saved.tar"
    assert "Saved" in await said(gateway, "backup", str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "there already" in await said(gateway, "backup", str(file), status=1)
    async with gateway.client() as client:
        original = (await client.get(link)).content
    with tarfile.open(file) as tar:
        names = tar.getnames()
    assert names[0] == "gateway.db"
    assert [name for name in names if "token" in name or "lock" in name] == []
    assert list((gateway.data_dir / "scratch").iterdir()) == []
    restored = GatewayProcess(tmp_path / "restored", {"AUTH": "keys"})
    await asyncio.to_thread(unpack, file, restored.data_dir)
    try:
        await asyncio.to_thread(restored.start, wait_for_workers=False)
        async with restored.client(headers=restored.bearer) as client:
            told = (await client.get(f"/status/{job_id}")).json()
            assert (told["status"], told["result"]) == ("SUCCESS", link)
            assert (await client.get(link)).content == original
            assert restored.bearer != gateway.bearer
    finally:
        await asyncio.to_thread(restored.end)


@pytest.mark.long
async def test_backup_and_purge_open_the_directory_when_no_gateway_holds_it(material, tmp_path):
    stopped = GatewayProcess(tmp_path / "stopped")
    try:
        await asyncio.to_thread(stopped.start)
        async with stopped.client() as client:
            job_id = await submit(client, target_image=material.still, image=material.face(704))
            assert (await ended(client, job_id))["status"] == "SUCCESS"
        await asyncio.to_thread(stopped.kill)  # its log is not folded in, its address is still there
        assert (stopped.data_dir / "address").exists()
        assert "Saved" in await said(stopped, "backup", "saved.tar")
        assert "no such job" in (await said(stopped, "purge", "--job", NO_ID, status=1)).lower()
        assert "jobs 1, files 3" in await said(stopped, "purge", "--owner", "local")
        assert "belongs to the owner 'ann'" in await said(stopped, "purge", "--owner", "ann")
        assert stopped.files() == set()
        assert stopped.rows("SELECT count(*) FROM jobs") == [(0,)]
        with tarfile.open(stopped.folder / "saved.tar") as tar:
            assert len([member for member in tar if member.isfile()]) == 4
    finally:
        await asyncio.to_thread(stopped.end)


async def test_doctor_finds_a_serving_gateway_well(gateway):
    done = await asyncio.to_thread(run, gateway.folder, "doctor", PORT=str(gateway.port), AUTH="keys")
    assert done.returncode == 0, done.stdout
    assert f"the gateway at {gateway.url} holds" in done.stdout
    assert "this data directory's gateway listens on" in done.stdout


@pytest.mark.long
async def test_gateway_with_a_certificate_is_found_by_its_directory(tmp_path):
    settings = {"TLS_CERT": str(TLS / "server.pem"), "TLS_KEY": str(TLS / "server.key")}
    process = GatewayProcess(tmp_path / "tls", settings)
    try:
        await asyncio.to_thread(process.start, wait_for_workers=False)
        url = process.url.replace("http:", "https:")
        lines = (await asyncio.to_thread(run, process.folder, "status")).stdout.splitlines()
        assert f" at {url}" in lines[0]
        assert "Saved" in await said(process, "backup", "saved.tar")
        assert "is not trusted" in await said(process, "status", "--url", url, status=1)
    finally:
        await asyncio.to_thread(process.end)


@pytest.mark.long
async def test_address_is_gone_after_a_stop(tmp_path):
    process = GatewayProcess(tmp_path / "brief")
    try:
        await asyncio.to_thread(process.start, wait_for_workers=False)
        assert (process.data_dir / "address").read_text().strip() == process.url
        assert (await asyncio.to_thread(process.stop))[0] == 0
        assert not (process.data_dir / "address").exists()
    finally:
        await asyncio.to_thread(process.end)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("status", "--url", "http://127.0.0.1:{free}"), "No gateway answers at"),
        (("status", "--url", "no url"), "No gateway answers at"),
        (("cancel", NO_ID, "--url", "http://127.0.0.1:{free}"), "No gateway answers at"),
        (("backup", "x.tar", "--url", "http://127.0.0.1:{free}"), "No gateway answers at"),
        (("backup", "x.tar"), "There is no gateway's data in data"),
        (("purge", "--job", NO_ID), "There is no gateway's data in data"),
        (("purge", "--owner", "ann", "--job", NO_ID, "--url", "http://127.0.0.1:{free}"), "Give either"),
        (("purge",), "Give either"),
        (("config", "--port", "70000"), "GATEWAY_PORT"),
    ],
)
def test_each_refusal_is_a_sentence_and_leaves_nothing(tmp_path, monkeypatch, capsys, words, sentence):
    """In this process: that a refusal reaches the shell is shown elsewhere here."""
    for name in [name for name in os.environ if name.startswith("GATEWAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    # What they set up for their logs would stay in this process.
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    with pytest.raises(SystemExit) as ended_with:
        main([word.format(free=free_port()) for word in words])
    assert ended_with.value.code == 1
    told = capsys.readouterr().err
    assert told.startswith("comfygate: ")
    assert sentence in told
    assert "Traceback" not in told
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_ends_the_process_with_1_and_without_a_traceback(tmp_path):
    done = run(tmp_path, "config", "--port", "70000")
    assert done.returncode == 1
    assert done.stderr.startswith("comfygate: ")
    assert "Traceback" not in done.stderr
