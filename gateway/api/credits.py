"""Credits over ``/-/``, for the operator: what a user has and why, and giving more.

As in ``keys.py``, the command line uses the functions that read and tell when it opens a data directory by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.auth import Access
from gateway.api.facade import Credits, Statement
from gateway.api.problems import json_response
from gateway.api.shown import timestamp
from gateway.api.uploads import receive_json
from gateway.api.window import Call, Endpoint
from gateway.errors import InvalidInputError
from gateway.ledger import Amounts, Purse
from gateway.strictjson import JsonValue

Body = Mapping[str, JsonValue]
FIELDS: Final = frozenset({"user", "credits", "purse"})


async def grant(credits_of: Credits, body: Body) -> dict[str, object]:
    """Give what a body says; what the user has then. Raises InvalidInputError, NotFoundError."""
    if others := sorted(body.keys() - FIELDS):
        raise InvalidInputError(f"There is no field {others[0]!r} here.", field=others[0])
    user, purse, amount = body.get("user"), body.get("purse", Purse.PERMANENT.value), body.get("credits")
    for field, value in (("user", user), ("purse", purse)):
        if not isinstance(value, str):
            raise InvalidInputError(f"{field} is a text.", field=field)
    if not isinstance(amount, int) or isinstance(amount, bool):
        raise InvalidInputError("credits is a whole number.", field="credits")
    return statement_body(await credits_of.grant(str(user), str(purse), amount))


def statement_body(statement: Statement) -> dict[str, object]:
    """What a user has, and the newest entries."""
    return {
        "user": statement.user.name,
        "credits": amounts_body(statement.account.balance),
        "monthly_grant": statement.account.monthly_grant,
        "entries": [
            {
                "at": timestamp(line.at),
                "kind": line.entry.kind.value,
                "credits": amounts_body(line.entry.amounts),
                "job_id": line.job_id,
            }
            for line in statement.entries
        ],
    }


def amounts_body(amounts: Amounts) -> dict[str, int]:
    """Credits by purse, and all of them."""
    return {
        "subscription": amounts.subscription,
        "monthly": amounts.monthly,
        "permanent": amounts.permanent,
        "total": amounts.total,
    }


async def get_credits(request: Request, call: Call) -> Response:
    """``GET /-/credits?user=<name>``."""
    names = request.query_params.getlist("user")
    if len(names) != 1:
        raise InvalidInputError("user is the name of a user.", field="user")
    return json_response(statement_body(await call.service.credits.statement(names[0])))


async def post_credits(request: Request, call: Call) -> Response:
    """``POST /-/credits`` {user, credits, purse?}."""
    body = await receive_json(request, call.window.form_limits, stopping=call.service.stopping)
    return json_response(await grant(call.service.credits, body), 201)


ENDPOINTS: Final = (
    Endpoint("GET", "/-/credits", get_credits, Access.ADMIN),
    Endpoint("POST", "/-/credits", post_credits, Access.ADMIN),
)
