"""Secrets that come with jobs, for nodes that call paid services: in memory by job, never stored, shown or logged.

What is stored with a job is only which it came with, so that one whose secrets are gone fails with a sentence instead of
running without them. They are gone with the process, and when the job ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.errors import BusyError, CredentialLostError
from gateway.job import Job

#: Member of a job's ``extra``: the names of the secrets that it came with.
FIELD: Final = "secrets"
#: More jobs with secrets than may wait in the longest queue that is asked for; each secret is short.
MAX_JOBS: Final = 20_000


class Credentials:
    """Secrets by job."""

    def __init__(self) -> None:
        self._held: dict[str, Mapping[str, str]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def keep(self, job_id: str, secrets: Mapping[str, str]) -> None:
        """Hold them until the job ends, from before it is stored. Raises BusyError where too many are held."""
        if not secrets:
            return
        if len(self._held) >= MAX_JOBS:
            raise BusyError("Too many jobs with secrets wait; try again later.", retry_after_seconds=30)
        self._held[job_id] = dict(secrets)

    def forget(self, job_id: str) -> None:
        """The job has ended, or there is none."""
        self._held.pop(job_id, None)

    def of(self, job_id: str) -> Mapping[str, str]:
        """What goes with each attempt of a job; empty where it needs none."""
        return self._held.get(job_id, {})

    def require(self, job: Job) -> None:
        """Refuse a job that needs what is gone. Raises CredentialLostError."""
        if job.extra.get(FIELD) and job.id not in self._held:
            raise CredentialLostError(
                "The secrets that the job came with are kept in memory only, and the gateway was restarted: send it again."
            )
