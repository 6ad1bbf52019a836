"""How the gateway is, as JSON. Pure: from the engine's snapshot, without secrets; no upstream is asked."""

from __future__ import annotations

from typing import Final

from gateway.api.facade import Health, HealthStatus, MemberView
from gateway.interfaces import BlobsState
from gateway.screening import Policy


def word(health: Health) -> dict[str, object]:
    """The one word that everybody may know."""
    return {"status": health.status.value}


def is_ready(health: Health) -> bool:
    """Whether anything could run."""
    return health.status is not HealthStatus.UNAVAILABLE


def full_body(health: Health) -> dict[str, object]:
    """Everything that the owner may know."""
    return {
        "status": health.status.value,
        "engine": health.engine,
        "upstreams": [upstream_body(view) for view in health.upstreams],
        "templates": [{"name": name, "problem": problem} for name, problem in sorted(health.template_problems.items())],
        "jobs": {state.value: count for state, count in health.jobs.items()},
        "safety": {
            "policy": health.screening.policy.value,
            "check": health.screening.check,
            "message": _SCREENING_FAILS if health.screening.is_failing else _SCREENING[health.screening.policy],
        },
        "storage": {"location": health.storage.location, "message": _storage(health.storage)},
        "warnings": list(health.warnings),
        "consent_required": health.consent_required,
    }


_SCREENING: Final = {
    Policy.OFF: "Nothing that is sent in is looked at.",
    Policy.FLAG: "Pictures that are sent in are looked at; what is flagged runs, with a warning.",
    Policy.REJECT: "Pictures that are sent in are looked at; what is flagged is refused.",
}
_SCREENING_FAILS: Final = "The check failed when it was asked last: jobs are refused until it works again."


def _storage(state: BlobsState) -> str:
    if state.location is None:
        return "Files lie in the data directory."
    if state.trouble is None:
        return f"Files lie in {state.location}."
    if state.is_away:
        return f"{state.location} does not answer ({state.trouble.reason}): files are neither taken nor given out until it does."
    return f"{state.location} refuses what it is asked ({state.trouble.reason}): 'comfygate doctor' tells more."


def upstream_body(view: MemberView) -> dict[str, object]:
    """One upstream."""
    status = view.status
    return {
        "name": status.name,
        "address": status.address,
        "engine": status.engine,
        "version": status.version,
        "reachable": status.reachable,
        "available": view.available,
        "draining": view.draining,
        "restarting": view.restarting,
        "job_id": view.job_id,
        "foreign_prompts": status.foreign_prompts,
        "stale_prompts": status.stale_prompts,
        "cleaning": status.cleaning.value,
        "reason": status.reason or view.restraint,
    }
