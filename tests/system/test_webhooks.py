"""Webhooks of a whole gateway, to a receiver on loopback that the allow-list names, verified as receivers do."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from tests.tools import faceswap_client
from tests.tools.files import contents_below
from tests.tools.gateway_process import GatewayProcess
from tests.tools.receiver import Receiver
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.system

COMMAND_SECONDS = 60
#: Half a second between attempts instead of five and more; so many that none is the last, however slow the machine.
IMPATIENT = (
    "from gateway import outbox; outbox.SCHEDULE_SECONDS = (0.0, *[0.5] * 999); outbox.MAX_ATTEMPTS = 1000; "
    "outbox.REST_SECONDS = outbox.MAX_REST_SECONDS = 0.5"
)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    settings = {"URL_ALLOWLIST": "127.0.0.1"}
    with GatewayProcess(tmp_path_factory.mktemp("webhooks"), settings, first=IMPATIENT) as process:
        yield process


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    command = [str(Path(sys.executable).parent / "comfygate"), "webhooks", *words]
    return subprocess.run(
        command, cwd=folder, env=own, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
    )


async def said(gateway: GatewayProcess, *words: str, status: int = 0) -> str:
    done = await asyncio.to_thread(run, gateway.folder, *words)
    assert done.returncode == status, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout if status == 0 else done.stderr


async def told(receiver: Receiver, number: int) -> list[tuple[dict[str, str], bytes]]:
    await wait_until(lambda: len(receiver.got) >= number, what=f"{number} calls")
    return receiver.got


@pytest.mark.long
async def test_a_swap_is_told_once_to_a_receiver_that_was_down_first(gateway, material):
    secret = (await said(gateway, "secret")).splitlines()[-1]
    with Receiver(script=[503]) as receiver:
        async with gateway.client() as client:
            fields = {"webhook_url": receiver.url}
            job_id = await faceswap_client.submit(client, fields, target_image=material.still, image=material.face())
            calls = await told(receiver, 2)
            status = await faceswap_client.status(client, job_id)
        for headers, body in calls:
            assert Webhook(secret).verify(body, headers) == json.loads(body)
            assert json.loads(body) == {
                "type": "job.succeeded",
                "timestamp": json.loads(body)["timestamp"],
                "data": status,
            }
        assert {headers["webhook-id"] for headers, _ in calls} == {f"msg_{job_id}"}
        await wait_until(lambda: gateway.rows("SELECT 1 FROM webhook_messages WHERE state = 'delivered'"))
        assert f"msg_{job_id}  job.succeeded  delivered  last: 204" in await said(gateway, "list")
        assert "Sending" in await said(gateway, "redeliver", f"msg_{job_id}")
        assert (await told(receiver, 3))[2][0]["webhook-id"] == f"msg_{job_id}"
    assert "of-mine" not in gateway.log.read_text()
    assert "/told" not in gateway.log.read_text()


async def test_a_job_whose_gateway_was_killed_right_after_its_end_is_told(gateway, material):
    receiver = Receiver()  # away
    async with gateway.client() as client:
        fields = {"webhook_url": receiver.url}
        job_id = await faceswap_client.submit(client, fields, target_image=material.still, image=material.face(1))
        await faceswap_client.ended(client, job_id)
    await asyncio.to_thread(gateway.kill)
    with receiver:
        await asyncio.to_thread(gateway.start, wait_for_workers=False)
        ((headers, body), *_) = await told(receiver, 1)
    assert headers["webhook-id"] == f"msg_{job_id}"
    assert json.loads(body)["data"]["status"] == "SUCCESS"


@pytest.mark.long
async def test_a_trial_is_signed_and_says_what_came_of_it(gateway):
    listed = await said(gateway, "list")
    secret = (await said(gateway, "secret")).splitlines()[-1]
    with Receiver(script=[204, 500]) as receiver:
        assert "it answered 204" in await said(gateway, "test", receiver.url)
        ((headers, body),) = receiver.got
        assert Webhook(secret).verify(body, headers)["type"] == "webhook.test"
        newer = await said(gateway, "secret")
        assert "Until" in newer
        assert "it answered 500" in await said(gateway, "test", receiver.url, status=1)
        headers, body = receiver.got[1]
        for valid in (secret, newer.splitlines()[-1]):
            Webhook(valid).verify(body, headers)
    assert "nobody could be reached" in await said(gateway, "test", receiver.url, status=1)
    assert await said(gateway, "list") == listed, "it is no message"
    assert secret not in gateway.log.read_text()
    plain = secret.removeprefix("whsec_").encode()
    files = contents_below(gateway.data_dir)
    assert gateway.data_dir / "webhook-key" in files
    assert gateway.data_dir / "gateway.db-wal" in files
    for path, content in files.items():
        assert not [form for form in (plain, base64.b64decode(plain)) if form in content], path.name


async def test_the_gateway_itself_and_its_upstreams_are_never_called(gateway):
    refused = await said(gateway, "test", f"{gateway.url}/-/jobs", status=1)
    assert "refused" in refused
