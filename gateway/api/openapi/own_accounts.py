"""Our own routes about users, keys and credits, described. What a body may hold is what ``keys.py`` and ``credits.py`` read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.accounts import (
    DEFAULT_CONCURRENCY,
    DEFAULT_RATE_LIMIT,
    DEFAULT_SCOPES,
    DEFAULT_TIER,
    MAX_CONCURRENCY,
    MAX_NAME_CHARACTERS,
    MAX_PATTERN_CHARACTERS,
    MAX_PATTERNS,
    MAX_RATE_LIMIT,
    Scope,
)
from gateway.api import credits as credit_routes
from gateway.api import keys
from gateway.api.openapi.vocabulary import (
    JSON,
    Body,
    Content,
    Model,
    Moment,
    Operation,
    Parameter,
    Schema,
    closed,
    json_answer,
    nullable,
)
from gateway.delivering import NAME as TARGET_NAME
from gateway.errors import ConflictError, NotFoundError
from gateway.ledger import MAX_CREDITS, EntryKind, Purse

TAG: Final = "accounts"


class User(Model):
    """Who pays."""

    id: str
    name: str
    tier: str
    email_verified: bool
    created_at: Moment


class Users(Model):
    """A page of users, the oldest first."""

    users: list[User]
    next: str | None
    """Of the next page's `after`; null on the last."""


class Key(Model):
    """Who calls; without the text that is shown to be let in."""

    id: str
    name: str
    user: str
    prefix: str
    """How its text begins."""
    rate_limit: int
    """Requests in any minute."""
    concurrency: int
    """Creates at a time."""
    scopes: list[Scope]
    nodes_deny: list[str] | None
    """Node classes that its own workflows may not use, beside those that the gateway denies; null: no more."""
    nodes_allow: list[str] | None
    """The only node classes that they may use, of those that the gateway allows; null: all of these."""
    deliver_to: str | None
    """Name of the target that the outputs of its jobs are put to, and of the only one that they may name."""
    created_at: Moment
    expires_at: Moment | None
    revoked_at: Moment | None
    last_used_at: Moment | None


class NewKey(Key):
    """A key and its text, told this once."""

    key: str


class Keys(Model):
    """A page of keys, the oldest first; revoked ones too."""

    keys: list[Key]
    next: str | None
    """Of the next page's `after`; null on the last."""


class Credits(Model):
    """Credits by purse, and all of them."""

    subscription: int
    monthly: int
    permanent: int
    total: int


class LedgerEntry(Model):
    """Why purses changed."""

    at: Moment
    kind: EntryKind
    credits: Credits
    job_id: str | None


class Statement(Model):
    """What a user has, and the newest reasons."""

    user: str
    credits: Credits
    monthly_grant: int
    entries: list[LedgerEntry]


_MOMENT: Final = "2026-03-01T12:00:00.000Z"
_USER: Final = {
    "id": "01978b6e-0000-7000-8000-000000000001",
    "name": "ada",
    "tier": DEFAULT_TIER,
    "email_verified": False,
    "created_at": _MOMENT,
}
_KEY: Final = {
    "id": "01978b6e-0000-7000-8000-000000000002",
    "name": "laptop",
    "user": "ada",
    "prefix": "cfg_live_Ab3dE6gH",
    "rate_limit": DEFAULT_RATE_LIMIT,
    "concurrency": DEFAULT_CONCURRENCY,
    "scopes": sorted(DEFAULT_SCOPES),
    "nodes_deny": ["KSampler*"],
    "nodes_allow": None,
    "deliver_to": "archive",
    "created_at": _MOMENT,
    "expires_at": None,
    "revoked_at": None,
    "last_used_at": None,
}
_TOLD: Final = {**_KEY, "key": "cfg_live_Ab3dE6gH…"}
_STATEMENT: Final = {
    "user": "ada",
    "credits": {"subscription": 0, "monthly": 0, "permanent": 100, "total": 100},
    "monthly_grant": 0,
    "entries": [
        {
            "at": _MOMENT,
            "kind": "grant",
            "credits": {"subscription": 0, "monthly": 0, "permanent": 100, "total": 100},
            "job_id": None,
        }
    ],
}
_AFTER: Final = Parameter("after", "`next` of an earlier page.")
_KEY_ID: Final = Parameter("id", "Of the key.", where="path")


def _name(help: str) -> Schema:  # noqa: A002 - it is called by place
    return {"type": "string", "minLength": 1, "maxLength": MAX_NAME_CHARACTERS, "description": help}


def _patterns(says: str) -> Schema:
    pattern: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_PATTERN_CHARACTERS}
    shape: Schema = {"type": "array", "items": pattern, "minItems": 1, "maxItems": MAX_PATTERNS, "description": says}
    return nullable(shape)


def _number(most: int, default: int | None, says: str, least: int = 0) -> Schema:
    shape: dict[str, object] = {"type": ["integer", "null"], "minimum": least, "maximum": most, "description": says}
    return shape if default is None else {**shape, "default": default}


def user_fields() -> Mapping[str, Schema]:
    """What makes a user."""
    return {
        "name": _name("Unique."),
        "tier": nullable({"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,31}$", "default": DEFAULT_TIER}),
        "email_verified": nullable({"type": "boolean", "default": False}),
    }


