"""From the files an upstream names to audited results in our own store.

Fetched to a scratch file, cleaned of the upstream's private metadata, measured, held against the target's facts and
against the target itself, and only then committed under a name that carries 128 random bits. Anything that is not as
the template promises fails the job with a sentence; anything that could not be fetched is the attempt's loss.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import structlog

from gateway import audit
from gateway.audit import Keeps, MediaFacts, MediaKind, Promise
from gateway.binding import Bound
from gateway.comfy.messages import OutputFile
from gateway.engine.arrivals import NOT_AUDITED_CODE, NOT_AUDITED_SENTENCE, Arrivals, Taken
from gateway.engine.detection import read_faces
from gateway.engine.needs import TARGET_ROLE
from gateway.engine.outputs import each_file, name_of, source_of, unmeasured
from gateway.engine.scratch import finished, scratch_folder
from gateway.engine.streams import closing
from gateway.engine.taking_back import take_back
from gateway.errors import ResultInvalidError
from gateway.faces import (
    FACE_MISSING,
    NUMBERING_DIFFERS,
    audited_report,
    missing_faces,
)
from gateway.interfaces import Blob, Blobs, Cleaned, Clock, Media, Store, Upstream
from gateway.job import Job, JobInput, JobResult
from gateway.placed import placed_at
from gateway.quantities import promise_of
from gateway.sniffing import ANY_FILE, HEAD_BYTES, sniff
from gateway.template import OutputSpec
from gateway.workflow import Workflow

log = structlog.get_logger(__name__)

Files: TypeAlias = Mapping[str, tuple[OutputFile, ...]]
Warnings: TypeAlias = tuple[tuple[str, str], ...]

#: Bytes gathered before a thread is asked to write them, so that a small result costs one hop; a result holds no more of
#: them, and one piece, in memory.
CHUNK_BYTES = 1024 * 1024
#: From here on what was fetched is deleted as soon as it is no longer needed, which spares the disk from writing it.
LARGE_BYTES = 16 * CHUNK_BYTES
#: Bytes of randomness in a result's name: 128 bits, as much as a UUID would pretend to have.
LINK_BYTES = 16
#: Waits between two tries to fetch a file: a connection that breaks in the middle, or a worker that is just starting,
#: must not cost the work of an hour.
FETCH_WAIT_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
OPAQUE_CODE = "transparency_not_kept"
OPAQUE_GIF_SENTENCE = "Transparency was not kept: the result is opaque where the GIF was transparent."
OPAQUE_SENTENCE = "Transparency was not kept: where the picture was transparent, the colours hidden there show."
PREVIEW_CODE = "preview_engine"
PREVIEW_SENTENCE = "Made by the CPU preview engine: a classical blend, not the quality of a swap model."


class ResultLostError(Exception):
    """The upstream does not give a file that it named; the sentence is for the log."""


@dataclass(frozen=True, slots=True)
class Maker:
    """An attempt that runs a client's own graph."""

    job: Job
    workflow: Workflow
    upstream: Upstream
    #: Its id.
    attempt_id: str


