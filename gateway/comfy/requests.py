"""What a session (``protocol.py``) asks of its owner: each a thing to do on the wire, none of them an answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AskHistory:
    """GET /history/{prompt_id}; answer with ``history_answered``, or ``ask_failed``."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class AskQueue:
    """GET /queue; answer with ``queue_answered``, or ``ask_failed``."""


@dataclass(frozen=True, slots=True)
class SendProbe:
    """Send ``feature_flags`` on the socket; it must be the first message sent on it."""


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Close the socket, wait until it is closed, connect again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Dequeue:
    """Take this prompt out of the queue, or interrupt it, without waiting for the outcome."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class ClearStale:
    """Remove prompts of ours that nobody follows."""


@dataclass(frozen=True, slots=True)
class DoubtStaged:
    """Uploaded files may be gone."""

    reason: str


Request = AskHistory | AskQueue | SendProbe | Reconnect | Dequeue | ClearStale | DoubtStaged
