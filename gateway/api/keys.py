"""Users and keys over ``/-/``, for the operator: the admin token, or a key with the scope ``admin``.

The functions that read a request and show an answer are used by the command line too, when it opens a data directory by
itself, so that both take and tell the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from gateway.accounts import (
    DEFAULT_CONCURRENCY,
    DEFAULT_RATE_LIMIT,
    DEFAULT_SCOPES,
    DEFAULT_TIER,
    Keyholder,
    KeyKind,
    User,
    checked_scopes,
)
from gateway.api.auth import Access
from gateway.api.facade import Accounts, Credits, NewKey, Told
from gateway.api.problems import json_response
from gateway.api.shown import timestamp
from gateway.api.uploads import receive_json
from gateway.api.window import Call, Endpoint
from gateway.errors import GatewayError, InvalidInputError
from gateway.ledger import MAX_CREDITS, Purse
from gateway.strictjson import JsonValue

PAGE: Final = 100
MAX_OVERLAP_SECONDS: Final = 30 * 86_400
MAX_EXPIRY_SECONDS: Final = 100 * 365 * 86_400
USER_FIELDS: Final = frozenset({"name", "tier", "email_verified"})
KEY_FIELDS: Final = frozenset(
    {
        "name",
        "user",
        "rate_limit",
        "concurrency",
        "scopes",
        "is_test",
        "expires_in_seconds",
        "credits",
        "nodes_deny",
        "nodes_allow",
        "deliver_to",
    }
)

Body = Mapping[str, JsonValue]

# ------------------------------------------------------------------------------------------------- what was asked for


async def create_user(accounts: Accounts, body: Body) -> dict[str, object]:
    """Make the user that a body asks for. Raises InvalidInputError, ConflictError."""
    _refuse_others(body, USER_FIELDS)
    tier = _text(body, "tier")
    user = await accounts.create_user(
        _text(body, "name") or "",
        tier=DEFAULT_TIER if tier is None else tier,
        email_verified=_flag(body, "email_verified"),
    )
    return user_body(user)


async def create_key(
    accounts: Accounts, credits_of: Credits, body: Body, now: float, targets: Collection[str] | None = None
) -> dict[str, object]:
    """Make the key that a body asks for, and tell it; ``credits`` go to its user's permanent purse.

    Args:
        accounts: where it is made.
        credits_of: where its user's credits are.
        body: what is asked for.
        now: Unix seconds.
        targets: those that ``deliver_to`` may name; None where nobody knows them.

    Raises:
        InvalidInputError: a field cannot be, or the user would have more credits than anybody may.
        NotFoundError: there is no such user.
        ConflictError: the user has a key of that name.
    """
    _refuse_others(body, KEY_FIELDS)
    lasts = _number(body, "expires_in_seconds", MAX_EXPIRY_SECONDS)
    given = _number(body, "credits", MAX_CREDITS)
    rate, concurrency = _number(body, "rate_limit", None), _number(body, "concurrency", None)
    new = NewKey(
        name=_text(body, "name") or "",
        user=_text(body, "user"),
        rate_limit=DEFAULT_RATE_LIMIT if rate is None else rate,
        concurrency=DEFAULT_CONCURRENCY if concurrency is None else concurrency,
        scopes=DEFAULT_SCOPES if body.get("scopes") is None else checked_scopes(frozenset(_words(body, "scopes"))),
        kind=KeyKind.TEST if _flag(body, "is_test") else KeyKind.LIVE,
        expires_at=None if lasts is None else now + lasts,
        nodes_deny=None if body.get("nodes_deny") is None else _words(body, "nodes_deny"),
        nodes_allow=None if body.get("nodes_allow") is None else _words(body, "nodes_allow"),
        deliver_to=_text(body, "deliver_to"),
    )
    if new.deliver_to is not None and targets is not None and new.deliver_to not in targets:
        known = ", ".join(sorted(targets)) or "none: set GATEWAY_DELIVERY_TARGETS"
        raise InvalidInputError(f"There is no target {new.deliver_to[:64]!r}; there are: {known}.", field="deliver_to")
    told = await accounts.create_key(new)
    if given:
        try:
            await credits_of.grant(told.holder.user.name, Purse.PERMANENT, given)
        except GatewayError:
            # Its user would have too many. Nobody is told this key, so nobody needs it.
            await accounts.revoke_key(told.holder.key.id)
            raise
    return told_body(told)


async def rotate_key(accounts: Accounts, key_id: str, body: Body) -> dict[str, object]:
    """Give a key a new text, and tell it. Raises InvalidInputError, NotFoundError, ConflictError."""
    _refuse_others(body, frozenset({"overlap_seconds"}))
    overlap = _number(body, "overlap_seconds", MAX_OVERLAP_SECONDS)
    return told_body(await accounts.rotate_key(key_id, overlap_seconds=overlap or 0))


async def user_page(accounts: Accounts, after: str) -> dict[str, object]:
    """A page of users, and where the next begins."""
    users = await accounts.users(after=after, limit=PAGE)
    return {"users": [user_body(user) for user in users], "next": users[-1].id if len(users) == PAGE else None}


async def key_page(accounts: Accounts, after: str) -> dict[str, object]:
    """A page of keys, and where the next begins."""
    found = await accounts.keys(after=after, limit=PAGE)
    return {"keys": [key_body(holder) for holder in found], "next": found[-1].key.id if len(found) == PAGE else None}


# -------------------------------------------------------------------------------------------------------- what is told


def user_body(user: User) -> dict[str, object]:
    """A user."""
    return {
        "id": user.id,
        "name": user.name,
        "tier": user.tier,
        "email_verified": user.email_verified,
        "created_at": timestamp(user.created_at),
    }


def key_body(holder: Keyholder) -> dict[str, object]:
    """A key, as often as somebody asks: without its text."""
    key = holder.key
    return {
        "id": key.id,
        "name": key.name,
        "user": holder.user.name,
        "prefix": key.prefix,
        "rate_limit": key.rate_limit,
        "concurrency": key.concurrency,
        "scopes": sorted(scope.value for scope in key.scopes),
        "nodes_deny": _sorted(key.nodes_deny),
        "nodes_allow": _sorted(key.nodes_allow),
        "deliver_to": key.deliver_to,
        "created_at": timestamp(key.created_at),
        "expires_at": _moment(key.expires_at),
        "revoked_at": _moment(key.revoked_at),
        "last_used_at": _moment(key.last_used_at),
    }


def told_body(told: Told) -> dict[str, object]:
    """A key with its text: the one time that it is told."""
    return {**key_body(told.holder), "key": told.text}


def _sorted(patterns: frozenset[str] | None) -> list[str] | None:
    return None if patterns is None else sorted(patterns)


def _moment(unix_seconds: float | None) -> str | None:
    return None if unix_seconds is None else timestamp(unix_seconds)


# ------------------------------------------------------------------------------------------------------------- handlers


async def _body(request: Request, call: Call) -> Body:
    return await receive_json(request, call.window.form_limits, stopping=call.service.stopping)


async def get_users(request: Request, call: Call) -> Response:
    """``GET /-/users?after=<id>``."""
    return json_response(await user_page(call.service.accounts, request.query_params.get("after", "")))


async def post_user(request: Request, call: Call) -> Response:
    """``POST /-/users`` {name, tier?, email_verified?}."""
    return json_response(await create_user(call.service.accounts, await _body(request, call)), 201)


async def get_keys(request: Request, call: Call) -> Response:
    """``GET /-/keys?after=<id>``."""
    return json_response(await key_page(call.service.accounts, request.query_params.get("after", "")))


async def post_key(request: Request, call: Call) -> Response:
    """``POST /-/keys`` {name, user?, limits, scopes, lists and deliver_to?, is_test?, expires_in_seconds?, credits?}."""
    body, service = await _body(request, call), call.service
    targets, now = call.window.settings.target_places, service.clock.now()
    return json_response(await create_key(service.accounts, service.credits, body, now, targets), 201)


async def delete_key(request: Request, call: Call) -> Response:
    """``DELETE /-/keys/{id}``: it opens nothing from now on; what it started goes on."""
    return json_response(key_body(await call.service.accounts.revoke_key(request.path_params["id"])))


async def post_rotate(request: Request, call: Call) -> Response:
    """``POST /-/keys/{id}/rotate`` {overlap_seconds?}: a new text for the same key."""
    body = await _body(request, call) if await _has_body(request) else {}
    return json_response(await rotate_key(call.service.accounts, request.path_params["id"], body))


async def _has_body(request: Request) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


ENDPOINTS: Final = (
    Endpoint("GET", "/-/users", get_users, Access.ADMIN),
    Endpoint("POST", "/-/users", post_user, Access.ADMIN),
    Endpoint("GET", "/-/keys", get_keys, Access.ADMIN),
    Endpoint("POST", "/-/keys", post_key, Access.ADMIN),
    Endpoint("DELETE", "/-/keys/{id}", delete_key, Access.ADMIN),
    Endpoint("POST", "/-/keys/{id}/rotate", post_rotate, Access.ADMIN),
)

# --------------------------------------------------------------------------------------------------------------- fields


def _refuse_others(body: Body, known: frozenset[str]) -> None:
    if others := sorted(body.keys() - known):
        raise InvalidInputError(f"There is no field {others[0]!r} here.", field=others[0])


def _text(body: Body, field: str) -> str | None:
    value = body.get(field)
    if value is not None and not isinstance(value, str):
        raise InvalidInputError(f"{field} is a text.", field=field)
    return value


def _flag(body: Body, field: str) -> bool:
    value = body.get(field)
    if value is not None and not isinstance(value, bool):
        raise InvalidInputError(f"{field} is true or false.", field=field)
    return bool(value)


def _number(body: Body, field: str, most: int | None) -> int | None:
    value = body.get(field)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or (most is not None and not 0 <= value <= most):
        raise InvalidInputError(
            f"{field} is a whole number{'' if most is None else f' from 0 to {most}'}.", field=field
        )
    return value


def _words(body: Body, field: str) -> list[str]:
    value = body.get(field)
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise InvalidInputError(f"{field} is a list of texts.", field=field)
    return [str(word) for word in value]
