"""An upstream in memory that says what a test tells it to.

A test pushes messages into the prompt that runs (``say``, ``succeed``, ``fail``, ``lose`` …) or sets ``on_run`` to have
every prompt answered by itself. Unrealistic: there is no socket and no HTTP, a message is there the moment it is pushed,
any number of prompts may run side by side, and nothing is ever lost unless a test loses it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path

from gateway.comfy.messages import (
    Failed,
    Interrupted,
    Lost,
    Message,
    NodeOutput,
    Outcome,
    OutputFile,
    PromptStarted,
    Succeeded,
)
from gateway.errors import TooLargeError
from gateway.interfaces import AskInUse, Blob, Capabilities, UpstreamStatus
from gateway.template import Template

MODELS = {
    "swap_model": ("inswapper_128.onnx",),
    "face_restore_model": ("GFPGANv1.4.pth", "none"),
    "detector": ("opencv", "reactor"),
}
MIB = 1024 * 1024


def capabilities_for(
    templates: Iterable[Template],
    *,
    models: Mapping[str, tuple[object, ...]] | None = None,
    max_upload_bytes: int | None = None,
) -> Capabilities:
    """Of an upstream that has every node of these templates; lists of models as named, everything else unlimited."""
    lists = {**MODELS, "boost_model": ("GPEN-BFR-512.onnx",), **(models or {})}
    classes: dict[str, dict[str, tuple[object, ...] | None]] = {}
    for template in templates:
        for node in template.nodes.values():
            classes.setdefault(node.class_type, {}).update({name: lists.get(name) for name in node.inputs})
    return Capabilities(classes, max_upload_bytes, {})


@dataclass
class Prompt:
    """One prompt as this upstream knows it."""

    id: str
    upstream: FakeUpstream
    job_id: str = ""
    attempt: int = 0
    graph: Mapping[str, object] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    messages: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)
    #: Whoever followed it closed the stream.
    closed: bool = False

    def say(self, *messages: Message) -> None:
        for message in messages:
            self.messages.put_nowait(message)

    def start(self) -> None:
        self.say(PromptStarted(self.id))

    def succeed(self, node_id: str, content: bytes = b"image:swapped", filename: str = "out_00001_.png") -> None:
        file = OutputFile(filename, f"gateway/{self.id}", "output", "images")
        self.upstream.files[file] = content
        self.say(Succeeded(self.id, {node_id: NodeOutput(self.id, node_id, (file,))}))

    def show(self, node_id: str, *names: str, contents: Sequence[bytes] = (), kind: str = "images") -> NodeOutput:
        """A node has made files; they are there from now on."""
        files = tuple(OutputFile(name, f"gateway/{self.id}/out", "output", kind) for name in names)
        for number, file in enumerate(files):
            self.upstream.files[file] = (
                contents[number] if contents else f"{self.id}:{node_id}:{file.filename}".encode()
            )
        output = NodeOutput(self.id, node_id, files)
        self.say(output)
        return output

    def end(self, *outputs: NodeOutput) -> None:
        """Succeed with these outputs."""
        self.say(Succeeded(self.id, {output.node_id: output for output in outputs}))

    def tell(self, node_id: str, *texts: str) -> None:
        """Succeed with a report in place of a file."""
        self.say(Succeeded(self.id, {node_id: NodeOutput(self.id, node_id, (), {"text": list(texts)})}))

    def fail(self, code: str = "node_failed", message: str = "A node failed.") -> None:
        self.say(Failed(self.id, code, message, detail="Traceback of /home/comfy"))

    def interrupt(self) -> None:
        self.say(Interrupted(self.id))

    def lose(self, *, by_our_stop: bool = False) -> None:
        self.say(Lost(self.id, "gone", by_our_stop=by_our_stop))


class FakeUpstream:
    """``interfaces.Upstream``; see the module."""

    def __init__(self, name: str, capabilities: Capabilities | None, *, engine: str = "comfyui") -> None:
        self.name = name
        self.folder = "gateway"
        self.known = capabilities
        self.state = UpstreamStatus(name, True, "", "0.3.64", engine, 0, f"http://{name}:8188")
        self.prompts: dict[str, Prompt] = {}
        self.files: dict[OutputFile, bytes] = {}
        self.uploads: list[str] = []
        #: Every file that was asked for.
        self.fetched: list[OutputFile] = []
        self.canceled: list[str] = []
        self.doubts = 0
        self.is_closed = False
        #: What ``stage`` raises, until it is None again.
        self.stage_error: Exception | None = None
        #: What ``fetch`` raises, one per call, before it gives the file; in the middle where bytes come first.
        self.fetch_errors: list[Exception] = []
        #: ``stage`` waits for it.
        self.stage_gate: asyncio.Event | None = None
        #: ``fetch`` waits for it.
        self.fetch_gate: asyncio.Event | None = None
        #: Answers every prompt when it is submitted.
        self.on_run: Callable[[Prompt], None] | None = None
        #: Whether ``cancel`` makes a prompt end as interrupted.
        self.obeys_cancel = True
        #: What it says it can do when it is asked anew, and how often it was.
        self.learns: Capabilities | None = None
        self.relearned = 0
        #: What ``tidy`` raises, until it is None again.
        self.tidy_error: Exception | None = None
        self._staged: set[str] = set()

    # ---------------------------------------------------------------------------------------- what a test looks at

    @property
    def prompt(self) -> Prompt:
        """The newest prompt."""
        return list(self.prompts.values())[-1]

    def set_reachable(self, reachable: bool) -> None:  # noqa: FBT001 - it is what is set
        self.state = replace(self.state, reachable=reachable, reason="" if reachable else "it does not answer")

    def set_class(self, name: str, *inputs: str) -> None:
        """It has a class of this name with these inputs besides those known; without any it has none."""
        assert self.known is not None
        classes = {one: known for one, known in self.known.classes.items() if inputs or one != name}
        if inputs:
            classes[name] = {**classes.get(name, {}), **dict.fromkeys(inputs)}
        self.known = replace(self.known, classes=classes)

    def set_foreign_prompts(self, number: int) -> None:
        self.state = replace(self.state, foreign_prompts=number)

    def set_stale_prompts(self, number: int) -> None:
        self.state = replace(self.state, stale_prompts=number)

    # ---------------------------------------------------------------------------------------------- the interface

    async def run_forever(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        self.is_closed = True

    def status(self) -> UpstreamStatus:
        return self.state

    def capabilities(self) -> Capabilities | None:
        return self.known

    async def relearn(self) -> None:
        self.relearned += 1
        if self.learns is not None:
            self.known = self.learns

    def staged(self) -> frozenset[str]:
        return frozenset(self._staged)

    async def stage(self, blob: Blob, path: Path, suffix: str) -> str:
        if self.stage_gate is not None:
            await self.stage_gate.wait()
        if self.stage_error is not None:
            raise self.stage_error
        limit = self.known.max_upload_bytes if self.known else None
        if limit is not None and blob.size_bytes > limit:
            raise TooLargeError(f"An input is larger than what the upstream takes ({limit} bytes).")
        if blob.hash not in self._staged:
            self.uploads.append(blob.hash)
        self._staged.add(blob.hash)
        return f"gateway/{blob.hash}{suffix}"

    def doubt(self) -> None:
        self.doubts += 1
        self._staged.clear()

    def run(
        self,
        prompt_id: str,
        graph: Mapping[str, object],
        *,
        job_id: str,
        attempt: int,
        secrets: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Message]:
        return self._submit(Prompt(prompt_id, self, job_id, attempt, graph, dict(secrets or {})))

    async def _submit(self, prompt: Prompt) -> AsyncIterator[Message]:
        self.prompts[prompt.id] = prompt
        if self.on_run is not None:
            self.on_run(prompt)
        async with aclosing(self._messages(prompt)) as messages:
            async for message in messages:
                yield message

    async def adopt(self, prompt_id: str) -> AsyncIterator[Message]:
        prompt = self.prompts.setdefault(prompt_id, Prompt(prompt_id, self))
        async with aclosing(self._messages(prompt)) as messages:
            async for message in messages:
                yield message

    @staticmethod
    async def _messages(prompt: Prompt) -> AsyncGenerator[Message, None]:
        try:
            while True:
                message = await prompt.messages.get()
                yield message
                if isinstance(message, Outcome):
                    return
        finally:
            prompt.closed = True

    async def cancel(self, prompt_id: str) -> None:
        self.canceled.append(prompt_id)
        prompt = self.prompts.get(prompt_id)
        if prompt is not None and self.obeys_cancel:
            prompt.interrupt()

    async def tidy(self, in_use: AskInUse) -> int:
        """What lies there: the files that were staged and made, each as ``RemoteUpstream`` takes them."""
        if self.tidy_error is not None:
            raise self.tidy_error
        prompts = {file.subfolder.split("/")[1] for file in self.files}
        used = await in_use(frozenset(self._staged), frozenset(prompts))
        gone = [file for file in self.files if file.subfolder.split("/")[1] not in used]
        for file in gone:
            del self.files[file]
        before = len(self._staged)
        self._staged &= set(used)
        return len(gone) + before - len(self._staged)

    async def fetch(self, file: OutputFile) -> AsyncIterator[bytes]:
        self.fetched.append(file)
        if self.fetch_gate is not None:
            await self.fetch_gate.wait()
        if self.fetch_errors:
            raise self.fetch_errors.pop(0)
        if file not in self.files:
            raise FileNotFoundError("gone")
        yield self.files[file]
