"""Face detection in the dialect ``swaps_v1``: request -> submission, job -> body, state -> its word; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.api.auth import Caller
from gateway.api.dialects.swaps_v1.translation import NAME
from gateway.api.facade import Submission, SubmittedFile
from gateway.api.shown import timestamp
from gateway.api.url_inputs import UrlInput
from gateway.faces import Face, FaceReport
from gateway.job import Job, JobState

TASK: Final = "face_detect"
ROLE: Final = "target"
#: Parameter of the task's templates: who finds the faces.
DETECTOR: Final = "detector"
#: The document knows these four. A queued one is queued, wherever its picture is.
STATE_WORDS: Final[Mapping[JobState, str]] = {
    JobState.QUEUED: "queued",
    JobState.DISPATCHED: "processing",
    JobState.RUNNING: "processing",
    JobState.FINISHING: "processing",
    JobState.SUCCEEDED: "done",
    JobState.FAILED: "failed",
    JobState.CANCELED: "failed",
}
CANCELED_SENTENCE: Final = "Canceled by request"
_NUMBERING: Final = "Faces are numbered by the area of their box, the largest first, ties left to right"


def submission(
    given: UrlInput, fetched: Mapping[str, SubmittedFile], caller: Caller, detector: str | None
) -> Submission:
    """What the engine is asked for.

    Args:
        given: where the picture came from.
        fetched: the picture, in its role.
        caller: who asks.
        detector: by whom faces are to be found, as the answer says: in a pool of several kinds each worker would take the
            best one of its own. None leaves it to the worker.
    """
    return Submission(
        owner=caller.owner,
        submitter=caller.submitter,
        dialect=NAME,
        inputs=fetched,
        accepts={ROLE: given.kinds},
        task=TASK,
        parameters={} if detector is None else {DETECTOR: detector},
        must_be_runnable=True,
    )


def accepted_body(job: Job, poll_url: str, detector: str | None) -> dict[str, object]:
    """The answer to a detection that was taken in. Args: detector: as ``submission`` was told."""
    found_by = "" if detector is None else f", as found by {detector}"
    note = f"Poll poll_url until status is done or failed. {_NUMBERING}{found_by}."
    return {"task_id": job.id, "status": STATE_WORDS[JobState.QUEUED], "poll_url": poll_url, "note": note}


def snapshot_body(job: Job, report: FaceReport | None) -> dict[str, object]:
    """How a detection stands. Args: report: what it found, once it is done."""
    found = report.faces if job.state is JobState.SUCCEEDED and report is not None else None
    return {
        "task_id": job.id,
        "status": STATE_WORDS[job.state],
        "faces_detected": None if found is None else len(found),
        "faces": None if found is None else [_face_body(face) for face in found],
        "error": _error_sentence(job),
        "created_at": timestamp(job.created_at),
        "completed_at": timestamp(job.finished_at) if job.finished_at is not None else None,
    }


def _error_sentence(job: Job) -> str | None:
    if job.state is JobState.CANCELED:
        return CANCELED_SENTENCE
    return job.error_message or "The detection failed." if job.state is JobState.FAILED else None


def _face_body(face: Face) -> dict[str, object]:
    box = {"x": face.x, "y": face.y, "width": face.width, "height": face.height}
    return {"index": face.index, "bounding_box": box}
