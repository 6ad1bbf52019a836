"""How the gateway is: judged from what pool, catalog and safety check remember, so that asking costs nobody anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gateway.engine.catalog import Catalog
from gateway.engine.members import MemberView
from gateway.engine.pool import Pool
from gateway.engine.screening import NOBODY_LOOKS, ScreeningState
from gateway.interfaces import BlobsState
from gateway.job import JobState

#: Files lie in the data directory.
HERE: Final = BlobsState()


class HealthStatus(StrEnum):
    """How the gateway is."""

    HEALTHY = "healthy"
    #: Something works, something does not.
    DEGRADED = "degraded"
    #: Nothing can run.
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Health:
    """How the gateway is, from memory: asking costs nobody anything."""

    status: HealthStatus
    #: "preview" when only embedded workers run jobs, else "comfyui"; None while none is reachable.
    engine: str | None
    upstreams: tuple[MemberView, ...]
    #: Template name -> what is wrong with it: its files, or that no upstream which works now fits it.
    template_problems: Mapping[str, str]
    #: Jobs per state, a few seconds old at most.
    jobs: Mapping[JobState, int]
    warnings: tuple[str, ...] = ()
    #: Templates of which jobs could run now, by name.
    ready_templates: tuple[str, ...] = ()
    #: Whether who has a face swapped must say that the people in the pictures agreed.
    consent_required: bool = False
    #: What is done about inputs before there is a job.
    screening: ScreeningState = NOBODY_LOOKS
    #: Where inputs and results lie, and whether that works.
    storage: BlobsState = HERE

    @property
    def is_ready(self) -> bool:
        """Whether any job could run now."""
        return self.status is not HealthStatus.UNAVAILABLE


def judge(
    pool: Pool,
    catalog: Catalog,
    jobs: Mapping[JobState, int],
    screening: ScreeningState,
    storage: BlobsState,
    *,
    consent_required: bool,
) -> Health:
    """How the gateway is, with what is told beside it handed in."""
    views = pool.views()
    able = [view for view in views if view.available]
    templates = catalog.templates()
    unfit = pool.unfit(templates)
    # That nothing is available is said by the upstreams; it is no fault of the templates.
    optional = {template.name for template in templates if template.optional}
    lacking = {name: reason for name, reason in unfit.items() if able and name not in optional}
    problems = {**lacking, **catalog.problems()}
    ready = tuple(template.name for template in templates if template.name not in unfit)
    if not ready:
        status = HealthStatus.UNAVAILABLE
    elif len(able) < len(views) or any(view.restraint for view in views):
        status = HealthStatus.DEGRADED
    elif problems or screening.is_failing or storage.trouble is not None:
        # No less than that while files cannot be had: every gateway on that storage has the same trouble, and what needs no
        # file (states, streams, cancels) is answered as ever. A load balancer that took us away would take that, too.
        status = HealthStatus.DEGRADED
    else:
        status = HealthStatus.HEALTHY
    engines = {view.status.engine for view in able}
    return Health(
        status=status,
        engine=None if not engines else "comfyui" if "comfyui" in engines else "preview",
        upstreams=views,
        template_problems=problems,
        jobs=jobs,
        ready_templates=ready,
        consent_required=consent_required,
        screening=screening,
        storage=storage,
    )
