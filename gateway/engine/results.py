"""From the files an upstream names to audited results in our own store.

Fetched to a scratch file, cleaned of the upstream's private metadata, measured, held against the target's facts and
against the target itself, and only then committed under a name that carries 128 random bits. Anything that is not as
the template promises fails the job with a sentence; anything that could not be fetched is the attempt's loss.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import TypeAlias

import aiofiles
import aiofiles.os
import anyio
import structlog

from gateway import audit
from gateway.audit import MediaFacts, MediaKind
from gateway.binding import Bound
from gateway.comfy.messages import OutputFile
from gateway.errors import ResultInvalidError
from gateway.interfaces import Blobs, Media, Upstream
from gateway.job import Job, JobInput, JobResult
from gateway.template import OutputSpec

log = structlog.get_logger(__name__)

Files: TypeAlias = Mapping[str, tuple[OutputFile, ...]]
Warnings: TypeAlias = tuple[tuple[str, str], ...]

CHUNK_BYTES = 1024 * 1024
#: Bytes of randomness in a result's name: 128 bits, as much as a UUID would pretend to have.
LINK_BYTES = 16
PREVIEW_CODE = "preview_engine"
PREVIEW_SENTENCE = "Made by the CPU preview engine: a classical blend, not the quality of a swap model."


class Collector:
    """Fetches, audits and stores the results of finished attempts.

    Args:
        scratch: folder for files on their way; on the same disk as the blobs.
        others: whether there is another usable upstream besides the one named.
        max_result_bytes: a result larger than this is refused instead of filling the disk.
    """

    def __init__(
        self,
        blobs: Blobs,
        media: Media,
        scratch: Path,
        *,
        others: Callable[[str], bool],
        max_result_bytes: int,
        new_id: Callable[[], str],
    ) -> None:
        self._blobs = blobs
        self._media = media
        self._scratch = scratch
        self.others = others
        self._max_result_bytes = max_result_bytes
        self._new_id = new_id

    async def collect(
        self, job: Job, bound: Bound, upstream: Upstream, files: Files, lines: Iterable[str]
    ) -> tuple[tuple[JobResult, ...], Warnings]:
        """Results and warnings of a finished attempt.

        Raises:
            JobError: a result is not what it should be.
            FileNotFoundError: the upstream no longer has a file it named.
            ConnectionError: it could not be fetched.
        """
        folder = Path(await anyio.to_thread.run_sync(lambda: mkdtemp(dir=self._scratch, prefix="result-")))
        try:
            results = []
            for node_id, spec in bound.outputs.items():
                file = _the_file(files.get(node_id, ()), spec)
                results.append(await self._one(job, spec, upstream, file, folder, lines))
            return tuple(results), _warnings(bound, upstream)
        finally:
            await anyio.to_thread.run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))

    async def _one(
        self, job: Job, spec: OutputSpec, upstream: Upstream, file: OutputFile, folder: Path, lines: Iterable[str]
    ) -> JobResult:
        fetched, cleaned = folder / "fetched", folder / "cleaned"
        await self._fetch(upstream, file, fetched)
        facts = await self._media.clean(fetched, cleaned)
        await self._audit(job, spec, facts, cleaned, lines)
        return await self._commit(job, facts, cleaned)

    async def _fetch(self, upstream: Upstream, file: OutputFile, into: Path) -> None:
        size = 0
        async with aiofiles.open(into, "wb") as out:
            async for chunk in upstream.fetch(file):
                size += len(chunk)
                if size > self._max_result_bytes:
                    raise ResultInvalidError(f"The result is larger than {self._max_result_bytes} bytes.")
                await out.write(chunk)
        if size == 0:
            raise ResultInvalidError("The worker made an empty file.")

    async def _audit(self, job: Job, spec: OutputSpec, facts: MediaFacts, path: Path, lines: Iterable[str]) -> None:
        target = job.inputs.get(spec.of)
        if target is None:
            return
        findings = audit.wrong_facts(target.facts, facts, spec.keeps)
        if findings:
            raise findings[0].to_error()
        if spec.swaps_faces and not await self._changed(target, facts, path, spec):
            raise audit.unchanged_error(lines)

    async def _changed(self, target: JobInput, facts: MediaFacts, path: Path, spec: OutputSpec) -> bool:
        """Whether the result differs from the target; all frames are looked at before it is said not to."""
        original = self._blobs.path(target.blob)
        crf = spec.crf if facts.kind is MediaKind.VIDEO else None
        quick = await self._media.compare(original, path, crf=crf, all_frames=False)
        if quick.changed or quick.frames_compared >= facts.frames:
            return quick.changed
        return (await self._media.compare(original, path, crf=crf, all_frames=True)).changed

    async def _commit(self, job: Job, facts: MediaFacts, path: Path) -> JobResult:
        size = (await aiofiles.os.stat(path)).st_size
        async with await self._blobs.writer(expected_bytes=size) as writer, aiofiles.open(path, "rb") as source:
            while chunk := await source.read(CHUNK_BYTES):
                await writer.write(chunk)
            blob = await writer.commit()
        link = f"{job.output_name}_{secrets.token_hex(LINK_BYTES)}{facts.suffix}"
        return JobResult(self._new_id(), blob.hash, blob.size_bytes, facts, link)


def _the_file(files: tuple[OutputFile, ...], spec: OutputSpec) -> OutputFile:
    """The one file an output node was to make."""
    finished = [file for file in files if file.type == "output"]
    if len(finished) != 1:
        raise ResultInvalidError(f"Expected one file from {spec.title!r}, got {len(finished)}.")
    if "%" in finished[0].filename:
        raise ResultInvalidError(f"{spec.title!r} made a sequence of files instead of one.")
    return finished[0]


def _warnings(bound: Bound, upstream: Upstream) -> Warnings:
    """What the client should know: one sentence for the preview engine, else one for each model that stood in."""
    if upstream.status().engine == "preview":
        return ((PREVIEW_CODE, PREVIEW_SENTENCE),)
    return tuple(("model_substituted", sentence) for sentence in bound.substitutions)
