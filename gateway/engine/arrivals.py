"""Has upstreams put videos to a delivery target themselves, and takes over what arrived there.

What is found out without the bytes coming here: the size, and the SHA-256 as the storage worked it out of the copy that it
made (where a storage does not do that, the file is read once and hashed); and by the file's index, which is read, all that a
template promises of frames, size, rate and sound. What the pictures show is not looked at, and the job says so in a warning.
Whatever is not right has one consequence: nothing is taken over, and the file is fetched from the upstream, audited, and
delivered from here. Which is also why a storage that does not answer fails no job.

The copy is made while the data directory is ours, under a key that only this attempt has: nothing else is ever put there, so
a storage that finishes it late does no harm. A process that is killed after it finds it again and verifies it anew. Where it
leads to nothing it is deleted as all bytes are, by leave of the store: another process may have gone on with it by then.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import structlog

from gateway import audit
from gateway.audit import MediaFacts
from gateway.binding import Bound
from gateway.comfy.messages import Failed, OutputFile
from gateway.delivering import file_name_of, key_in_target, target_of
from gateway.direct import (
    MAX_BYTES,
    URL_SECONDS,
    Arrival,
    NotSent,
    arrival_key,
    arrival_of,
    is_upload,
    sendable,
    with_uploads,
)
from gateway.engine.outlines import write_outline
from gateway.engine.scratch import scratch_folder
from gateway.errors import GatewayError, ShuttingDownError, StorageUnreachableError
from gateway.interfaces import Blob, Bucket, Capabilities, Media
from gateway.job import Job
from gateway.placed import Placed
from gateway.quantities import promise_of
from gateway.template import OutputSpec

log = structlog.get_logger(__name__)

#: Of what is taken over.
_SUFFIX: Final = ".mp4"
#: Of a job that has such a result.
NOT_AUDITED_CODE = "content_not_audited"
NOT_AUDITED_SENTENCE = "The result went from the worker straight to its target: its size, hash and index were checked, its pictures were not."


@dataclass(frozen=True, slots=True)
class Taken:
    """A video that has arrived and is in its place."""

    placed: Placed
    #: The same for people.
    location: str
    size_bytes: int
    facts: MediaFacts


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a video is, and where it is to be."""

    bucket: Bucket
    arrival: str
    placed: Placed


class _NotTakenError(Exception):
    """Why a file is fetched after all; for the log."""


