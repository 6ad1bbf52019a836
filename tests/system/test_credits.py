"""Credits on a whole gateway: granted by command, spent by many clients at once, kept across kill -9."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from http import HTTPStatus

import pytest

from tests.system.test_key_commands import new_key, said
from tests.tools.faceswap_client import parts
from tests.tools.gateway_process import GatewayProcess

pytestmark = pytest.mark.system

LEDGER = "SELECT sum(subscription), sum(monthly), sum(permanent) FROM ledger"
PURSES = "SELECT subscription, monthly, permanent FROM purses"


@pytest.mark.long
async def test_twenty_clients_at_once_spend_ten_credits_on_exactly_ten_jobs(tmp_path, material):
    # No worker: what is submitted waits, so that what is held can be given back.
    process = GatewayProcess(tmp_path / "gateway", {"AUTH": "keys", "UPSTREAMS": "http://127.0.0.1:9"})
    process.folder.mkdir()
    here = process.folder
    try:
        key = await new_key(here, "--name", "ann", "--credits", "3", "--rate", "500", "--concurrency", "50")
        assert "ann has 10 credits: 0 subscription, 7 monthly (7 on each 1st), 3 permanent" in await said(
            here, "credits", "grant", "ann", "7", "--purse", "monthly"
        )
        await asyncio.to_thread(process.start, wait_for_workers=False)
        async with process.client(headers={"X-API-Key": key}) as client:
            files = parts(target_image=material.still, image=material.face())
            fields = {"return_prompt_id_only": "true"}
            answers = await asyncio.gather(*(client.post("/face-swap", files=files, data=fields) for _ in range(20)))
            assert Counter(answer.status_code for answer in answers) == {
                HTTPStatus.OK: 10,
                HTTPStatus.PAYMENT_REQUIRED: 10,
            }
            refused = [answer.json()["code"] for answer in answers if answer.status_code != HTTPStatus.OK]
            assert set(refused) == {"insufficient_credits"}
            assert all(re.fullmatch(r'"minute";r=\d+;t=\d+', answer.headers["ratelimit"]) for answer in answers)
            ids = [answer.json()["prompt_id"] for answer in answers if answer.status_code == HTTPStatus.OK]
            assert len(set(ids)) == 10
            canceled = await client.delete(f"/-/jobs/{ids[0]}")
            assert canceled.json()["state"] == "canceled"

        process.kill()
        await asyncio.to_thread(process.start, wait_for_workers=False)
        shown = await said(here, "credits", "show", "ann")
        assert "ann has 1 credit:" in shown
        assert shown.count(" hold ") == 10
        assert len(re.findall(rf"refund +\+1  {ids[0]}", shown)) == 1
        assert process.rows(LEDGER) == process.rows(PURSES)
        assert "no such user" in await said(here, "credits", "grant", "eve", "1", status=1)
    finally:
        await asyncio.to_thread(process.end)
