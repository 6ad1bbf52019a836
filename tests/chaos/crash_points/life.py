"""A scripted life of a gateway, and what of it was acknowledged to whom.

Each step is noted outside the data directory twice: when it is asked for, and when the answer has come. What was asked
for may have happened or not; what was answered has.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.crash_points.house import DAY, House
from tests.chaos.model.world import FIELDS, HEADS
from tests.tools.asgi import form

#: What the key is given, and the idempotency key of its order.
CREDITS, ORDER = 3, "order-7"


@dataclass
class Notes:
    """What was asked for and what was answered, in a file that outlives the process."""

    path: Path
    asked: set[str] = field(default_factory=set)
    answered: dict[str, Any] = field(default_factory=dict)
    now: float = 0.0

    @classmethod
    def read(cls, path: Path) -> Notes:
        notes = cls(path, now=time.time())
        for line in (path.read_text() if path.exists() else "").splitlines():
            said = json.loads(line)
            notes.now = said["now"]
            if "value" in said:
                notes.answered[said["what"]] = said["value"]
            else:
                notes.asked.add(said["what"])
        return notes

    def write(self, **said: Any) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, (json.dumps(said) + "\n").encode())
        os.close(descriptor)


@dataclass
class Life:
    house: House
    notes: Notes

    @asynccontextmanager
    async def step(self, what: str) -> AsyncIterator[dict[str, Any]]:
        """One step; its answer is put into what it gives."""
        self.notes.write(what=what, now=self.house.clock.now())
        answer: dict[str, Any] = {}
        yield answer
        self.notes.write(what=what, now=self.house.clock.now(), value=answer)

    async def live(self) -> None:
        """From the first start to the last sweep."""
        house = self.house
        async with self.step("open"):
            await house.open()
        for name in ("gpu-1", "gpu-2"):
            await self.change("POST", "/-/upstreams", f"add {name}", {"url": f"http://{name}:8188", "name": name}, 201)
        await self.change("POST", "/-/upstreams/gpu-2/drain", "drain gpu-2", {}, 200)
        first = await self.submit("first")
        await self.finish("first", first)
        second, third = await self.submit("second"), await self.submit("third")
        await house.until_sent(second)
        await self.cancel("third", third, 200)
        house.upstreams["gpu-1"].prompt.start()
        await self.cancel("second", second, 202)
        await house.until_state(second, "canceled")
        await self.change("POST", "/-/purge", "purge first", {"job": first}, 200)
        await self.spend()
        await self.refuse()
        fourth = await self.submit("fourth")
        await house.until_sent(fourth)
        house.upstreams["gpu-1"].prompt.start()
        house.upstreams["gpu-1"].prompt.lose()
        await house.until_state(fourth, "queued")
        house.clock.advance(60)
        await self.finish("fourth", fourth)
        await self.edit_template()
        await self.change("DELETE", "/-/upstreams/gpu-2", "remove gpu-2", None, 204)
        await house.until_sent(await self.submit("fifth"))
        async with self.step("deliver"):
            await house.deliver()
        async with self.step("sweep"):
            house.clock.advance(DAY + 7200)
            await house.keeper.sweep()
            await house.keeper.sweep_strays()

    async def change(self, method: str, path: str, what: str, body: Any, status: int) -> None:
        """What an operator asks for."""
        data = b"" if body is None else json.dumps(body).encode()
        async with self.step(what):
            answer = await self.house.ask(method, path, data, content_type="application/json", **self.house.admin)
            assert answer.status == status, answer.body

    async def submit(self, name: str, **headers: str) -> str:
        async with self.step(f"submit {name}") as said:
            said_so = {"x_consent": "true", **headers}
            answer = await self.house.post("image", name.encode(), b"one face", "127.0.0.1", **said_so)
            assert answer.status == 200, answer.body
            said["job"] = answer.json["prompt_id"]
        return str(said["job"])

    async def spend(self) -> None:
        """A key with credits for three jobs: one is canceled, one succeeds, and one is ordered by an idempotency key."""
        house = self.house
        body = json.dumps({"name": "ann", "credits": CREDITS}).encode()
        async with self.step("key"):
            made = await house.ask("POST", "/-/keys", body, content_type="application/json", **house.admin)
            assert made.status == 201, made.body
        key = {"x_api_key": str(made.json["key"])}
        paid = await self.submit("paid", **key)
        await house.until_sent(paid)
        another = await self.submit("another", **key)
        await self.cancel("another", another, 200, **key)
        await self.finish("paid", paid, **key)
        async with self.step("order") as said:
            said["job"] = await house.order(made.json["id"], ORDER)
        await house.until_sent(said["job"])
        house.finish(house.upstreams["gpu-1"], b"image:result of order")
        await house.until_row_ends(said["job"])

    async def refuse(self) -> None:
        """An upload that leads to nothing: the second file is of no kind that is known."""
        body, headers = form({FIELDS["image"]: HEADS["image"] + b"lonely", "image": b"no picture"})
        answer = await self.house.ask("POST", "/face-swap", body, **headers)
        assert 400 <= answer.status < 500, answer.body

    async def finish(self, name: str, job_id: str, **headers: str) -> None:
        house = self.house
        async with self.step(f"finish {name}") as said:
            await house.until_sent(job_id)
            said["content"] = f"image:result of {name}"
            house.finish(house.upstreams["gpu-1"], said["content"].encode())
            await house.until_row_ends(job_id)
            said["url"] = (await house.ask("GET", f"/-/jobs/{job_id}", **headers)).json["results"][0]["url"]

    async def cancel(self, name: str, job_id: str, status: int, **headers: str) -> None:
        async with self.step(f"cancel {name}"):
            answer = await self.house.ask("DELETE", f"/-/jobs/{job_id}", **headers)
            assert answer.status == status, answer.body

    async def edit_template(self) -> None:
        house = self.house
        toml = house.workflows / "faceswap_image" / "template.toml"
        async with self.step("edit") as said:
            toml.write_text(toml.read_text() + "\n# edited\n")
            await house.catalog.reload()
            said["version"] = house.catalog.get("faceswap_image").version