class Arrivals:
    """What the runner and the collector ask.

    Args:
        buckets: of the targets that upstreams put files to, by name.
        media: reads indexes.
        scratch: folder for files on their way.
        max_result_bytes: a result larger than this is none.
        may_act: comes back while the data directory is ours. Raises BusyError, ShuttingDownError.
        take_back: deletes a file that led to nothing, unless it is some job's. Raises ShuttingDownError.
    """

    def __init__(
        self,
        buckets: Mapping[str, Bucket],
        media: Media,
        scratch: Path,
        *,
        max_result_bytes: int,
        may_act: Callable[[], Awaitable[None]],
        take_back: Callable[[Blob], Awaitable[None]],
    ) -> None:
        self._buckets = buckets
        self._media = media
        self._scratch = scratch
        self._max_bytes = min(max_result_bytes, MAX_BYTES)
        self._may_act = may_act
        self._take_back = take_back
        #: Upstreams whose node failed, instead of saying that it could not send: they are asked no more.
        self._shunned: set[str] = set()

    def has_broken(self, outcome: Failed, upstream: str) -> bool:
        """Whether an attempt failed by what we put into its graph: by that upstream it is not asked again."""
        if outcome.node_id is None or not is_upload(outcome.node_id):
            return False
        self._shunned.add(upstream)
        return True

    async def invited(self, job: Job, bound: Bound, capabilities: Capabilities, prompt_id: str, upstream: str) -> Bound:
        """The graph of an attempt, with URLs for what its upstream may put to the job's target; else as it was."""
        bucket = None if upstream in self._shunned else self._buckets.get(target_of(job) or "")
        outputs = sendable(bound, capabilities) if bucket is not None else ()
        if bucket is None or not outputs:
            return bound
        try:
            urls = {
                spec.node_id: await bucket.presigned_put(arrival_key(prompt_id, spec.node_id), seconds=URL_SECONDS)
                for spec in outputs
            }
        except StorageUnreachableError as error:
            log.warning("upload_not_offered", job=job.id, reason=error.reason)
            return bound
        return with_uploads(bound, urls, capabilities)

    async def taken(
        self,
        job: Job,
        bound: Bound,
        spec: OutputSpec,
        prompt_id: str,
        files: Mapping[str, Sequence[OutputFile]],
        *,
        number: int,
    ) -> Taken | None:
        """The video of an output, where its upstream has put it to the job's target and nothing is wrong with it.

        Args:
            job: whose it is.
            bound: its graph.
            spec: the output.
            prompt_id: of the attempt.
            files: what its nodes made and reported, as ``outputs.reported`` left it.
            number: of the output among the job's, from 1.

        Raises:
            ShuttingDownError: the data directory is not ours any more.
        """
        told = arrival_of(files, spec.node_id)
        target = target_of(job)
        bucket = self._buckets.get(target or "")
        if told is None or target is None or bucket is None:
            return None
        if isinstance(told, NotSent):
            found: Taken | str = told.reason
        else:
            # Of a video by its index; so it is called whatever the upstream calls it.
            key = key_in_target(job.id, f"{prompt_id}/{file_name_of(job, _SUFFIX, number)}")
            place = _Place(bucket, arrival_key(prompt_id, spec.node_id), Placed(target, key, told.sha256))
            found = await self._tried(job, bound, spec, told, place)
        if isinstance(found, str):
            log.warning("upload_not_taken", job=job.id, target=target, reason=found)
            return None
        return found

    async def _tried(self, job: Job, bound: Bound, spec: OutputSpec, told: Arrival, place: _Place) -> Taken | str:
        """The video, or why it is not taken over."""
        try:
            return await self._take(job, bound, spec, told, place)
        except ShuttingDownError:
            raise
        except _NotTakenError as error:
            return str(error)
        except StorageUnreachableError as error:
            return error.reason
        except GatewayError as error:
            return error.message
        except FileNotFoundError:
            return "it is not there"

    async def _take(self, job: Job, bound: Bound, spec: OutputSpec, told: Arrival, place: _Place) -> Taken:
        bucket, key = place.bucket, place.placed.key
        arrived = await bucket.look(place.arrival)
        # Gone from among the arrivals: an earlier run of ours, killed before it could say so, has copied it.
        there = arrived or await bucket.look(key)
        if there is None:
            raise FileNotFoundError(key)
        if there.size_bytes != told.size_bytes or not 0 < there.size_bytes <= self._max_bytes:
            raise _NotTakenError(f"it has {there.size_bytes} bytes, and {told.size_bytes} were told")
        facts = await self._facts(bucket, there.key, there.size_bytes)
        _require_promise(job, bound, spec, facts)
        await self._may_act()
        try:
            if arrived is not None:
                name = place.placed.file_name
                await bucket.copy(
                    place.arrival, key, content_type=facts.content_type, filename=name, sha256=told.sha256
                )
            await _require_hash(bucket, key, told.sha256)
            await self._drop(place)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._undo(Blob(place.placed.name, told.size_bytes))
            raise
        return Taken(place.placed, bucket.location(key), told.size_bytes, facts)

    async def _undo(self, blob: Blob) -> None:
        try:
            await self._take_back(blob)
        except GatewayError as error:  # whoever holds the directory now looks at it anew
            log.info("upload_left", reason=error.code)

    async def _drop(self, place: _Place) -> None:
        """The arrival is not needed any more; one that stays goes with a sweep."""
        try:
            await place.bucket.delete(place.arrival)
        except StorageUnreachableError as error:
            log.info("arrival_left", target=place.placed.target, reason=error.reason)

    async def _facts(self, bucket: Bucket, key: str, size_bytes: int) -> MediaFacts:
        async def read(start: int, end: int) -> bytes:
            async with aclosing(bucket.stream(key, start, end)) as chunks:
                return b"".join([chunk async for chunk in chunks])

        async with scratch_folder(self._scratch, "outline") as folder:
            path = folder / "outline"
            if not await write_outline(read, size_bytes, path):
                raise _NotTakenError("it is no MP4 that was made in one go")
            facts = await self._media.skim(path)
        if facts is None or facts.suffix != _SUFFIX:
            raise _NotTakenError("its index cannot be read, or is none of an MP4")
        return facts


def _require_promise(job: Job, bound: Bound, spec: OutputSpec, facts: MediaFacts) -> None:
    """Raise where the file as it was made is not what the template promises: what is fetched is also mended."""
    sizes = {role: given.facts for role, given in job.inputs.items()}
    released = bound.template.outputs[spec.name].keeps - spec.keeps
    wrong = audit.broken_promise(promise_of(bound.template, spec, job.parameters, sizes), facts)
    wrong = wrong or audit.kept_all_the_same(released, facts)
    target = job.inputs.get(spec.of or "")
    if wrong is None and target is not None:
        findings = audit.wrong_facts(target.facts, facts, spec.keeps)
        wrong = findings[0].sentence if findings else None
    if wrong is not None:
        raise _NotTakenError(wrong)


async def _require_hash(bucket: Bucket, key: str, sha256: str) -> None:
    if (await bucket.sha256_found(key) or await _hashed(bucket, key)) != sha256:
        raise _NotTakenError("its hash is not the one that was told")


async def _hashed(bucket: Bucket, key: str) -> str:
    """By reading it: the storage does not say. A chunk of it is in memory at a time."""
    digest = hashlib.sha256()
    async with aclosing(bucket.stream(key)) as chunks:
        async for chunk in chunks:
            await asyncio.to_thread(digest.update, chunk)
    return digest.hexdigest()
