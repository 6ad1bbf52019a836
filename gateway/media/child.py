"""The process that decodes: reads one task a line from its standard input, answers one line each, may die of any.

Started by ``process.py`` as ``python -m gateway.media.child <parent's process id>``; says ``ready`` when it listens. It
holds no secret, sees no network need, has a cap on memory, and a cap on processor time that is set anew for each task. It
ends when its input ends, and the kernel ends it with the parent.

A task is ``{"id", "do": probe|compare|survey|sample|clean, "cpu_seconds", …}``, an answer ``{"id", "done": {…}}`` or
``{"id", "refused": code, "message": sentence, "cause": for our log, "" when the sentence says it all}``. Each says
``resident_bytes`` too: what the process holds after it, None where that is not to be known.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import av

from gateway.audit import Keeps, MediaFacts, MediaKind
from gateway.errors import GatewayError, InvalidInputError, TooLargeError, UnsupportedMediaError
from gateway.media import cleaning, comparing, movies, remuxing, sampling, stills, surveying
from gateway.media.limits import Limits
from gateway.sniffing import HEAD_BYTES, MediaType, sniff

#: Address space. Two 160 Mpx pictures (RGB and its source) or two 8192x4608 decoders with their reference frames.
MEMORY_BYTES: Final = 3 * 1024**3
_OPEN_FILES: Final = 64
_PR_SET_PDEATHSIG: Final = 1

_NOT_DECODED: Final = "The file cannot be decoded: it is damaged or cut short."
_NOT_KNOWN: Final = "The file is none of JPEG, PNG, WebP, GIF, MP4, QuickTime or WebM."
_KIND_WORDS: Final = {
    MediaKind.IMAGE: "a JPEG, PNG or WebP picture",
    MediaKind.GIF: "a GIF",
    MediaKind.VIDEO: "an MP4, QuickTime or WebM video",
}

Task = dict[str, Any]


def main() -> None:
    """Answer tasks until the input ends."""
    _confine(parent=int(sys.argv[1]))
    # What a C library prints must not end up between our answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    av.logging.set_level(None)
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        task = json.loads(line)
        _allow_cpu(task["cpu_seconds"])
        told = {"id": task["id"], **answer(task)}
        answers.write(json.dumps(told | {"resident_bytes": _resident_bytes()}) + "\n")
        answers.flush()


def _resident_bytes() -> int | None:
    """Memory this process holds at the moment (proc(5), statm); the peak that getrusage knows never goes down."""
    if sys.platform != "linux":
        return None
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def _confine(*, parent: int) -> None:
    if sys.platform == "linux":  # elsewhere the end of standard input must do
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # It died before the kernel knew that we care.
        sys.exit(0)
    if sys.platform == "linux":  # macOS refuses it; there the deadline alone bounds a child
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def answer(task: Task) -> dict[str, Any]:
    """What to say to a task; every way in which it can go wrong is an answer too."""
    try:
        return {"done": _TASKS[task["do"]](task)}
    except GatewayError as error:
        return {"refused": error.code, "message": error.message, "cause": ""}
    except MemoryError:
        return {
            "refused": TooLargeError.code,
            "message": "Decoding the file takes more memory than is allowed.",
            "cause": "",
        }
    # Decoders raise whatever they like on hostile bytes (OSError, ValueError, SyntaxError, struct.error, KeyError …).
    except Exception as error:  # noqa: BLE001 - the edge of the task: its answer is that the file is no good
        return {"refused": InvalidInputError.code, "message": _NOT_DECODED, "cause": _where(error)}


def _where(error: Exception) -> str:
    """Type and last line of ours: tells a mistake of ours from a broken file; the words may hold a path."""
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "gateway" in frame.filename]
    return (
        f"{type(error).__name__} at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else type(error).__name__
    )


def _allow_cpu(seconds: int) -> None:
    """The kernel counts from the start of the process: allow that much on top of what was used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + seconds, hard))


def _sniff_file(path: Path) -> MediaType:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        raise InvalidInputError("The file is empty.")
    kind = sniff(head)
    if kind is None:
        raise UnsupportedMediaError(_NOT_KNOWN)
    return kind


def _probe(task: Task) -> dict[str, Any]:
    path, limits = Path(task["path"]), Limits.from_json(task["limits"])
    accepted = [MediaKind(kind) for kind in task["accept"]]
    kind = _sniff_file(path)
    if kind.kind not in accepted:
        words = " or ".join(_KIND_WORDS[one] for one in accepted)
        elsewhere = f' Send it as "{task["moving_field"]}".' if task.get("moving_field") else ""
        raise UnsupportedMediaError(f"Expected {words}, got {_KIND_WORDS[kind.kind]}.{elsewhere}")
    probes: dict[MediaKind, Callable[[Path, MediaType, Limits], MediaFacts]] = {
        MediaKind.IMAGE: stills.probe_still,
        MediaKind.GIF: stills.probe_gif,
        MediaKind.VIDEO: movies.probe_movie,
    }
    return probes[kind.kind](path, kind, limits).to_json()


