"""Tables for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def show_jobs(page: Any) -> None:
    """Print a page of ``/-/jobs``."""
    rows = page["jobs"]
    if not rows:
        print("No jobs.")
        return
    table = Table("id", "state", "progress", "template", "created", "result or reason")
    for job in rows:
        results = job.get("results") or []
        last = results[0].get("download_url", "") if results else (job.get("error") or {}).get("message", "")
        progress = f"{100 * float((job.get('progress') or {}).get('fraction') or 0):.1f} %"
        cells = (job["id"], job["state"], progress, job["template"], job["created_at"], last)
        table.add_row(*(escape(str(cell)) for cell in cells))
    Console().print(table)


def show_upstreams(page: Any) -> None:
    """Print ``/-/upstreams``."""
    rows = page["upstreams"]
    if not rows:
        print("No upstreams.")
        return
    table = Table("name", "address", "engine", "version", "state", "job", "reason")
    for member in rows:
        keys = ("name", "address", "engine", "version", "state", "job_id", "reason")
        table.add_row(*(escape(str(member.get(key) or "")) for key in keys))
    Console().print(table)