class Collector:
    """Fetches, audits and stores the results of finished attempts.

    Args:
        scratch: folder for files on their way; on the same disk as the blobs.
        arrivals: knows what upstreams have put elsewhere.
        max_result_bytes: a result larger than this is refused instead of filling the disk.
    """

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        media: Media,
        scratch: Path,
        clock: Clock,
        arrivals: Arrivals,
        *,
        max_result_bytes: int,
        new_id: Callable[[], str],
    ) -> None:
        self._store = store
        self.arrivals = arrivals
        self._blobs = blobs
        self._media = media
        self._scratch = scratch
        self._clock = clock
        self._max_result_bytes = max_result_bytes
        self._new_id = new_id

    async def collect(
        self, job: Job, bound: Bound, upstream: Upstream, prompt_id: str, files: Files, lines: Iterable[str]
    ) -> tuple[tuple[JobResult, ...], Warnings]:
        """Results and warnings of a finished attempt; whoever does not record them drops them.

        What the upstream has put to the job's target itself is taken over there, and not fetched (``arrivals.py``).

        Raises:
            JobError: a result is not what it should be.
            ResultLostError: the upstream no longer has a file it named, or does not give it.
            StorageFullError: there is no room for it here.
        """
        results: list[JobResult] = []
        try:
            async with scratch_folder(self._scratch, "result", is_made=False) as folder:
                for number, (node_id, spec) in enumerate(bound.outputs.items(), 1):
                    taken = await self.arrivals.taken(job, bound, spec, prompt_id, files, number=number)
                    if taken is not None:
                        results.append(self._placed(job, taken))
                        continue
                    file = _the_file(files.get(node_id, ()), spec)
                    results.append(await self._one(job, bound, spec, upstream, file, folder, lines))
            warnings = await self._warnings(job, bound, upstream, lines)
            return tuple(results), (*warnings, *_made_opaque(job, results), *_not_audited(results))
        except BaseException:
            await self.drop(results)
            raise

    async def rest(
        self, maker: Maker, files: Files, kept: Collection[tuple[str | None, str | None]]
    ) -> tuple[JobResult, ...]:
        """All files of a finished attempt that are not kept yet, of every node and kind; raises as ``collect``.

        Args:
            maker: the attempt.
            files: what its nodes named.
            kept: (node id, source) of those that are.
        """
        results: list[JobResult] = []
        try:
            for node_id, file in list(each_file(files)):
                if (node_id, source_of(file)) not in kept:
                    results.append(await self.as_made(maker, node_id, file))
        except BaseException:
            await self.drop(results)
            raise
        return tuple(results)

    async def as_made(self, maker: Maker, node_id: str, file: OutputFile) -> JobResult:
        """One file that a client's own graph made, byte for byte; whoever does not record it drops it.

        It is not empty, not larger than a result may be, and when it begins like a picture or a video it is one. Raises as
        ``collect``.
        """
        made: list[JobResult] = []
        try:
            async with scratch_folder(self._scratch, "result", is_made=False) as folder:
                made.append(await self._made(maker, node_id, file, folder / "fetched"))
        except BaseException:
            # Canceled while the folder went: its bytes are a blob by then.
            await self.drop(made)
            raise
        return made[0]

    async def _made(self, maker: Maker, node_id: str, file: OutputFile, path: Path) -> JobResult:
        if file.text is None:
            await self._fetch(maker.upstream, file, path)
        else:
            await finished(_write_at, path, 0, file.text.encode())
        is_picture = await asyncio.to_thread(_looks_like_a_picture, path)
        measured = await self._media.measure(path) if is_picture else None
        facts = measured or unmeasured(file)
        blob = await self._blobs.adopt(path)
        return JobResult(
            self._new_id(),
            blob.hash,
            blob.size_bytes,
            facts,
            _link(maker.job, facts),
            node_id=node_id,
            name=name_of(maker.workflow, node_id, file),
            attempt_id=maker.attempt_id,
            source=source_of(file),
        )

    def _placed(self, job: Job, taken: Taken) -> JobResult:
        link = _link(job, taken.facts)
        return JobResult(self._new_id(), taken.placed.name, taken.size_bytes, taken.facts, link, place=taken.location)

    async def _warnings(self, job: Job, bound: Bound, upstream: Upstream, lines: Iterable[str]) -> Warnings:
        """What the client should know."""
        stand_in = bound.template.stand_in
        stood_in = ((stand_in.code, stand_in.sentence),) if stand_in else ()
        numbering = await self._numbering(job, bound)
        return (*stood_in, *_substituted(bound, upstream), *bound.warnings, *numbering, *_not_found(bound, lines))

    async def _numbering(self, job: Job, bound: Bound) -> Warnings:
        """Whether the owner had the faces of the target counted by another detector than the swap went by."""
        target = job.inputs.get(TARGET_ROLE)
        if bound.detector is None or target is None or not bound.template.swaps_faces:
            return ()
        newest = await self._store.face_report(job.owner, target.blob)
        report = None if newest is None else await read_faces(self._blobs, newest)
        if report is None or report.detector == bound.detector:
            return ()
        sentence = f"The faces of the target were numbered by {report.detector}, and swapped by {bound.detector}."
        return ((NUMBERING_DIFFERS, sentence),)

    async def drop(self, results: Iterable[JobResult]) -> None:
        """Take back the bytes of results that no job got."""
        await take_back(self._store, self._blobs, [Blob(result.blob, result.size_bytes) for result in results])

    async def _one(
        self,
        job: Job,
        bound: Bound,
        spec: OutputSpec,
        upstream: Upstream,
        file: OutputFile,
        folder: Path,
        lines: Iterable[str],
    ) -> JobResult:
        fetched, cleaned = folder / "fetched", folder / "cleaned"
        if file.text is not None:
            report = audited_report(file.text, job.inputs[spec.of or ""].facts)
            await finished(_write_at, cleaned, 0, report.to_json())
            return await self._commit(job, report.facts(), cleaned)
        fetched_bytes = await self._fetch(upstream, file, fetched)
        async with self._like(job, spec) as like:
            copy = await self._media.clean(
                fetched,
                cleaned,
                like=like,
                keeps=spec.keeps,
                is_compared=spec.swaps_faces,
                crf=spec.crf,
                size_bytes=fetched_bytes + (job.inputs[spec.of or ""].size_bytes if like else 0),
            )
        facts = copy.facts
        if fetched_bytes >= LARGE_BYTES:
            await finished(fetched.unlink)
        if wrong := audit.kept_all_the_same(bound.template.outputs[spec.name].keeps - spec.keeps, facts):
            raise ResultInvalidError(f"The result is not what was asked for: {wrong}.")
        sizes = {role: given.facts for role, given in job.inputs.items()}
        await self._audit(job, promise_of(bound.template, spec, job.parameters, sizes), spec, copy, cleaned, lines)
        return await self._commit(job, facts, cleaned)

    def _like(self, job: Job, spec: OutputSpec) -> AbstractAsyncContextManager[Path | None]:
        """The target whose timing or sound the result is promised to have, or whose colours it has anyway."""
        target = job.inputs.get(spec.of or "")
        if target is None:
            return nullcontext()
        if target.facts.kind is not MediaKind.IMAGE and not spec.keeps & {Keeps.FPS, Keeps.AUDIO}:
            return nullcontext()
        return self._blobs.held(target.blob)

    async def _fetch(self, upstream: Upstream, file: OutputFile, into: Path) -> int:
        """Fetch a file, in several tries; its size in bytes."""
        for wait in FETCH_WAIT_SECONDS:
            try:
                return await self._fetch_once(upstream, file, into)
            except ConnectionError as error:
                log.info("fetch_broke", upstream=upstream.name, reason=str(error))
                await self._clock.sleep(wait)
        try:
            return await self._fetch_once(upstream, file, into)
        except ConnectionError as error:
            raise ResultLostError(str(error)) from error

    async def _fetch_once(self, upstream: Upstream, file: OutputFile, into: Path) -> int:
        size, waiting = 0, bytearray()
        async with closing(_pieces(upstream, file)) as pieces:
            async for piece in pieces:
                size += len(piece)
                if size > self._max_result_bytes:
                    raise ResultInvalidError(f"The result is larger than {self._max_result_bytes} bytes.")
                waiting += piece
                if len(waiting) >= CHUNK_BYTES:
                    await finished(_write_at, into, size - len(waiting), waiting)
                    waiting = bytearray()
        if size == 0:
            raise ResultInvalidError("The worker made an empty file.")
        if waiting:
            await finished(_write_at, into, size - len(waiting), waiting)
        return size

    async def _audit(
        self, job: Job, promise: Promise, spec: OutputSpec, copy: Cleaned, path: Path, lines: Iterable[str]
    ) -> None:
        facts = copy.facts
        if wrong := audit.broken_promise(promise, facts):
            raise ResultInvalidError(f"The result is not what was asked for: {wrong}.")
        target = job.inputs.get(spec.of or "")
        if promise.width is not None:
            await self._look(path, target)
        if target is None:
            return
        if spec.swaps_faces and await self._is_held_back(target, facts, path):
            raise audit.held_back_error()
        findings = audit.wrong_facts(target.facts, facts, spec.keeps)
        if findings:
            raise audit.held_back_error() if audit.says_held_back(lines) else findings[0].to_error()
        if spec.swaps_faces and not copy.is_changed and not await self._changed(target, facts, path, spec):
            raise audit.unchanged_error(lines)

    async def _look(self, path: Path, source: JobInput | None) -> None:
        """Where there is no target of the same size to compare with: whether it shows anything, and the right thing."""
        is_still = source is not None and source.facts.kind is MediaKind.IMAGE
        async with self._blobs.held(source.blob) if source and is_still else nullcontext() as original:
            looks = await self._media.survey(path, source=original)
        if wrong := audit.wrong_look(looks):
            raise ResultInvalidError(f"The result is no good: {wrong}.")

    async def _is_held_back(self, target: JobInput, facts: MediaFacts, path: Path) -> bool:
        """Whether the upstream's own content filter gave this instead of a swap."""
        if not audit.may_be_held_back(target.facts, facts):
            return False
        if facts.kind is not MediaKind.IMAGE:
            return True
        async with self._blobs.held(target.blob) as original:
            found = await self._media.survey(path, source=original)
        return found.is_black and not found.source_is_flat

    async def _changed(self, target: JobInput, facts: MediaFacts, path: Path, spec: OutputSpec) -> bool:
        """Whether the result differs from the target; all frames are looked at before it is said not to."""
        crf = spec.crf if facts.kind is MediaKind.VIDEO else None
        async with self._blobs.held(target.blob) as original:
            quick = await self._media.compare(original, path, crf=crf, all_frames=False)
            if quick.changed or quick.frames_compared >= facts.frames:
                return quick.changed
            return (await self._media.compare(original, path, crf=crf, all_frames=True)).changed

    async def _commit(self, job: Job, facts: MediaFacts, path: Path) -> JobResult:
        blob = await self._blobs.adopt(path)
        return JobResult(self._new_id(), blob.hash, blob.size_bytes, facts, _link(job, facts))


