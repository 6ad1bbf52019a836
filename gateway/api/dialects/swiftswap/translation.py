"""The translations of the dialect ``swiftswap``; pure.

request -> submission (``submission``), job -> body (``accepted_body``, ``status_body``), error -> body (``error_body``),
state -> its word (``STATE_WORDS``). It has no streams, so no event is ever told.

Source: the published documentation of the SwiftSwap server that clients of this dialect were written for;
``docs/dialects.md`` lists its fields and our deliberate differences.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.api.auth import Caller
from gateway.api.facade import Submission, SubmittedFile
from gateway.api.file_fields import MOVING, STILL, refuse_other_files, submitted_file
from gateway.api.incoming import ReceivedFile
from gateway.audit import MediaKind
from gateway.consent import FIELD as CONSENT
from gateway.consent import by_field
from gateway.errors import GatewayError, InvalidInputError
from gateway.job import Job, JobState

NAME: Final = "swiftswap"
STATE_WORDS: Final[Mapping[JobState, str]] = {
    JobState.QUEUED: "pending",
    JobState.DISPATCHED: "processing",
    JobState.RUNNING: "processing",
    JobState.FINISHING: "processing",
    JobState.SUCCEEDED: "completed",
    JobState.FAILED: "failed",
    JobState.CANCELED: "failed",
}
RUNNING_BODY: Final[Mapping[str, str]] = {"status": "running"}
CANCELED_SENTENCE: Final = "Canceled by request"
CANCELED_CODE: Final = "canceled"

# ------------------------------------------------------------------------------------------------ request -> submission

FACE: Final = "image"
NAME_FIELDS: Final = ("output_name", "output")
#: A wish like "out.jpg" names a file; the result has the extension of what it is.
_EXTENSION: Final = re.compile(r"\.(?:jpe?g|png|webp|bmp|tiff?|gif|mp4|m4v|mov|webm|mkv|avi)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TargetField:
    """Where a path takes its target."""

    name: str
    kinds: frozenset[MediaKind]
    #: For whoever sent what the other path takes.
    hint: str


PICTURE: Final = TargetField("target_image", STILL, "Send what moves to /swap_video/ as 'target_video'.")
VIDEO: Final = TargetField("target_video", MOVING, "Send a picture to /swap_image/ as 'target_image'.")


def submission(
    fields: Mapping[str, str], files: Mapping[str, ReceivedFile], target: TargetField, caller: Caller
) -> Submission:
    """What the engine is asked for. Unknown text fields are let pass, as the original does.

    Raises:
        InvalidInputError: naming the field: missing, a text where a file belongs, a file where none does, two names.
        UnsupportedMediaError: a video where a picture belongs, or the reverse.
    """
    refuse_other_files(files, {FACE, target.name})
    face = _file(FACE, fields, files, STILL, "The face is taken from a still picture.")
    return Submission(
        owner=caller.owner,
        submitter=caller.submitter,
        dialect=NAME,
        inputs={"target": _file(target.name, fields, files, target.kinds, target.hint), "face": face},
        accepts={"target": target.kinds, "face": STILL},
        output_name=output_name(fields),
        consent=by_field(fields.get(CONSENT)),
    )


def _file(
    name: str, fields: Mapping[str, str], files: Mapping[str, ReceivedFile], kinds: frozenset[MediaKind], hint: str
) -> SubmittedFile:
    if name in files:
        return submitted_file(name, files[name], kinds, hint=hint)
    if fields.get(name, "").strip():
        raise InvalidInputError(f"The field {name!r} must be a file.", field=name)
    raise InvalidInputError(f"There is no file in {name!r}.", field=name)


def output_name(fields: Mapping[str, str]) -> str | None:
    """The name that is wished for, by either field, without a file's extension; None when there is no wish.

    Raises:
        InvalidInputError: the two fields wish for different names.
    """
    # A browser's form sends the fields that were left empty, too.
    wishes = [fields[name] for name in NAME_FIELDS if fields.get(name, "").strip()]
    if len(set(wishes)) > 1:
        raise InvalidInputError("output_name and output were given; give one of them.", field=NAME_FIELDS[1])
    return _EXTENSION.sub("", wishes[0].strip()) or None if wishes else None


# ---------------------------------------------------------------------------------------------------------- job -> body


def accepted_body(job: Job) -> dict[str, object]:
    """The answer of ``/swap_image/`` and ``/swap_video/``."""
    return {"task_id": job.id}


def status_body(job: Job, prefix: str) -> dict[str, object]:
    """The answer of ``/check_task_status``. Args: prefix: path before every link, "" mostly."""
    body: dict[str, object] = {"status": STATE_WORDS[job.state], "result": None}
    if job.state is JobState.SUCCEEDED:
        name = job.results[0].link
        body |= {"result": f"Face swapped and saved as {name}", "link": f"{prefix}/static/{name}"}
    elif job.state is JobState.FAILED:
        body |= {"result": job.error_message or "The face swap failed.", "code": job.error_code}
    elif job.state is JobState.CANCELED:
        body |= {"result": CANCELED_SENTENCE, "code": CANCELED_CODE}
    return body


# -------------------------------------------------------------------------------------------------------- error -> body


def error_body(error: GatewayError, request_id: str) -> Mapping[str, object]:
    """The envelope of every HTTP error; the request's id is in a header."""
    del request_id
    return {"detail": error.message, "code": error.code, "field": error.field}
