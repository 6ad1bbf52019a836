"""What the pool tells of its members: how each is, and what it could do for a task. Values for people."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.interfaces import UpstreamStatus


@dataclass(frozen=True, slots=True)
class MemberView:
    """How a member is, for people; no secrets."""

    status: UpstreamStatus
    draining: bool
    job_id: str | None
    #: Why it gets nothing, or one job only, and what is done about it: "ejected 30 s: 3 connect failures"; "" when it gets
    #: all there is.
    restraint: str = ""
    #: Its process is about to be restarted.
    restarting: bool = False

    @property
    def available(self) -> bool:
        """Whether it works or could."""
        return self.status.reachable and not self.draining and not self.restarting


@dataclass(frozen=True, slots=True)
class Judgment:
    """Whether one upstream could run a task, and why it does not do so now."""

    upstream: str
    #: Whether it could, sooner or later, as it is; None while it has not said what it can do.
    fits: bool | None
    #: For people; "" when it is free for it.
    reason: str
