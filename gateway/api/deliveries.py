"""Deliveries over ``/-/``; how they are shown with their jobs, ``shown.py`` says.

An owner sees and mends those of its own jobs; the operator (the admin token, or a key with the scope ``admin``) everybody's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.problems import json_response
from gateway.api.shown import delivery_body, lookup_id, timestamp
from gateway.api.window import Call, Endpoint
from gateway.delivering import Delivery, DeliveryState, delivery_id
from gateway.errors import InvalidInputError
from gateway.job import Job

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 100
MAX_ID_CHARACTERS: Final = 64
MAX_PLACE_DIGITS: Final = 6


async def get_deliveries(request: Request, call: Call) -> Response:
    """``GET /-/deliveries?state=failed&before=<id>&limit=50``: newest first."""
    query = request.query_params
    limit = _limit(query.get("limit", str(DEFAULT_LIMIT)))
    before = query.get("before") or None
    # One more than asked for tells whether there is a next page.
    found = await call.service.deliveries.listed(
        _whose(call), state=_state(query.get("state")), before=before and before[:MAX_ID_CHARACTERS], limit=limit + 1
    )
    page = found[:limit]
    more = page[-1].id if len(found) > limit else None
    return json_response({"deliveries": [listed_body(delivery) for delivery in page], "next": more})


async def post_redeliver(request: Request, call: Call) -> Response:
    """``POST /-/deliveries/{id}/redeliver``: now, and by the schedule from its beginning."""
    delivery = await call.service.deliveries.redeliver(_lookup_id(request.path_params["id"]), _whose(call))
    return json_response(listed_body(delivery), 202)


def _lookup_id(text: str) -> str:
    """As given, or that of nobody's job: what is malformed is answered as what is not there, by the same question."""
    job, _, position = text.removeprefix("dlv_").partition("_")
    is_place = position.isascii() and position.isdigit() and len(position) <= MAX_PLACE_DIGITS
    return delivery_id(lookup_id(job), int(position) if is_place else 0)


def _whose(call: Call) -> str | None:
    """Whose deliveries a caller may see; None: everybody's."""
    return None if call.known.is_admin else call.known.owner


# -------------------------------------------------------------------------------------------------------- what is told


async def told_of(call: Call, job: Job) -> Sequence[Delivery]:
    """A job's deliveries; none, and nobody is asked, where it has none."""
    return (await call.service.deliveries.of([job])).get(job.id, ())


def listed_body(delivery: Delivery) -> dict[str, object]:
    """The same in a list of many jobs'."""
    return {
        **delivery_body(delivery),
        "job": delivery.job_id,
        "owner": delivery.owner,
        "created_at": timestamp(delivery.created_at),
    }


def _state(text: str | None) -> DeliveryState | None:
    if not text:
        return None
    try:
        return DeliveryState(text)
    except ValueError:
        known = ", ".join(state.value for state in DeliveryState)
        raise InvalidInputError(f"state is one of: {known}.", field="state") from None


def _limit(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= len(str(MAX_LIMIT)) and 1 <= int(text) <= MAX_LIMIT:
        return int(text)
    raise InvalidInputError(f"limit is a number from 1 to {MAX_LIMIT}.", field="limit")


ENDPOINTS: Final = (
    Endpoint("GET", "/-/deliveries", get_deliveries),
    Endpoint("POST", "/-/deliveries/{id}/redeliver", post_redeliver),
)
