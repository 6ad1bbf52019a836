"""Records of consent over ``/-/``, for the operator: the admin token, or a key with the scope ``admin``.

The functions that read a question and show an answer are used by the command line too, when it opens a data directory by
itself, so that both take and tell the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.auth import Access
from gateway.api.facade import Consents
from gateway.api.problems import json_response
from gateway.api.shown import lookup_id, timestamp
from gateway.api.window import Call, Endpoint
from gateway.consent import ConsentRecord
from gateway.errors import InvalidInputError

MAX_LIMIT: Final = 1000
DEFAULT_LIMIT: Final = 100
#: What names in the blob store are.
_HASH: Final = "blake3:"


async def get_consents(request: Request, call: Call) -> Response:
    """``GET /-/consent?owner=&since=&after=&limit=100``: oldest first; ``after`` is the ``next`` of the page before."""
    return json_response(await page(call.service.consents, request.query_params))


async def get_consent(request: Request, call: Call) -> Response:
    """``GET /-/consent/{id}``: that of one job, whoever owns it, and whether or not the job is remembered."""
    return json_response(await one(call.service.consents, request.path_params["id"]))


async def page(consents: Consents, query: Mapping[str, str]) -> dict[str, object]:
    """A page of records. Raises InvalidInputError."""
    limit = _limit(query.get("limit", str(DEFAULT_LIMIT)))
    after = query.get("after")
    # One more than asked for tells whether there is a next page.
    found = await consents.records(
        owner=query.get("owner") or None,
        since=_since(query.get("since")),
        after=lookup_id(after) if after else None,
        limit=limit + 1,
    )
    shown = found[:limit]
    more = shown[-1].job_id if len(found) > limit else None
    return {"consents": [record_body(record) for record in shown], "next": more}


async def one(consents: Consents, job_id: str) -> dict[str, object]:
    """The record of a job. Raises NotFoundError."""
    return record_body(await consents.record(lookup_id(job_id)))


def record_body(record: ConsentRecord) -> dict[str, object]:
    """A record, as it is shown and exported."""
    return {
        "job": record.job_id,
        "owner": record.owner,
        "dialect": record.dialect,
        "attested_by": record.attested.value,
        "attested_at": timestamp(record.at),
        "inputs": {role: _HASH + name for role, name in record.inputs.items()},
        "state": record.state,
        "ended_at": None if record.ended_at is None else timestamp(record.ended_at),
        "outputs": None if record.outputs is None else [_HASH + name for name in record.outputs],
    }


def _since(text: str | None) -> float:
    if not text:
        return 0.0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(
            "since is a day or a time, such as 2026-05-31 or 2026-05-31T12:00:00Z.", field="since"
        ) from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _limit(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= len(str(MAX_LIMIT)) and 1 <= int(text) <= MAX_LIMIT:
        return int(text)
    raise InvalidInputError(f"limit is a number from 1 to {MAX_LIMIT}.", field="limit")


ENDPOINTS: Final = (
    Endpoint("GET", "/-/consent", get_consents, Access.ADMIN),
    Endpoint("GET", "/-/consent/{id}", get_consent, Access.ADMIN),
)
