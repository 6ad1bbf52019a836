"""What clients are told: event kinds, their numbering, and which of them last.

**Durable** events (state changes, outputs, warnings) get a number per job, from 1, in the transaction that causes them;
the number is what ``id:`` in SSE carries. They are never coalesced: a client holds a cursor and reads on from the store.

**Passing** events (progress, previews) are complete snapshots: each replaces the one before it, carries no number, and
is not stored per tick. One slot per client, last wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class EventKind(StrEnum):
    """The durable kinds."""

    #: Accepted and stored. Data: {}.
    QUEUED = "queued"
    #: An upstream is about to get it. Data: upstream, engine, attempt.
    DISPATCHED = "dispatched"
    #: It runs. Data: upstream, attempt.
    STARTED = "started"
    #: Back to the queue. Data: reason ("attempt_lost" | "interrupted"), message; dropped, where there were any: asset ids
    #: of the outputs told of so far, which are gone with the attempt.
    REQUEUED = "requeued"
    #: The upstream is done; results are being fetched and audited. Data: {}.
    FINISHING = "finishing"
    #: A file that it made is kept and can be fetched, long before the end perhaps. Data: asset_id, node_id, name, link,
    #: content_type, size_bytes. Told of jobs that run a client's own graph.
    OUTPUT = "output"
    #: Something the client should know. Data: code, message.
    WARNING = "warning"
    #: A cancel was taken note of. Data: {}.
    CANCEL_REQUESTED = "cancel_requested"
    #: The end. Data: results [{link, content_type, size_bytes}], engine, warnings.
    SUCCEEDED = "succeeded"
    #: The end. Data: code, message.
    FAILED = "failed"
    #: The end. Data: {}.
    CANCELED = "canceled"
    #: After the end, where a job has deliveries: one of its outputs is where it was to be put. Data: delivery, asset_id,
    #: name, target, place.
    UPLOADED = "uploaded"
    #: After the end: that was given up. The file is kept as any other. Data: delivery, asset_id, name, target, place, reason,
    #: status.
    UPLOAD_FAILED = "upload_failed"


#: A job ends with one of these, and there is exactly one. What comes after it tells of deliveries.
TERMINAL_KINDS = frozenset({EventKind.SUCCEEDED, EventKind.FAILED, EventKind.CANCELED})


@dataclass(frozen=True, slots=True)
class Event:
    """One durable event."""

    job_id: str
    #: From 1, without gaps.
    number: int
    kind: EventKind
    #: Unix seconds.
    at: float
    data: Mapping[str, object]

    @property
    def is_terminal(self) -> bool:
        """Whether the job ends with it."""
        return self.kind in TERMINAL_KINDS


class Progress(NamedTuple):
    """A passing event: how far the whole job is. Complete in itself.

    One is made at each step of each bar: a tuple takes a quarter of the time of a frozen dataclass.
    """

    job_id: str
    #: 0..1 for the whole job, never falls; 1.0 only after the terminal commit.
    fraction: float
    #: One sentence: what is being done.
    message: str
    nodes_done: int = 0
    nodes_total: int = 0
    #: The node at work: id, title and class in our graph.
    node: str | None = None
    node_title: str | None = None
    node_class: str | None = None
    #: The node's own counter in its present pass.
    step: int | None = None
    steps: int | None = None
    #: 1-based number of the pass that the node is in, and how many are expected.
    pass_number: int | None = None
    passes: int | None = None
    #: Seconds left, when they can be told.
    eta_seconds: float | None = None


#: A larger picture is none of the work but a result that a node sends this way; it is dropped. Previews are 512 pixels.
MAX_PREVIEW_BYTES = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True, weakref_slot=True)
class PreviewImage:
    """A passing event: a picture of the work."""

    job_id: str
    content_type: str
    #: At most ``MAX_PREVIEW_BYTES``.
    data: bytes
    #: The node in our graph that it is of; None where the upstream does not tell.
    node: str | None = None


Passing = Progress | PreviewImage


#: More digits than a 64-bit number has are nobody's cursor.
MAX_DIGITS = 18


def cursor_from(last_event_id: str | None, last_number: int) -> int:
    """Where a client's ``Last-Event-ID`` stands: the number after which it wants to read.

    Missing, not a number, or beyond the last event: 0, from the beginning.
    """
    if (
        last_event_id is None
        or not (last_event_id.isascii() and last_event_id.isdigit())
        or len(last_event_id) > MAX_DIGITS
    ):
        return 0
    number = int(last_event_id)
    return number if number <= last_number else 0
