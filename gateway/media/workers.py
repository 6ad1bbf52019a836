"""The gateway's decoding desk: a small pool of warm child processes, and what their answers mean.

Implements ``gateway.interfaces.Media``. It decides who waits for which child and for how long; it decodes nothing.
Starting a child costs about a third of a second (importing the codecs), so up to two are kept warm.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import structlog

from gateway.audit import KEEPS_ALL, Comparison, Keeps, MediaFacts, MediaKind, Survey
from gateway.errors import (
    GatewayError,
    InternalJobError,
    InvalidInputError,
    QueueFullError,
    ResultInvalidError,
    ShuttingDownError,
    TooLargeError,
    UnsupportedMediaError,
)
from gateway.interfaces import Cleaned
from gateway.media.limits import Limits
from gateway.media.process import Child, ChildLostError

_LOG = structlog.get_logger(__name__)

_CHILDREN: Final = 2
#: Uploads that may wait for a child; at a tenth of a second each, the last waits some seconds.
_MOST_WAITING: Final = 128
#: Memory that decoders leak or fragment goes back with the child that holds it: one that keeps more than this after a
#: task ends, and any after so many tasks. A start costs half a second of processor time, as much as 40 small tasks.
_MOST_RESIDENT_BYTES: Final = 512 * 1024**2
_TASKS_PER_CHILD: Final = 5000
#: Where a child cannot tell what it keeps, the count alone must do.
_TASKS_PER_SILENT_CHILD: Final = 200

_GIB: Final = 1024**3
#: A still of the largest size decodes in about a second; a video is read whole, so its time grows with its bytes.
_PROBE_SECONDS: Final = 10.0
_PROBE_SECONDS_PER_GIB: Final = 50.0
#: Comparing may decode both files whole, about 14 pairs of 4096x2304 a second; mostly the first
#: frame is enough.
_COMPARE_SECONDS: Final = 900.0
_COMPARE_SECONDS_PER_GIB: Final = 300.0
#: A frame is reached from the key frame before it, most often at most 250 earlier. Of noise at 1920x1080, 26 Mbit/s, two
#: threads decoded 64 frames a second beside other work.
_SAMPLE_SECONDS: Final = 20.0
_SAMPLE_SECONDS_PER_FRAME: Final = 8.0
_SAMPLE_SECONDS_PER_GIB: Final = 60.0
_LARGE_BYTES: Final = 16 * 1024**2
#: Cleaning reads the file three times, its target twice and the copy once, and writes it once; a second try is seldom.
#: A GIF of the most pixels that may come in takes 30 s where its holes are put back.
_CLEAN_SECONDS: Final = 120.0
_CLEAN_SECONDS_PER_GIB: Final = 120.0
#: Decoding uses two threads, and a deadline that passes first is the better answer.
_CPU_PER_SECOND: Final = 2

#: Fields for stills, and the field beside each that takes what moves.
_MOVING_FIELDS: Final = {"target_image": "video"}

_REFUSALS: Final = {
    error.code: error for error in (InvalidInputError, TooLargeError, UnsupportedMediaError, ResultInvalidError)
}


class MediaWorkers:
    """Decoding, in processes that may die of it. ``start`` before use, ``close`` at the end; one event loop.

    Args:
        limits: bounds for inputs; results may be larger.
        children: processes at most.
        samples: whether inputs are looked at: one process more, so that a long video holds up nobody's upload.
    """

    def __init__(self, limits: Limits | None = None, *, children: int = _CHILDREN, samples: bool = False) -> None:
        asked = limits or Limits()
        #: As tasks carry them, of inputs and of results.
        self._limits, self._limits_of_results = asked.to_json(), asked.for_results().to_json()
        self._idle: list[Child] = []
        #: all that may still be there: idle, busy and dying.
        self._children: set[Child] = set()
        self._slots = asyncio.Semaphore(children + samples)
        # A comparison may take minutes: one child is always left for uploads, whose clients wait.
        self._long = asyncio.Semaphore(max(1, children - 1))
        self._looks = asyncio.Semaphore(1)
        self._waiting = 0
        self._closed = True

    async def start(self) -> None:
        """Start a first child, so that the first upload does not wait for it; the second comes when it is needed."""
        self._closed = False
        child = await Child.start()
        self._children.add(child)
        self._idle.append(child)

    async def close(self) -> None:
        """Kill all children and wait until they are gone; tasks in them end as lost."""
        self._closed = True
        self._idle.clear()
        for child in self._children:
            child.kill()
        for child in tuple(self._children):
            await child.ended()
        self._children.clear()

    async def probe(
        self, path: Path, *, field: str, accept: frozenset[MediaKind], size_bytes: int | None = None
    ) -> MediaFacts:
        """What an input is, fully checked.

        Args:
            path: the input.
            field: the request field it came in, for error messages.
            accept: what it may be.
            size_bytes: of it; None: the disk is asked.

        Raises:
            InvalidInputError: empty, damaged, cut short, without or with several video streams, too slow to decode.
            UnsupportedMediaError: of no kind in ``accept``, or a codec that is not accepted.
            TooLargeError: the sentence names the limit.
            QueueFullError: too many files wait to be checked.
        """
        size_gib = await _size_gib(path) if size_bytes is None else size_bytes / _GIB
        timeout_seconds = _PROBE_SECONDS + _PROBE_SECONDS_PER_GIB * size_gib
        task = {
            "do": "probe",
            "path": str(path),
            "accept": sorted(accept),
            "limits": self._limits,
            "moving_field": _MOVING_FIELDS.get(field),
        }
        done = await self._work_on_input(task, timeout_seconds, field=field)
        return MediaFacts.from_json(done)

    async def sample(self, path: Path, into: Path, *, field: str, most: int, longest_side: int) -> Sequence[Path]:
        """Pictures of a probed input, written into a folder as PNG: whole, upright, small; see ``media/sampling.py``.

        Args:
            path: the input.
            into: an empty folder.
            field: the request field it came in, for error messages.
            most: frames of what moves, at most.
            longest_side: pixels of a picture's longer side, at most.

        Raises:
            InvalidInputError: what was to be looked at cannot be decoded, or not in time.
            QueueFullError: too many files wait to be decoded.
        """
        size_gib = await _size_gib(path)
        task = {"do": "sample", "path": str(path), "into": str(into), "most": most, "longest_side": longest_side}
        timeout_seconds = _SAMPLE_SECONDS + most * _SAMPLE_SECONDS_PER_FRAME + _SAMPLE_SECONDS_PER_GIB * size_gib
        # From this size on it is a video, of which every packet is read.
        turn = self._looks if size_gib * _GIB > _LARGE_BYTES else nullcontext()
        async with turn:
            done = await self._work_on_input(task, timeout_seconds, field=field)
        return [into / f"{number:04}.png" for number in range(int(done["count"]))]

    async def _work_on_input(self, task: Mapping[str, Any], timeout_seconds: float, *, field: str) -> Mapping[str, Any]:
        """A task on an input: what goes wrong is the file's fault, unless too many wait."""
        if self._waiting >= _MOST_WAITING:
            raise QueueFullError("Too many files wait to be checked; try again soon.", retry_after_seconds=5)
        try:
            answer = await self._ask(task, timeout_seconds)
        except TimeoutError:
            _LOG.warning("media_input_timed_out", task=task["do"], timeout_seconds=round(timeout_seconds, 1))
            raise InvalidInputError(
                f"The file could not be decoded within {timeout_seconds:.0f} s.", field=field
            ) from None
        except ChildLostError:
            self._refuse_when_closed()
            _LOG.warning("media_input_died", task=task["do"])
            raise InvalidInputError("The file cannot be decoded: decoding it failed hard.", field=field) from None
        _raise_refusal(answer, field=field)
        done: Mapping[str, Any] = answer["done"]
        return done

    async def compare(self, target: Path, result: Path, *, crf: int | None, all_frames: bool) -> Comparison:
        """Compare a result with its target.

        Args:
            target: the file the face went into.
            result: what came back.
            crf: of the template's encoder; None for a lossless one.
            all_frames: every frame, else 64 evenly spread ones.

        Raises:
            ResultInvalidError: one of them cannot be decoded.
            InternalJobError: it took too long, or the process died of it.
        """
        size_gib = await _size_gib(target, result)
        task = {"do": "compare", "target": str(target), "result": str(result), "crf": crf, "all_frames": all_frames}
        async with self._long:
            done = await self._work(task, _COMPARE_SECONDS + _COMPARE_SECONDS_PER_GIB * size_gib)
        return Comparison(
            changed=bool(done["changed"]),
            largest_movement=float(done["largest_movement"]),
            frames_compared=int(done["frames_compared"]),
        )

    async def survey(self, path: Path, *, source: Path | None) -> Survey:
        """What a result looks like.

        Args:
            path: the result.
            source: the still that it enlarges, where there is one.

        Raises:
            ResultInvalidError: one of them cannot be decoded.
            InternalJobError: it took too long, or the process died of it.
        """
        paths = (path,) if source is None else (path, source)
        size_gib = await _size_gib(*paths)
        task = {"do": "survey", "path": str(path), "source": None if source is None else str(source)}
        async with self._long:
            done = await self._work(task, _COMPARE_SECONDS + _COMPARE_SECONDS_PER_GIB * size_gib)
        return Survey(bool(done["is_flat"]), done["drift"], bool(done["source_is_flat"]), bool(done["is_black"]))

    async def clean(
        self,
        path: Path,
        out: Path,
        *,
        like: Path | None = None,
        keeps: frozenset[Keeps] = KEEPS_ALL,
        is_compared: bool = False,
        crf: int | None = None,
        size_bytes: int | None = None,
    ) -> Cleaned:
        """Write a copy of a result without the upstream's private metadata, pictures untouched.

        Args:
            path: the result.
            out: where the copy goes.
            like: the target. A video that has as many frames as it gets its timing and its own sound, bit for bit,
                where the container takes it; a GIF gets the delays and the loop of a GIF, a PNG the colour profile of a
                still. Anything else stays as it came. None: as it came.
            keeps: what of it to take: ``FPS`` is the timing, ``AUDIO`` the sound.
            is_compared: lay the first frame beside that of ``like``, as both are at hand; a still is compared whole.
            crf: of the template's encoder; None for a lossless one.
            size_bytes: of the result and of ``like`` together; None: the disk is asked.

        Returns:
            Facts of the copy, decoded as an input is. Nothing is left at ``out`` when it fails.

        Raises:
            ResultInvalidError: it is none of the kinds we know, damaged, or beyond four times the limits of inputs.
            InternalJobError: it took too long, or the process died of it.
        """
        task = {
            "do": "clean",
            "path": str(path),
            "out": str(out),
            "like": None if like is None else str(like),
            "keeps": sorted(keeps),
            "is_compared": is_compared and like is not None,
            "compared_at_crf": crf,
            "limits": self._limits_of_results,
        }
        try:
            read = (path,) if like is None else (path, like)
            size_gib = await _size_gib(*read) if size_bytes is None else size_bytes / _GIB
            done = await self._work(task, _CLEAN_SECONDS + _CLEAN_SECONDS_PER_GIB * size_gib)
        except BaseException:
            # In a thread of its own accord: it runs to its end even if this is being canceled once more.
            await asyncio.shield(asyncio.to_thread(out.unlink, missing_ok=True))
            raise
        if done["given_up"]:
            _LOG.info("media_result_not_matched", reason=done["given_up"])
        return Cleaned(MediaFacts.from_json(done["facts"]), bool(done["is_changed"]))

    async def measure(self, path: Path) -> MediaFacts | None:
        """What a picture or video is that an upstream made and that is passed on as it is.

        Returns:
            Facts, decoded; None where it is more than is measured here, or of a codec that is not decoded here.

        Raises:
            ResultInvalidError: it is damaged or cut short.
            InternalJobError: it took too long, or the process died of it.
        """
        task = {"do": "measure", "path": str(path), "limits": self._limits_of_results}
        answer = await self._checked(task, _CLEAN_SECONDS + _CLEAN_SECONDS_PER_GIB * await _size_gib(path))
        if answer.get("refused") in {UnsupportedMediaError.code, TooLargeError.code}:
            return None
        return MediaFacts.from_json(_done(answer))

    async def skim(self, path: Path) -> MediaFacts | None:
        """What a video is by its index alone; the bytes of its pictures need not be there.

        Returns:
            Facts, of which nothing was decoded; None where the index does not say, or not of a video that is taken.

        Raises:
            InternalJobError: it took too long, or the process died of it.
        """
        task = {"do": "skim", "path": str(path), "limits": self._limits_of_results}
        answer = await self._checked(task, _CLEAN_SECONDS + _CLEAN_SECONDS_PER_GIB * await _size_gib(path))
        return None if "refused" in answer else MediaFacts.from_json(answer["done"])

    async def _work(self, task: Mapping[str, Any], timeout_seconds: float) -> Mapping[str, Any]:
        """A task on a result: what goes wrong is the job's end, never the caller's."""
        return _done(await self._checked(task, timeout_seconds))

    async def _checked(self, task: Mapping[str, Any], timeout_seconds: float) -> dict[str, Any]:
        try:
            return await self._ask(task, timeout_seconds)
        except TimeoutError:
            raise InternalJobError("The result could not be checked in time.") from None
        except ChildLostError:
            self._refuse_when_closed()
            raise InternalJobError("The result could not be checked: decoding it failed hard.") from None

    async def _ask_some_child(self, task: Mapping[str, Any], timeout_seconds: float) -> dict[str, Any]:
        budgeted = {**task, "cpu_seconds": int(_CPU_PER_SECOND * timeout_seconds) + 1}
        async with self._child() as child:
            is_fresh = child.asked == 0
            try:
                return await child.ask(budgeted, timeout_seconds=timeout_seconds)
            except ChildLostError:
                # An earlier file may have hurt it, or the kernel took it for its memory: this file gets a clean try.
                if is_fresh or self._closed:
                    raise
        async with self._child(fresh=True) as child:
            return await child.ask(budgeted, timeout_seconds=timeout_seconds)

    async def _ask(self, task: Mapping[str, Any], timeout_seconds: float) -> dict[str, Any]:
        answer = await self._ask_some_child(task, timeout_seconds)
        if answer.get("cause"):
            _LOG.info("media_not_decoded", task=task["do"], cause=answer["cause"])
        return answer

    @asynccontextmanager
    async def _child(self, *, fresh: bool = False) -> AsyncIterator[Child]:
        """A child for one task, in turn. It goes back to the others only if the task ended with an answer."""
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            self._refuse_when_closed()
            child = await (Child.start() if fresh else self._take())
            self._children.add(child)
            try:
                yield child
            except BaseException:
                # Late, lost or not wanted any more (the client left): whatever it decodes, it shall stop.
                child.kill()
                raise
            finally:
                self._put_back(child)
        finally:
            self._slots.release()

    async def _take(self) -> Child:
        while self._idle:
            child = self._idle.pop()
            if child.is_alive:
                return child
        return await Child.start()

    def _put_back(self, child: Child) -> None:
        if child.is_alive and not self._closed and not _is_worn(child):
            self._idle.append(child)
        else:
            child.kill()
        # The event loop reaps a dead child; ``close`` waits for those it has not yet.
        self._children = {one for one in self._children if not one.is_gone}

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise ShuttingDownError("The gateway is about to stop.")


def _is_worn(child: Child) -> bool:
    """Whether it has earned its rest."""
    if child.resident_bytes is None:
        return child.asked >= _TASKS_PER_SILENT_CHILD
    return child.asked >= _TASKS_PER_CHILD or child.resident_bytes > _MOST_RESIDENT_BYTES


def _done(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a task on a result gave."""
    if "refused" in answer:
        raise ResultInvalidError(f"The result is no good. {answer['message']}")
    done: Mapping[str, Any] = answer["done"]
    return done


async def _size_gib(*paths: Path) -> float:
    return await asyncio.to_thread(lambda: sum(path.stat().st_size for path in paths)) / _GIB


def _raise_refusal(answer: Mapping[str, Any], *, field: str) -> None:
    if "refused" in answer:
        refusal: type[GatewayError] = _REFUSALS[answer["refused"]]
        raise refusal(answer["message"], field=field)