def _link(job: Job, facts: MediaFacts) -> str:
    return f"{job.output_name}_{secrets.token_hex(LINK_BYTES)}{facts.suffix}"


def _looks_like_a_picture(path: Path) -> bool:
    """By its first bytes: a still, a GIF or a video."""
    with path.open("rb") as file:
        return (sniff(file.read(HEAD_BYTES)) or ANY_FILE).kind in audit.PICTURES


def _write_at(path: Path, offset: int, data: bytes | bytearray) -> None:
    """Write a part of a file; the first part makes its folder, and begins the file anew after a try that broke off."""
    if not offset:
        path.parent.mkdir(0o700, exist_ok=True)
    with path.open("r+b" if offset else "wb") as file:
        file.seek(offset)
        file.write(data)


async def _pieces(upstream: Upstream, file: OutputFile) -> AsyncIterator[bytes]:
    """An output's bytes. A file that is gone upstream is told apart here from one that is missing on our own disk."""
    try:
        async with closing(upstream.fetch(file)) as pieces:
            async for piece in pieces:
                yield piece
    except FileNotFoundError as error:
        raise ResultLostError("the file is gone") from error


def _the_file(files: tuple[OutputFile, ...], spec: OutputSpec) -> OutputFile:
    """The one file an output node was to make, or the one report it was to tell."""
    is_report = spec.kind is MediaKind.FACES
    finished = [file for file in files if file.type == "output" and (file.text is not None) == is_report]
    if is_report and len(finished) != 1:
        raise ResultInvalidError(f"Expected one report from {spec.title!r}, got {len(finished)}.")
    if len(finished) != 1:
        raise ResultInvalidError(f"Expected one file from {spec.title!r}, got {len(finished)}.")
    if "%" in finished[0].filename:
        raise ResultInvalidError(f"{spec.title!r} made a sequence of files instead of one.")
    return finished[0]