def _measure(task: Task) -> dict[str, Any]:
    path, limits = Path(task["path"]), Limits.from_json(task["limits"])
    kind = _sniff_file(path)
    if kind.kind is MediaKind.VIDEO:
        return movies.probe_movie(path, kind, limits).to_json()
    measure = stills.probe_gif if kind.kind is MediaKind.GIF else stills.result_facts
    return measure(path, kind, limits).to_json()


def _skim(task: Task) -> dict[str, Any]:
    path = Path(task["path"])
    return movies.skim_movie(path, _sniff_file(path), Limits.from_json(task["limits"])).to_json()


def _compare(task: Task) -> dict[str, Any]:
    target, result = Path(task["target"]), Path(task["result"])
    comparison = comparing.compare_files(
        (target, _sniff_file(target)),
        (result, _sniff_file(result)),
        crf=task["crf"],
        all_frames=task["all_frames"],
    )
    return {
        "changed": comparison.changed,
        "largest_movement": comparison.largest_movement,
        "frames_compared": comparison.frames_compared,
    }


def _survey(task: Task) -> dict[str, Any]:
    path = Path(task["path"])
    source = None if task["source"] is None else Path(task["source"])
    found = surveying.survey((path, _sniff_file(path)), None if source is None else (source, _sniff_file(source)))
    return asdict(found)


def _sample(task: Task) -> dict[str, Any]:
    path = Path(task["path"])
    kind = _sniff_file(path)
    count = sampling.sample(path, kind, Path(task["into"]), most=task["most"], longest_side=task["longest_side"])
    return {"count": count}


def _clean(task: Task) -> dict[str, Any]:
    path, out = Path(task["path"]), Path(task["out"])
    limits = Limits.from_json(task["limits"])
    kind = _sniff_file(path)
    like = _like(task)
    if remuxing.is_movie(kind):
        taken = remuxing.remux(path, kind, out, like=like, limits=limits, is_probed=True)
        facts = taken.facts or movies.probe_movie(out, kind, limits)
        if taken.fps is not None:
            # Frames at the same times have the same rate, whatever either header declares.
            facts = replace(facts, fps=taken.fps, duration_seconds=taken.duration_seconds)
        before, after = taken.firsts
        is_changed = (
            before is not None
            and after is not None
            and comparing.first_frames_differ(before, after, crf=task.get("compared_at_crf"))
        )
        return {"facts": facts.to_json(), "given_up": taken.given_up, "is_changed": is_changed}
    given_up = cleaning.clean_picture(path, kind, out, like, _profile(task))
    if kind.kind is MediaKind.GIF:
        return {"facts": stills.probe_gif(out, kind, limits).to_json(), "given_up": given_up, "is_changed": False}
    target = _still_beside(task)
    facts, pixels = stills.result_seen(out, kind, limits, is_shown=target is not None)
    is_changed = target is not None and pixels is not None and comparing.stills_differ(target, pixels)
    return {"facts": facts.to_json(), "given_up": given_up, "is_changed": is_changed}


def _still_beside(task: Task) -> tuple[Path, MediaType] | None:
    """The target, when a still is to be compared with it and it is one."""
    if not task.get("is_compared"):
        return None
    target = Path(task["like"])
    kind = _sniff_file(target)
    return (target, kind) if kind.kind is MediaKind.IMAGE else None


def _like(task: Task) -> remuxing.Like | None:
    """The target, when the task names one that moves."""
    if task["like"] is None:
        return None
    path = Path(task["like"])
    kind = _sniff_file(path)
    if kind.kind is MediaKind.IMAGE:
        return None
    keeps = frozenset(Keeps(keep) for keep in task["keeps"])
    return remuxing.Like(path, kind, keeps, is_compared=bool(task.get("is_compared")))


def _profile(task: Task) -> bytes | None:
    """The colour profile of the target, when the task names one that is a still."""
    if task["like"] is None:
        return None
    path = Path(task["like"])
    kind = _sniff_file(path)
    return stills.colour_profile(path, kind) if kind.kind is MediaKind.IMAGE else None


_TASKS: Final[dict[str, Callable[[Task], dict[str, Any]]]] = {
    "probe": _probe,
    "compare": _compare,
    "survey": _survey,
    "sample": _sample,
    "clean": _clean,
    "measure": _measure,
    "skim": _skim,
}


if __name__ == "__main__":
    main()
