"""https served by the gateway itself: ``GATEWAY_TLS_CERT`` and ``GATEWAY_TLS_KEY`` on a whole gateway."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import websockets

from tests.tools.faceswap_client import parts
from tests.tools.gateway_process import GatewayProcess
from tests.tools.proxies import CERTIFICATES, HOST, named_client, trusting
from tests.tools.sse_client import stream

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    settings = {
        "TLS_CERT": str(CERTIFICATES / "server.pem"),
        "TLS_KEY": str(CERTIFICATES / "server.key"),
        "PUBLIC_URL": f"https://{HOST}",
    }
    process = GatewayProcess(tmp_path_factory.mktemp("tls"), settings)
    try:
        yield process.start(wait_for_workers=False)
    finally:
        process.end()


def client(gateway: GatewayProcess) -> httpx.AsyncClient:
    return named_client(f"https://{HOST}:{gateway.port}", gateway.port, "127.0.0.1")


async def test_https_is_served_and_said_and_nothing_else_is(gateway):
    assert f"comfygate listens on https://127.0.0.1:{gateway.port}" in gateway.output.read_text()
    async with client(gateway) as https:
        assert (await https.get("/health")).json()["status"]
    async with httpx.AsyncClient(trust_env=False) as plain:
        with pytest.raises(httpx.TransportError):
            await plain.get(f"http://127.0.0.1:{gateway.port}/health")


async def test_a_swap_is_streamed_and_downloaded_over_https(gateway, material):
    files = parts(video=material.clip, image=material.face(720))
    async with client(gateway) as https:
        async with stream(https, "POST", "/face-swap", files=files) as live:
            completed = await live.until("completed")
        download = await https.get(completed.json["download_url"])
    assert download.content[4:8] == b"ftyp"


async def test_sockets_open_over_tls(gateway):
    url = f"wss://{HOST}:{gateway.port}/face-swap-ws"
    options = {"host": "127.0.0.1", "port": gateway.port, "ssl": trusting(), "proxy": None}
    async with websockets.connect(url, origin=f"https://{HOST}", **options) as connection:
        await connection.send("{}")
        assert '"validation_error"' in await connection.recv()


@pytest.mark.long
async def test_an_idle_client_that_does_not_answer_the_goodbye_of_tls_does_not_hold_up_a_stop(tmp_path, gateway):
    """This process is blocked while it waits; the grace for what is under way would be 20 s."""
    other = GatewayProcess(tmp_path, gateway.settings, workers=0).start(wait_for_workers=False)
    try:
        async with client(other) as https:
            await https.get("/health")
            status, seconds = other.stop()
        assert (status, "Traceback" in other.log.read_text()) == (0, False)
        assert seconds < 15
    finally:
        other.end()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"GATEWAY_TLS_CERT": "server.pem"}, "GATEWAY_TLS_CERT and GATEWAY_TLS_KEY go together"),
        ({"GATEWAY_TLS_CERT": "server.pem", "GATEWAY_TLS_KEY": "gone.key"}, "GATEWAY_TLS_KEY: gone.key cannot be read"),
        ({"GATEWAY_TLS_CERT": "ca.pem", "GATEWAY_TLS_KEY": "server.key"}, "is not the key of the certificate"),
    ],
)
def test_files_that_cannot_be_used_end_the_start_in_one_sentence(tmp_path: Path, settings, sentence) -> None:
    for name in ("server.pem", "server.key", "ca.pem"):
        shutil.copyfile(CERTIFICATES / name, tmp_path / name)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    told = subprocess.run(
        [str(Path(sys.executable).parent / "comfygate"), "serve", "--port", "0"],
        cwd=tmp_path,
        env=inherited | settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (told.returncode, told.stdout) == (1, "")
    assert sentence in told.stderr
    assert told.stderr.startswith("comfygate: ")
    assert told.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists()
