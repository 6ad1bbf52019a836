"""The dialect ``comfy_v2``: the published API for running ComfyUI workflows, version 2, for the whole pool.

``assets`` reads what clients send of files and writes what they are told; ``envelope`` has the errors; both are pure.
``asset_handlers`` carry values between the web and the engine, ``single_use`` keeps idempotency keys as this contract
wants them. ``docs/dialects.md`` lists every field, code and deliberate difference.
"""

from __future__ import annotations

from typing import Final

from gateway.api.auth import Access
from gateway.api.dialects.comfy_v2 import asset_handlers, envelope, job_bodies, job_handlers, template_handlers, words
from gateway.api.dialects.comfy_v2.job_refusals import QueueFullHereError, TooManyStreamsError
from gateway.api.window import Dialect, Endpoint, Holds

DIALECT: Final = Dialect(
    name=words.NAME,
    endpoints=(
        Endpoint("POST", "/api/v2/assets", asset_handlers.post_assets, holds=Holds.SLOT),
        Endpoint("POST", "/api/v2/assets/from-hash", asset_handlers.post_from_hash),
        Endpoint("HEAD", "/api/v2/assets/by-hash/{hash}", asset_handlers.head_by_hash),
        Endpoint("GET", "/api/v2/assets/{id}", asset_handlers.get_asset),
        Endpoint("DELETE", "/api/v2/assets/{id}", asset_handlers.delete_asset),
        Endpoint("GET", "/api/v2/assets/{id}/content", asset_handlers.get_content, opened_by=asset_handlers.SIGNATURE),
        Endpoint("POST", "/api/v2/jobs", job_handlers.post_jobs, holds=Holds.SLOT, when_full=QueueFullHereError),
        Endpoint("GET", "/api/v2/jobs", job_handlers.get_jobs),
        Endpoint("GET", "/api/v2/jobs/{id}", job_handlers.get_job, is_polled=True),
        Endpoint("GET", "/api/v2/jobs/{id}/workflow", job_handlers.get_workflow),
        Endpoint(
            "GET",
            "/api/v2/jobs/{id}/events",
            job_handlers.get_events,
            holds=Holds.SLOT,
            when_full=TooManyStreamsError,
            takes_ticket=True,
        ),
        Endpoint("POST", "/api/v2/jobs/{id}/cancel", job_handlers.post_cancel),
        Endpoint("GET", "/api/v2/health", job_handlers.get_health, Access.PUBLIC),
        Endpoint("GET", "/api/v2/templates", template_handlers.get_templates),
        Endpoint("GET", "/api/v2/templates/{name}", template_handlers.get_template),
        Endpoint(
            "POST",
            "/api/v2/templates/{name}/jobs",
            template_handlers.post_template_jobs,
            holds=Holds.SLOT,
            when_full=QueueFullHereError,
        ),
    ),
    prefixes=("/api/v2",),
    envelope=envelope.error_body,
    state_words=words.STATE_WORDS,
    status_of=envelope.status_of,
    told_outside=job_bodies.ended_body,
    description=f"{__name__}.description",
)
