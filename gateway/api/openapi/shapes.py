"""Shapes that several APIs answer with: how the gateway and its pool are."""

from __future__ import annotations

from typing import Literal

from pydantic import RootModel

from gateway.api.openapi.vocabulary import JobId, Model, Moment
from gateway.delivering import DeliveryState, Reason


class Upstream(Model):
    """A ComfyUI instance."""

    name: str
    address: str
    """Without credentials."""
    engine: str
    """`comfyui`, or `preview` for the built-in CPU worker."""
    version: str | None
    reachable: bool
    available: bool
    """It may be given work."""
    draining: bool
    """It is given nothing new."""
    restarting: bool
    """Its process, one of the gateway's own, is restarted when it has nothing to do; until then it is given nothing new."""
    job_id: JobId | None
    """What it works on."""
    foreign_prompts: int
    """In its queue, of others."""
    stale_prompts: int
    """In its queue, of ours, that nobody waits for any more."""
    cleaning: Literal["unknown", "works", "no_token", "no_route", "refused"]
    """Whether it deletes what ended jobs have left there: it does; the gateway has no token for it; it has no node pack, or an
    earlier one; it refuses the token; or it was not asked yet."""
    reason: str
    """Why it gets no work; empty when all is well."""


class DeliveryShown(Model):
    """An output on its way to where its owner wants it."""

    id: str
    asset_id: str
    name: str
    """What it is called there."""
    target: str | None
    """Of the operator's; null: it goes to a URL."""
    place: str | None
    """Host and path of the URL; of a target, where it is, once it is there."""
    state: DeliveryState
    attempts: int
    next_at: Moment | None
    last_at: Moment | None
    last_status: int | None
    reason: Reason | None
    """What came of the last attempt, or why there was none."""


class UploadedEvent(Model):
    """A file is where it was to be put; after the end, where the job has deliveries."""

    delivery: str
    asset_id: str
    name: str
    target: str | None
    place: str | None


class UploadFailedEvent(UploadedEvent):
    """That was given up; the file can be had as any other."""

    reason: Reason | None
    status: int | None


class TemplateProblem(Model):
    """A template that does not serve, or not in its newest version."""

    name: str
    problem: str


class HealthWord(Model):
    """What everybody may know."""

    status: Literal["healthy", "degraded", "unavailable"]


class Safety(Model):
    """Whether what is sent in is looked at before there is a job for it."""

    policy: Literal["off", "flag", "reject"]
    check: Literal["model", "service"] | None
    """Who looks; null where nobody does."""
    message: str


class Storage(Model):
    """Where inputs and results lie, and whether that works."""

    location: str | None
    """``s3://bucket/prefix/``; null for the data directory."""
    message: str


class Health(HealthWord):
    """What the owner may know."""

    engine: str | None
    """``comfyui``, or ``preview`` while only embedded workers run jobs; null while none is reachable."""
    upstreams: list[Upstream]
    templates: list[TemplateProblem]
    jobs: dict[str, int]
    """By state."""
    safety: Safety
    storage: Storage
    warnings: list[str]
    consent_required: bool


class Readiness(Model):
    """Whether anything can run."""

    ready: bool


class HealthAnswer(RootModel[Health | HealthWord]):
    """All of it to whoever may see jobs, the one word to others."""