def _made_opaque(job: Job, results: Iterable[JobResult]) -> Warnings:
    """ComfyUI's loader of pictures hands on colours only: a black drawing on nothing comes out black all over.

    A GIF's holes are put back where the result has its size and frames (``media/gif_holes.py``).
    """
    target = job.inputs.get(TARGET_ROLE)
    pictures = [result.facts for result in results if result.facts.kind in {MediaKind.IMAGE, MediaKind.GIF}]
    kept = target is None or not target.facts.is_see_through or any(facts.is_see_through for facts in pictures)
    if kept or not pictures:
        return ()
    is_moving = pictures[0].kind is MediaKind.GIF
    return ((OPAQUE_CODE, OPAQUE_GIF_SENTENCE if is_moving else OPAQUE_SENTENCE),)


def _not_audited(results: Iterable[JobResult]) -> Warnings:
    """Of videos that nobody here has seen."""
    is_placed = any(placed_at(result.blob) is not None for result in results)
    return ((NOT_AUDITED_CODE, NOT_AUDITED_SENTENCE),) if is_placed else ()


def _substituted(bound: Bound, upstream: Upstream) -> Warnings:
    """How the result was made: by the preview engine, or by models that stood in."""
    if bound.template.swaps_faces and upstream.status().engine == "preview":
        return ((PREVIEW_CODE, PREVIEW_SENTENCE),)
    return tuple(("model_substituted", sentence) for sentence in bound.substitutions)


def _not_found(bound: Bound, lines: Iterable[str]) -> Warnings:
    missing = missing_faces(tuple(lines)) if bound.template.swaps_faces else ()
    return tuple(
        (FACE_MISSING, f"There is no face {number} in the target, so it was not replaced.") for number in missing
    )
