"""A gateway and its upstreams as processes that may be killed, and what they know at the end."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.chaos.history import Kept
from tests.tools.gateway_process import GatewayProcess
from tests.tools.open_worker import OpenWorker
from tests.tools.waiting import wait_until_now

#: Upstreams that were killed are left alone for less than in earnest: they are back in two seconds, and killed again.
HASTY = """
from gateway import breaker
from gateway.engine import dispatcher
dispatcher.MAX_RETRY_SECONDS = 0.3
breaker.REST_SECONDS, breaker.EJECT_SECONDS, breaker.MAX_EJECT_SECONDS = (0.3, 0.6), 1.0, 2.0
"""
#: Of the gateway's log, when something went wrong.
LOG_LINES, MAX_LINE = 60, 1200


class Pool:
    """External upstreams, which outlive the gateway, and one gateway before them.

    Args:
        flags: of each worker.
    """

    def __init__(self, folder: Path, flags: list[tuple[str, ...]], settings: dict[str, str]) -> None:
        self.workers = [OpenWorker(folder / f"worker-{number}", own) for number, own in enumerate(flags, start=1)]
        self.gateway = GatewayProcess(folder / "gateway", dict(settings), workers=0, first=HASTY)

    async def __aenter__(self) -> Self:
        await asyncio.gather(*(asyncio.to_thread(worker.start) for worker in self.workers))
        self.gateway.settings["UPSTREAMS"] = ",".join(worker.url for worker in self.workers)
        await asyncio.to_thread(self.start_gateway)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.gateway.end)
        for worker in self.workers:
            worker.kill()

    def start_gateway(self) -> None:
        self.gateway.start(wait_for_workers=False)

    async def kill_gateway(self) -> None:
        """And start it again."""
        self.gateway.kill()
        await asyncio.to_thread(self.start_gateway)

    async def kill_worker(self, worker: OpenWorker) -> None:
        """And start it again, on the same port; what it had in memory is gone."""
        worker.kill()
        await asyncio.to_thread(worker.start)

    # --------------------------------------------------------------------------------------------------- at the end

    def settle(self) -> None:
        """Wait until no upstream has anything of ours: all jobs have ended, so nothing comes any more."""
        with httpx.Client(trust_env=False, timeout=20) as http:

            def are_empty() -> bool:
                bodies = [http.get(f"{worker.url}/queue").json() for worker in self.workers]
                return not any(body["queue_running"] or body["queue_pending"] for body in bodies)

            wait_until_now(are_empty, what="empty queues of all upstreams")

    def kept(self) -> list[Kept]:
        """Every job in the gateway's database."""
        events = defaultdict(list)
        for job_id, number, kind in self.gateway.rows("SELECT job_id, number, kind FROM events ORDER BY number"):
            events[job_id].append((number, kind))
        outcomes = defaultdict(list)
        for job_id, outcome in self.gateway.rows(
            "SELECT job_id, outcome FROM attempts JOIN tasks ON tasks.id = task_id ORDER BY number"
        ):
            outcomes[job_id].append(outcome)
        return [
            Kept(
                job_id,
                state,
                tuple(number for number, _ in events[job_id]),
                tuple(kind for _, kind in events[job_id]),
                tuple(outcomes[job_id]),
                tuple(result["link"] for result in json.loads(results)),
                error or "",
            )
            for job_id, state, results, error in self.gateway.rows("SELECT id, state, results, error_message FROM jobs")
        ]

    def testimony(self) -> list[str]:
        """What gateway and upstreams say of themselves, and the end of the log: for whoever must find out why."""
        told = [line[:MAX_LINE] for line in self.gateway.log.read_text().splitlines()[-LOG_LINES:]]
        open_attempts = (
            "SELECT tasks.job_id, attempts.* FROM attempts JOIN tasks ON tasks.id = task_id WHERE outcome IS NULL"
        )
        told += [f"open attempt: {row}"[:MAX_LINE] for row in self.gateway.rows(open_attempts)]
        with httpx.Client(trust_env=False, timeout=5) as http:
            for url in (f"{self.gateway.url}/health", *(f"{worker.url}/queue" for worker in self.workers)):
                try:
                    told.append(f"{url}: {http.get(url).text}"[:MAX_LINE])
                except httpx.TransportError as error:
                    told.append(f"{url}: {error!r}")
        return told

    def started(self) -> dict[str, list[str]]:
        """Prompts that each upstream was given."""
        return {worker.folder.name: worker.started() for worker in self.workers}

    def scraps(self) -> list[str]:
        """Halves of files, which nobody needs once all jobs have ended."""
        return sorted(name for name in self.gateway.files() if name.startswith(("scratch", "blobs/parts")))
