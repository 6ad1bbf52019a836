"""Our own routes, described: everything below ``/-/``, this document, its page."""

from __future__ import annotations

from gateway.api.openapi import agreement, own_accounts, own_deliveries, own_jobs, own_pool, own_webhooks
from gateway.api.openapi.problem_model import Problem
from gateway.api.openapi.vocabulary import Description, World


def describe(world: World) -> Description:
    """All of them."""
    del world
    return Description(
        tag=own_jobs.TAG,
        help="Jobs of every API, in our own words.",
        operations={
            **own_jobs.operations(),
            **own_pool.operations(),
            **own_accounts.operations(),
            **own_webhooks.operations(),
            **own_deliveries.operations(),
            **agreement.operations(),
        },
        envelope=Problem,
        code_at=("code",),
        told_outside=own_jobs.Job,
        tags={
            own_webhooks.TAG: "What was told to webhooks, and their secrets.",
            own_deliveries.TAG: "Where finished files were put.",
            own_pool.TAG: "The upstreams and the templates.",
            own_accounts.TAG: "Users, keys, credits; for the operator.",
            "operating": "For the operator.",
            "pages": "For people.",
        },
    )
