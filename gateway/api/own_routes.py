"""Every route that no document of others prescribes, in one table."""

from __future__ import annotations

from typing import Final

from gateway.api import consents, deliveries, keys, ops, pages, webhooks
from gateway.api import credits as credit_routes
from gateway.api.openapi import publishing

OWN_ENDPOINTS: Final = (
    *ops.ENDPOINTS,
    *keys.ENDPOINTS,
    *credit_routes.ENDPOINTS,
    *webhooks.ENDPOINTS,
    *deliveries.ENDPOINTS,
    *consents.ENDPOINTS,
    *pages.ENDPOINTS,
    *publishing.ENDPOINTS,
)
