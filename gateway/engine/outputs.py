"""What the files are that a client's own graph makes: their names, kinds and types; the bytes stay as they were made.

A node says under which key it lists a file, the first bytes say whether it is a picture or a video, and the name's suffix
says the rest. Types that a browser would run are none of ours: such a file is told as bytes.

Source: ComfyUI a125cd84 (``nodes.py``, ``comfy_extras/``: keys and names of outputs), VideoHelperSuite 4ee72c0 (``gifs``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import structlog

from gateway import audit
from gateway.audit import MediaFacts, MediaKind
from gateway.binding import Bound
from gateway.comfy.messages import NodeOutput, OutputFile
from gateway.direct import reports_in, without_reports
from gateway.errors import ResultInvalidError
from gateway.faces import MAX_REPORT_BYTES
from gateway.workflow import Workflow

log = structlog.get_logger(__name__)

#: Files of one job. Each is told in the job's row and as an event; frames by the thousand belong into a video.
MAX_FILES: Final = 1000
MAX_NAME_CHARACTERS: Final = 200
#: Texts that one node may say, and how long one may be: they are kept with the task until its end.
MAX_TEXTS: Final = 16
MAX_TEXT_CHARACTERS: Final = 65_536
#: Key of a node's texts.
TEXT: Final = "text"
#: Stands where a file's folder would: no file of the upstream has it.
SAID: Final = "said"

#: Key of a node's output -> what lies under it, where the bytes do not say.
_KINDS: Final = {
    "images": MediaKind.IMAGE,
    "gifs": MediaKind.VIDEO,
    "video": MediaKind.VIDEO,
    "videos": MediaKind.VIDEO,
    "audio": MediaKind.AUDIO,
    "text": MediaKind.TEXT,
    "latents": MediaKind.LATENT,
}
_TYPES: Final = {
    ".txt": "text/plain",
    ".csv": "text/csv",
    ".srt": "application/x-subrip",
    ".json": "application/json",
    ".flac": "audio/flac",
    ".mp3": "audio/mpeg",
    ".wav": "audio/wav",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".m4a": "audio/mp4",
    ".aac": "audio/aac",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".exr": "image/x-exr",
    ".avif": "image/avif",
    ".mkv": "video/x-matroska",
    ".avi": "video/x-msvideo",
    ".glb": "model/gltf-binary",
    ".obj": "model/obj",
    ".stl": "model/stl",
    ".zip": "application/zip",
}
_BYTES: Final = "application/octet-stream"
_BY_TYPE: Final = {"audio": MediaKind.AUDIO, "text": MediaKind.TEXT, "image": MediaKind.IMAGE, "video": MediaKind.VIDEO}
_SUFFIX: Final = re.compile(r"\.[A-Za-z0-9]{1,10}\Z")
#: What ComfyUI and VideoHelperSuite put behind a prefix: a counter of five digits or more, and what follows it.
_COUNTED: Final = re.compile(r"_\d{5,}[^/\\]*\Z")


def source_of(file: OutputFile) -> str:
    """What a file is called on its upstream: no other of the same node is."""
    return f"{file.type}/{file.subfolder}/{file.filename}"


def all_of(output: NodeOutput) -> tuple[OutputFile, ...]:
    """What a node made: its files, and each text that it only said, as a file that needs no fetching."""
    said = output.data.get(TEXT)
    # Half a character, which JSON can say, cannot be stored.
    texts = (
        [text.encode(errors="replace").decode() for text in said if isinstance(text, str)]
        if isinstance(said, list)
        else []
    )
    kept = [text for text in texts[:MAX_TEXTS] if 0 < len(text) <= MAX_TEXT_CHARACTERS]
    if len(kept) < len(texts):
        log.info("texts_left_out", node=output.node_id, texts=len(texts), kept=len(kept))
    named = (OutputFile(f"text-{number}.txt", "", SAID, TEXT, text=text) for number, text in enumerate(kept, 1))
    return (*output.files, *named)


def each_file(files: Mapping[str, tuple[OutputFile, ...]]) -> Iterator[tuple[str, OutputFile]]:
    """Every file with its node, each once. Raises ResultInvalidError when there are too many."""
    seen: set[tuple[str, str]] = set()
    for node_id, named in files.items():
        for file in named:
            key = (node_id, source_of(file))
            if key not in seen:
                seen.add(key)
                yield node_id, file
        if len(seen) > MAX_FILES:
            raise ResultInvalidError(f"The workflow made more than {MAX_FILES} files.")


def name_of(workflow: Workflow, node_id: str, file: OutputFile) -> str:
    """What the client's graph wants a file to be called: its prefix where the upstream wrote ours."""
    _, prefix = workflow.prefixes.get(node_id, ("", ""))
    stem = re.split(r"[/\\]", prefix)[-1]
    counted = _COUNTED.search(file.filename)
    name = f"{stem}{counted.group()}" if stem and counted else file.filename
    plain = "".join(letter for letter in name if letter.isprintable() and letter not in '/\\"')
    return plain[-MAX_NAME_CHARACTERS:]


def unmeasured(file: OutputFile) -> MediaFacts:
    """What is told of a file that is no picture and no video by its bytes."""
    found = _SUFFIX.search(file.filename)
    suffix = found.group().lower() if found else ""
    content_type = _TYPES.get(suffix, _BYTES)
    kind = MediaKind.LATENT if suffix == ".latent" else _BY_TYPE.get(content_type.partition("/")[0])
    return MediaFacts(
        kind or _KINDS.get(file.kind, MediaKind.FILE),
        content_type,
        suffix,
        width=0,
        height=0,
        frames=0,
        fps=None,
        duration_seconds=None,
        has_audio=False,
        video_codec=None,
    )


def reported(
    bound: Bound, outputs: Mapping[str, NodeOutput], lines: Iterable[str] = (), *, is_followed: bool = True
) -> Mapping[str, tuple[OutputFile, ...]]:
    """What an attempt's nodes made: files, and of those that tell a report the text of it, unless that is far too long.

    Args:
        bound: its graph.
        outputs: of its nodes.
        lines: what its upstream logged. Where that missed a face, somebody is to look at the pictures, whatever comes in between.
        is_followed: the log was heard from the beginning.
    """
    if bound.template.workflow is not None:
        return {node_id: all_of(output) for node_id, output in outputs.items()}
    found: dict[str, tuple[OutputFile, ...]] = {}
    for node_id, output in outputs.items():
        spec = bound.outputs.get(node_id)
        texts = output.data.get("text") if spec is not None and spec.kind is MediaKind.FACES else None
        told = [text for text in texts if isinstance(text, str)] if isinstance(texts, list) else []
        short = [text for text in told if len(text) <= MAX_REPORT_BYTES]
        found[node_id] = (
            output.files + reports_in(output) + tuple(OutputFile("", "", "output", "text", text=text) for text in short)
        )
    suspicion = audit.suspicious(lines) if is_followed else "what was logged before it was taken up is not known"
    if suspicion and bound.template.swaps_faces and len(kept := without_reports(found)) < len(found):
        log.warning("upload_not_taken", reason=suspicion)
        return kept
    return found
