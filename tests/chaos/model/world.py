"""The whole application on a store in memory, called as a client calls it; upstreams and time are moved by hand.

Real: the ASGI application with all its layers, the engine, the store's queries. Not real: upstreams, time, media, and
the socket between client and server.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from gateway.api.app import create_app
from gateway.comfy.messages import OutputFile
from gateway.interfaces import Upstream
from tests.engine.conftest import Engine, Inline, shipped_templates
from tests.fakes.upstream import FakeUpstream, Prompt, capabilities_for
from tests.tools.asgi import TOKEN, Answer, Stream, ask, form
from tests.tools.sse_parser import Message

#: First bytes that say what a file is, and what the fake media know it by.
HEADS = {"image": b"\x89PNG\r\n\x1a\n", "video": b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp42"}
FIELDS = {"image": "target_image", "video": "video"}
ADMIN = {"authorization": f"Bearer {TOKEN}"}


class HoldingUpstream(FakeUpstream):
    """One that can hold back the files of each prompt; those of several are given in the order a test says."""

    is_holding = False

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._held: dict[str, asyncio.Event] = {}

    async def fetch(self, file: OutputFile) -> AsyncIterator[bytes]:
        if self.is_holding or file.subfolder in self._held:
            await self._held.setdefault(file.subfolder, asyncio.Event()).wait()
        async for piece in super().fetch(file):
            yield piece

    def give(self, prompt: Prompt) -> None:
        """Let go of what was held back of this prompt."""
        self._held[f"gateway/{prompt.id}"].set()


class World(Engine):
    """Engine and application of one process; ``restart`` makes those of the next on the same store."""

    app: Starlette

    def __init__(self, folder: Path, **settings: object) -> None:
        super().__init__(folder, auth="open", **settings)
        self.media.size_of = lambda path: len(super(World, self)._read(path))
        self.ids = (f"00000000-0000-7000-8000-{number:012x}" for number in itertools.count(1))

    def _read(self, path: Path) -> bytes:
        data: bytes = super()._read(path)
        for kind, head in HEADS.items():
            data = data.replace(head, f"{kind}:".encode())
        return data

    async def start(self, *_: FakeUpstream) -> World:
        await self._build()
        await self.dispatcher.prepare()
        for row in await self.store.upstreams():
            if not row.removed:
                self.pool.add(self.upstreams[row.name], draining=row.draining)
        self.loop = asyncio.create_task(self.dispatcher.run(), name="dispatcher")
        self.app = create_app(self.service, self.settings, admin_token=TOKEN)
        await self.settle()
        return self

    def new_upstream(self, name: str = "gpu-1", **how: Any) -> HoldingUpstream:
        return HoldingUpstream(name, capabilities_for(shipped_templates(), **how))

    async def _make_upstream(self, url: str, name: str | None, check_name: Callable[[str], None]) -> Upstream:
        """As ``UpstreamBuilder.remember`` does it."""
        name = name or url
        check_name(name)
        row = await self.store.upstream(name, url=url, now=self.clock.now())
        if row.removed or row.draining:
            await self.store.set_upstream(name, removed=False, draining=False, now=self.clock.now())
        self.upstreams[name] = upstream = self.new_upstream(name)
        return upstream

    # ------------------------------------------------------------------------------------------------ what clients do

    async def ask(self, method: str, path: str, body: bytes = b"", peer: str = "127.0.0.1", **headers: str) -> Answer:
        return await ask(self.app, method, path, body, peer, **headers)

    async def post(self, kind: str, target: bytes, face: bytes, peer: str, **own: str) -> Answer:
        files = {FIELDS[kind]: HEADS[kind] + target, "image": HEADS["image"] + face}
        body, headers = form({**files, "return_prompt_id_only": "true"})
        return await self.ask("POST", "/face-swap", body, peer, **headers, **own)

    async def told(self, path: str, cursor: int | None = None, *, ended: bool) -> tuple[int, list[Message]]:
        """What a stream says up to now. Where the job has ended, the stream must end too."""
        headers = {} if cursor is None else {"last-event-id": str(cursor)}
        async with Stream(self.app, "GET", path, headers) as stream:
            if ended:
                await stream.whole()
            else:
                for _ in range(30):
                    await asyncio.sleep(0)
                assert not stream.task.done(), "a stream ended before its job"
            return stream.status, stream.parsed.messages

    # ----------------------------------------------------------------------------------------------- what upstreams do

    def open_prompt(self, name: str, job_id: str) -> Prompt:
        return next(prompt for prompt in reversed(self.upstreams[name].prompts.values()) if prompt.job_id == job_id)


def new_loop() -> asyncio.AbstractEventLoop:
    """A loop in which work for threads is done at once."""
    loop = asyncio.new_event_loop()
    loop.set_default_executor(Inline(max_workers=1))
    return loop
