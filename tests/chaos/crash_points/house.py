"""One gateway process on a real data directory: its lock and lease, SQLite with its writer thread, blobs on the disk.

Not real: upstreams, media, and time, which is moved by hand from the moment that it is given.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
from collections.abc import Callable
from contextlib import AsyncExitStack, nullcontext
from dataclasses import replace
from pathlib import Path

from gateway.api.app import create_app
from gateway.api.facade import Submission, SubmittedFile
from gateway.audit import MediaKind
from gateway.blobs.local import LocalBlobs
from gateway.data_dir import clear_scratch, prepare_data_dir, read_admin_token
from gateway.delivering import FIELD as DELIVERY
from gateway.delivering import Answer as UploadAnswer
from gateway.delivering import Upload, Urls
from gateway.holding import DATABASE, take_directory
from gateway.idempotency import Answer, Wanted
from gateway.idempotency import Claim as IdempotencyClaim
from gateway.interfaces import Promise
from gateway.job import Job
from gateway.outbox import FIELD
from gateway.store.queries.leases import Claim
from gateway.store.sql_store import SqlStore
from tests.chaos.model.world import HEADS, World
from tests.engine.conftest import ROOT
from tests.fakes.clock import FrozenClock
from tests.fakes.media import FakeMedia
from tests.fakes.storage import CREATED, Storage
from tests.fakes.upstream import FakeUpstream, Prompt

DAY = 86_400.0
#: Where every job tells its end.
HOOK = "https://hooks.example.net/in"
#: How long a thread's work is waited for.
TURNS, TURN_SECONDS = 5000, 0.002


class Forgetful(FakeUpstream):
    """It was restarted together with the gateway: what an earlier process sent is not known."""

    async def adopt(self, prompt_id: str):  # type: ignore[no-untyped-def]  # an async iterator of messages, as the fake's
        if prompt_id not in self.prompts:
            self.prompts[prompt_id] = Prompt(prompt_id, self)
            self.prompts[prompt_id].lose()
        async for message in super().adopt(prompt_id):
            yield message


class Elsewhere(Storage):
    """Where all results are put: what came lies on the disk, outside the data directory, and survives who put it."""

    def __init__(self, house: House) -> None:
        super().__init__(house.clock, house.blobs)
        self._folder = house.elsewhere

    async def put(self, upload: Upload) -> UploadAnswer:
        data = b"".join([chunk async for chunk in self._blobs.stream(upload.blob)])
        self._folder.mkdir(exist_ok=True)
        (self._folder / upload.url.rpartition("/")[2]).write_bytes(data)
        return CREATED


class House(World):
    """See the module. ``open``, then ask; a process that dies closes nothing."""

    def __init__(self, folder: Path, now: float) -> None:
        super().__init__(folder)
        self.clock = FrozenClock(now)
        self.root = folder
        self.data = folder / "data"
        self.workflows = folder / "workflows"
        #: Unlike those of an earlier process on this directory.
        self.ids = (f"00000000-0000-7000-8000-{os.getpid():06x}{number:06x}" for number in itertools.count(1))
        self.stack = AsyncExitStack()
        #: What its upstreams do with each prompt.
        self.on_run: Callable[[Prompt], None] | None = None

    async def open(self) -> House:
        """As ``gateway/main.py`` does it."""
        await self.store.close()
        if not self.workflows.exists():
            shutil.copytree(ROOT / "workflows" / "faceswap_image", self.workflows / "faceswap_image")
        prepare_data_dir(self.data)
        self.store, _ = await take_directory(self.stack, self.data, self._open_store, self.clock, waits=False)
        clear_scratch(self.data)
        self.admin_token, _ = read_admin_token(self.settings, self.data)
        self.blobs = LocalBlobs(self.data / "blobs", floor_bytes=0)
        await self.blobs.prepare()
        self.media = FakeMedia(self._read)
        self.media.size_of = lambda path: path.stat().st_size
        self.folder = self.data / "scratch"
        self.elsewhere = self.root / "elsewhere"
        self.storage = Elsewhere(self)
        await self._build()
        self._give_all_webhooks()
        await self.dispatcher.prepare()
        for row in await self.store.upstreams():
            if not row.removed:
                self.upstreams[row.name] = self.new_upstream(row.name)
                self.pool.add(self.upstreams[row.name], draining=row.draining)
        self.loop = asyncio.create_task(self.dispatcher.run(), name="dispatcher")
        self.app = create_app(self.service, self.settings, admin_token=self.admin_token)
        return self

    def _give_all_webhooks(self) -> None:
        submit = self.service.submit

        async def with_webhook(wanted: Submission) -> Job:
            url = f"https://store.example.net/{next(self.ids)}"
            wish = await self.deliveries.wish(Urls((url,)), wanted.owner)
            return await submit(replace(wanted, extra={**wanted.extra, FIELD: HOOK, DELIVERY: wish}))

        self.service.submit = with_webhook

    async def deliver(self) -> None:
        """Put results elsewhere until nothing is pending."""
        carrier = asyncio.create_task(self.carrier.run(), name="carrier")
        for _ in range(TURNS):
            if await self.store.deliveries.next_due() is None:
                break
            await asyncio.sleep(TURN_SECONDS)
        await self.carrier.stop()
        await carrier

    async def close(self) -> None:
        await self.stop()
        await self.blobs.close()
        await self.stack.aclose()

    async def _open_store(self, claim: Claim) -> SqlStore:
        return await SqlStore.open(
            self.data / DATABASE, result_retention_seconds=DAY, asset_retention_seconds=DAY, claim=claim
        )

    def _read(self, path: Path) -> bytes:
        data = path.read_bytes()
        for kind, head in HEADS.items():
            data = data.replace(head, f"{kind}:".encode())
        return data

    def new_upstream(self, name: str = "gpu-1", **how: object) -> FakeUpstream:
        made = Forgetful(name, super().new_upstream(name, **how).known)
        made.on_run = self.on_run
        return made

    @property
    def admin(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.admin_token}"}

    async def until_sent(self, job_id: str) -> None:
        """Until the job's prompt is the newest of its upstream. Threads are at work: no longer than they can take."""
        for _ in range(TURNS):
            newest = list(self.upstreams["gpu-1"].prompts.values())[-1:]
            if any(prompt.job_id == job_id and not prompt.closed for prompt in newest):
                return
            await asyncio.sleep(TURN_SECONDS)
        raise AssertionError(f"{job_id} is not sent")

    async def state(self, job_id: str) -> str:
        answer = await self.ask("GET", f"/-/jobs/{job_id}")
        return str(answer.json["state"]) if answer.status == 200 else f"answer {answer.status}"

    async def until_row_ends(self, job_id: str) -> None:
        """Whoever owns it."""
        for _ in range(TURNS):
            job = await self.store.job(job_id)
            if job is not None and job.is_terminal:
                return
            await asyncio.sleep(TURN_SECONDS)
        raise AssertionError(f"{job_id} does not end")

    async def order(self, owner: str, key: str) -> str:
        """A create with an idempotency key, as a dialect does it; the id of its job."""

        async def make(claim: IdempotencyClaim) -> Answer:
            inputs = {}
            for role in ("target", "face"):
                async with await self.blobs.writer() as writer:
                    await writer.write(HEADS["image"] + f"{key} {role}".encode())
                    inputs[role] = SubmittedFile(await writer.commit(), role)
            still = frozenset({MediaKind.IMAGE})
            accepts = {"target": still, "face": still}
            promise = Promise(claim, lambda job: Answer(201, job.id.encode(), job.id))
            wanted = Submission(owner, owner, "order", inputs, accepts, output_name=key, promise=promise)
            job = await self.service.submit(wanted)
            return Answer(201, job.id.encode(), job.id)

        until = self.clock.monotonic() + 1
        wanted = Wanted(owner, key, "the same each time")
        done = await self.service.claims.once(wanted, make, room=nullcontext, until=until)
        return done.answer.job_id

    async def until_state(self, job_id: str, *states: str) -> None:
        for _ in range(TURNS):
            if (found := await self.state(job_id)) in states:
                return
            await asyncio.sleep(TURN_SECONDS)
        raise AssertionError(f"{job_id} is {found}, and should be {' or '.join(states)}")
