"""What this API calls itself and the states of a job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.job import JobState

NAME: Final = "comfy_v2"

STATE_WORDS: Final[Mapping[JobState, str]] = {
    JobState.QUEUED: "queued",
    JobState.DISPATCHED: "running",
    JobState.RUNNING: "running",
    JobState.FINISHING: "running",
    JobState.SUCCEEDED: "succeeded",
    JobState.FAILED: "failed",
    JobState.CANCELED: "canceled",
}
