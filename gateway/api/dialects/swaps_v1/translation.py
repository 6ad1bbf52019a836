"""The other translations of the dialect ``swaps_v1``; pure. ``reading`` has the first one, ``refusals`` the errors.

request -> submission (``submission``), job -> body (``swap_body``, ``page_body``), state -> its word (``word``,
``STATE_WORDS``). There are no events: the dialect is polled, or waits.

Source: the published reference of the API whose clients this dialect was written for; ``docs/dialects.md`` lists every
member and code of it, and our deliberate differences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from gateway.accounts import User
from gateway.api.auth import Caller
from gateway.api.dialects.swaps_v1.reading import TARGET, FaceSwap, SwapRequest, SwapType
from gateway.api.facade import Submission, SubmittedFile
from gateway.api.shown import percentage_of, timestamp
from gateway.audit import MediaKind
from gateway.errors import InvalidInputError
from gateway.events import Progress
from gateway.interfaces import Promise
from gateway.job import Job, JobState
from gateway.ledger import Account
from gateway.limits import WINDOW_SECONDS, Quota

NAME: Final = "swaps_v1"
TASK: Final = "face_swap"
PREPARING: Final = "preparing"
STATE_WORDS: Final[Mapping[JobState, str]] = {
    JobState.QUEUED: "queued",
    JobState.DISPATCHED: "processing",
    JobState.RUNNING: "processing",
    JobState.FINISHING: "processing",
    JobState.SUCCEEDED: "done",
    JobState.FAILED: "failed",
    JobState.CANCELED: "canceled",
}
#: States in which ``DELETE`` still acts: before the worker hears of the prompt.
CANCELABLE: Final = frozenset({JobState.QUEUED})
DEFAULT_LIMIT: Final = 25
MAX_LIMIT: Final = 100

_TYPE_OF: Final[Mapping[MediaKind, SwapType]] = {
    MediaKind.IMAGE: SwapType.IMAGE,
    MediaKind.GIF: SwapType.GIF,
    MediaKind.VIDEO: SwapType.VIDEO,
}

# ------------------------------------------------------------------------------------------------ request -> submission


def submission(
    wanted: SwapRequest, fetched: Mapping[str, SubmittedFile], caller: Caller, promise: Promise | None = None
) -> Submission:
    """What the engine is asked for.

    Args:
        wanted: by the client.
        fetched: what lies behind ``wanted.urls``, under the same names.
        caller: who pays.
        promise: what is told to whoever repeats the request.
    """
    names = _names(wanted)
    extra: dict[str, object] = {"type": wanted.type.value}
    if wanted.webhook_url is not None:
        extra["webhook_url"] = wanted.webhook_url
    if wanted.metadata is not None:
        extra["metadata"] = wanted.metadata
    if wanted.declared:
        extra["declared"] = wanted.declared
    return Submission(
        owner=caller.owner,
        submitter=caller.submitter,
        dialect=NAME,
        inputs={role: fetched[name] for role, name in names.items()},
        accepts={role: wanted.urls[name].kinds for role, name in names.items()},
        task=TASK,
        parameters=_parameters(wanted),
        extra=extra,
        must_be_runnable=True,
        promise=promise,
        consent=wanted.consent,
    )


def _names(wanted: SwapRequest) -> dict[str, str]:
    """By role of the job's inputs, which of the request's URLs it is."""
    if not wanted.names_each_face:
        return {"target": TARGET, "face": wanted.faces[0].source}
    return {"target": TARGET, **{f"face_{number}": face.source for number, face in enumerate(wanted.faces)}}


def _parameters(wanted: SwapRequest) -> dict[str, object]:
    """In the words of the templates. What they do by themselves is not said, so that they need not know of it."""
    parameters: dict[str, object] = {} if wanted.keep_audio else {"keep_audio": False}
    if wanted.names_each_face:
        return {"face_swaps": [_item(face) for face in wanted.faces], **parameters}
    face = wanted.faces[0]
    if face.face_index:
        parameters["target_faces"] = str(face.face_index)
    if face.frame_time_seconds is not None:
        parameters["reference_frame_time_seconds"] = face.frame_time_seconds
    # By themselves they enhance wherever there is a model for it; here it has to be asked for.
    return {"enable_face_enhancer": face.enhance, **parameters}


def _item(face: FaceSwap) -> dict[str, object]:
    item: dict[str, object] = {"face_index": face.face_index, "enable_face_enhancer": face.enhance}
    return item if face.frame_time_seconds is None else {**item, "frame_time_seconds": face.frame_time_seconds}


# ---------------------------------------------------------------------------------------------------------- job -> body


def word(job: Job, *, is_preparing: bool) -> str:
    """``status``. Args: is_preparing: its inputs are on their way to a worker."""
    return PREPARING if is_preparing and job.state is JobState.QUEUED else STATE_WORDS[job.state]


def swap_body(job: Job, snapshot: Progress | None, base: str, *, is_preparing: bool) -> dict[str, object]:
    """A PublicSwap.

    Args:
        job: a swap, by whatever dialect it came in.
        snapshot: while it is at work.
        base: what absolute links begin with.
        is_preparing: its inputs are on their way to a worker.
    """
    return {
        "id": job.id,
        "type": swap_type(job).value,
        "status": word(job, is_preparing=is_preparing),
        "credit_cost": job.credit_cost,
        "progress": int(percentage_of(job, snapshot)),
        "created_at": timestamp(job.created_at),
        "result_url": f"{base}/download/{job.results[0].link}" if job.results else None,
        "error": (job.error_message or "The face swap failed.") if job.state is JobState.FAILED else None,
        "metadata": job.extra.get("metadata"),
        "webhook_url": job.extra.get("webhook_url"),
        "warnings": list(job.warnings),
    }


def ended_body(job: Job, base: str, kept_seconds: float) -> dict[str, object]:
    """A PublicSwap that has ended, for webhooks. Args: base: what absolute links begin with."""
    del kept_seconds
    return swap_body(job, None, base, is_preparing=False)


def me_body(user: User, account: Account, quota: Quota) -> dict[str, object]:
    """Who the key belongs to, what there is to spend, and how much may still be asked."""
    balance = account.balance
    return {
        "user_id": user.id,
        "email_verified": user.email_verified,
        "subscription_tier": user.tier,
        "credits": {
            "permanent": balance.permanent,
            "monthly": balance.monthly,
            "subscription": balance.subscription,
            "total": balance.total,
        },
        "rate_limit": {"limit": quota.limit, "window_seconds": WINDOW_SECONDS, "remaining": quota.remaining},
    }


def swap_type(job: Job) -> SwapType:
    """``type``: as it was asked for here, else after its target."""
    told = job.extra.get("type") if job.dialect == NAME else None
    target = job.inputs.get("target")
    if told is None:
        return _TYPE_OF[target.facts.kind] if target is not None else SwapType.IMAGE
    return SwapType(str(told))


def page_body(swaps: Sequence[Mapping[str, object]], *, has_more: bool) -> dict[str, object]:
    """The answer of the listing. Args: has_more: there is a next page."""
    return {"data": list(swaps), "next_cursor": swaps[-1]["id"] if has_more else None}


def limit_of(values: Sequence[str]) -> int:
    """The query's ``limit``. Raises InvalidInputError."""
    text = values[0] if values else str(DEFAULT_LIMIT)
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(MAX_LIMIT))
    if len(values) > 1 or not is_number or not 1 <= int(text) <= MAX_LIMIT:
        raise InvalidInputError(f"limit is a whole number from 1 to {MAX_LIMIT}.", field="limit")
    return int(text)


def bad_cursor() -> InvalidInputError:
    """The one answer to a cursor that is no swap of this key."""
    return InvalidInputError("cursor is next_cursor of an earlier page.", field="cursor")