def key_fields() -> Mapping[str, Schema]:
    """What makes a key."""
    scopes: Schema = {
        "type": "array",
        "items": {"enum": sorted(Scope)},
        "minItems": 1,
        "default": sorted(DEFAULT_SCOPES),
    }
    return {
        "name": _name("Unique among the user's keys."),
        "user": nullable(_name("Whose it is; the user is made when there is none.")),
        "rate_limit": _number(MAX_RATE_LIMIT, DEFAULT_RATE_LIMIT, "Requests in any minute.", 1),
        "concurrency": _number(MAX_CONCURRENCY, DEFAULT_CONCURRENCY, "Creates at a time.", 1),
        "scopes": nullable(scopes),
        "is_test": nullable({"type": "boolean", "default": False}),
        "expires_in_seconds": _number(keys.MAX_EXPIRY_SECONDS, None, "When it ends by itself."),
        "credits": _number(MAX_CREDITS, None, "Given to the user's permanent purse."),
        "nodes_deny": _patterns(
            "Patterns of node classes that the key's own workflows may not use, beside those of GATEWAY_NODES_DENY; "
            "`default` stands for those that ship."
        ),
        "nodes_allow": _patterns(
            "Patterns of the only node classes that the key's own workflows may use; they must be allowed by "
            "GATEWAY_NODES_ALLOW too."
        ),
        "deliver_to": nullable(
            {
                "type": "string",
                "pattern": f"^{TARGET_NAME.pattern}$",
                "description": "One of GATEWAY_DELIVERY_TARGETS: where the outputs of the key's jobs are put, unless a job says "
                "a URL.",
            }
        ),
    }


def grant_fields() -> Mapping[str, Schema]:
    """What gives credits."""
    return {
        "user": _name("Who gets them."),
        "credits": {"type": "integer", "minimum": 0, "maximum": MAX_CREDITS},
        "purse": {"enum": list(Purse), "default": Purse.PERMANENT.value},
    }


def operations() -> dict[str, Operation]:
    """All of them."""
    return {**_users_and_keys(), **_credits()}


def _users_and_keys() -> dict[str, Operation]:
    overlap = _number(keys.MAX_OVERLAP_SECONDS, 0, "How long the old text opens as well.")
    return {
        "GET /-/users": Operation(
            id="list_users",
            tag=TAG,
            summary="Users, the oldest first",
            parameters=(_AFTER,),
            answers=(json_answer(200, "A page.", Users, {"page": {"users": [_USER], "next": None}}),),
        ),
        "POST /-/users": Operation(
            id="create_user",
            tag=TAG,
            summary="Make a user",
            body=Body({JSON: Content(closed(user_fields(), ("name",)), {"ada": {"name": "ada"}})}),
            answers=(json_answer(201, "The user.", User, {"ada": _USER}),),
            raises=(ConflictError,),
        ),
        "GET /-/keys": Operation(
            id="list_keys",
            tag=TAG,
            summary="Keys, the oldest first; revoked ones too",
            parameters=(_AFTER,),
            answers=(json_answer(200, "A page.", Keys, {"page": {"keys": [_KEY], "next": None}}),),
        ),
        "POST /-/keys": Operation(
            id="create_key",
            tag=TAG,
            summary="Make a key, whose text is told now and never again",
            body=Body(
                {
                    JSON: Content(
                        closed(key_fields(), ("name",)), {"laptop": {"name": "laptop", "user": "ada", "credits": 100}}
                    )
                }
            ),
            answers=(json_answer(201, "The key.", NewKey, {"laptop": _TOLD}),),
            raises=(NotFoundError, ConflictError),
        ),
        "DELETE /-/keys/{id}": Operation(
            id="revoke_key",
            tag=TAG,
            summary="Have a key open nothing from now on",
            parameters=(_KEY_ID,),
            answers=(json_answer(200, "The key.", Key, {"revoked": {**_KEY, "revoked_at": _MOMENT}}),),
            raises=(NotFoundError,),
        ),
        "POST /-/keys/{id}/rotate": Operation(
            id="rotate_key",
            tag=TAG,
            summary="Give a key a new text",
            parameters=(_KEY_ID,),
            body=Body(
                {JSON: Content(closed({"overlap_seconds": overlap}), {"a day of both": {"overlap_seconds": 86_400}})},
                is_required=False,
            ),
            answers=(json_answer(200, "The key.", NewKey, {"rotated": _TOLD}),),
            raises=(NotFoundError, ConflictError),
        ),
    }


def _credits() -> dict[str, Operation]:
    return {
        "GET /-/credits": Operation(
            id="get_credits",
            tag=TAG,
            summary="What a user has, and why",
            parameters=(Parameter("user", "The user's name.", is_required=True, example="ada"),),
            answers=(json_answer(200, "The user's credits.", Statement, {"ada": _STATEMENT}),),
            raises=(NotFoundError,),
        ),
        "POST /-/credits": Operation(
            id="grant_credits",
            tag=TAG,
            summary="Give a user credits",
            body=Body(
                {JSON: Content(closed(grant_fields(), ("user", "credits")), {"100": {"user": "ada", "credits": 100}})}
            ),
            answers=(json_answer(201, "What the user has now.", Statement, {"ada": _STATEMENT}),),
            raises=(NotFoundError,),
        ),
    }


#: The tables that bodies are read by -> what is said of them; a test holds them together.
TABLES: Final = (
    (keys.USER_FIELDS, user_fields),
    (keys.KEY_FIELDS, key_fields),
    (credit_routes.FIELDS, grant_fields),
)
