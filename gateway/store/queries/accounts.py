"""Users and keys. A key's text is never here: what comes in is its hash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson
from sqlalchemy import Connection, bindparam, case, delete, insert, or_, select, text, update
from sqlalchemy.exc import IntegrityError

from gateway.accounts import Key, Keyholder, Scope, User
from gateway.errors import ConflictError, NotFoundError
from gateway.store.queries import by_dialect, change
from gateway.store.rows import AnyRow, Values, to_json
from gateway.store.schema_accounts import IS_NOT_REVOKED, api_keys, key_hashes
from gateway.store.schema_accounts import users as users_table


def create_user(connection: Connection, user: User) -> None:
    """Store a new user. Raises ConflictError when the name is taken."""
    made = connection.execute(_ADD_USER[connection.dialect.name], _user_row(user))
    if not made.rowcount:
        raise ConflictError("There is a user of that name already.", field="name")


def users(connection: Connection, after: str, limit: int) -> Sequence[User]:
    """Those with a higher id than ``after``, by id."""
    return [_user(row) for row in connection.execute(_USERS, {"seen": after, "most": limit})]


def user_named(connection: Connection, name: str) -> User | None:
    """One by name."""
    row = connection.execute(_USER_NAMED, {"wanted": name}).one_or_none()
    return None if row is None else _user(row)


def create_key(connection: Connection, new: Key, key_hash: str, new_user: User | None) -> Keyholder:
    """Store a new key and its hash.

    Args:
        connection: in the transaction.
        new: of the user with its ``user_id``.
        key_hash: of its text.
        new_user: whose key it is instead; stored when there is no user of that name.

    Raises:
        ConflictError: the user has a key of that name that is not revoked.
        NotFoundError: there is no such user.
    """
    if new_user is not None:
        connection.execute(_ADD_USER[connection.dialect.name], _user_row(new_user))
    wanted = _USER if new_user is None else _USER_NAMED
    named = new.user_id if new_user is None else new_user.name
    row = connection.execute(wanted, {"wanted": named}).one_or_none()
    if row is None:
        raise NotFoundError("There is no such user.", field="user")
    try:
        connection.execute(insert(api_keys), _key_row(new) | {"user_id": row.id})
    except IntegrityError as error:
        raise ConflictError("The user has a key of that name: revoke it, or name this one otherwise.") from error
    _add_hash(connection, new.id, key_hash, new.created_at)
    found = connection.execute(_KEY, {"wanted": new.id}).one()
    return _keyholder(found)


def keyholder(connection: Connection, key_hash: str, now: float) -> Keyholder | None:
    """Whose key has this hash; None when nobody's, or when it is revoked or past its time."""
    row = connection.execute(_BY_HASH, {"wanted": key_hash, "now": now}).one_or_none()
    return None if row is None else _keyholder(row)


def key(connection: Connection, key_id: str) -> Keyholder | None:
    """One key, revoked or not."""
    row = connection.execute(_KEY, {"wanted": key_id}).one_or_none()
    return None if row is None else _keyholder(row)


def keys(connection: Connection, after: str, limit: int) -> Sequence[Keyholder]:
    """Those with a higher id than ``after``, by id; revoked ones too."""
    return [_keyholder(row) for row in connection.execute(_KEYS, {"seen": after, "most": limit})]


def revoke_key(connection: Connection, key_id: str, now: float) -> Keyholder | None:
    """Have it open nothing from now on; None when there is none. Again changes nothing."""
    connection.execute(_REVOKE, {"wanted": key_id, "now": now})
    connection.execute(_FORGET_HASHES, {"wanted": key_id})
    return key(connection, key_id)


def rotate_key(
    connection: Connection, key_id: str, key_hash: str, prefix: str, old_until: float, now: float
) -> Keyholder | None:
    """Give it a new text; the one before opens until ``old_until``, an older one no more. None when there is none.

    Raises:
        ConflictError: it is revoked.
    """
    row = connection.execute(_KEY, {"wanted": key_id}).one_or_none()
    if row is None:
        return None
    if row.revoked_at is not None:
        raise ConflictError("The key is revoked: make a new one.")
    connection.execute(_FORGET_OLD, {"wanted": key_id})
    if old_until > now:
        connection.execute(_EXPIRE, {"wanted": key_id, "until": old_until})
    else:
        connection.execute(_FORGET_HASHES, {"wanted": key_id})
    _add_hash(connection, key_id, key_hash, now)
    connection.execute(_RENAME, {"wanted": key_id, "shown": prefix})
    return _keyholder(connection.execute(_KEY, {"wanted": key_id}).one())


def save_last_used(connection: Connection, used: Mapping[str, float]) -> None:
    """When keys were used last; never earlier than what is stored."""
    if used:
        change(connection, _USED, [{"wanted": key_id, "at": at} for key_id, at in used.items()])


def _add_hash(connection: Connection, key_id: str, key_hash: str, now: float) -> None:
    connection.execute(insert(key_hashes), {"hash": key_hash, "key_id": key_id, "created_at": now, "expires_at": None})


def _user_row(user: User) -> Values:
    return {
        "id": user.id,
        "name": user.name,
        "tier": user.tier,
        "email_verified": user.email_verified,
        "created_at": user.created_at,
    }


def _key_row(key: Key) -> Values:
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "rate_limit": key.rate_limit,
        "concurrency": key.concurrency,
        "scopes": to_json(sorted(key.scopes)),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
        "nodes_deny": _list(key.nodes_deny),
        "nodes_allow": _list(key.nodes_allow),
        "deliver_to": key.deliver_to,
    }


def _list(patterns: frozenset[str] | None) -> str | None:
    return None if patterns is None else to_json(sorted(patterns))


def _patterns(kept: str | None) -> frozenset[str] | None:
    return None if kept is None else frozenset(orjson.loads(kept))


def _user(row: AnyRow) -> User:
    return User(row.id, row.name, row.tier, row.email_verified, row.created_at)


def _keyholder(row: AnyRow) -> Keyholder:
    """Of all columns of ``api_keys``, and the user's under labels of their own."""
    key = Key(
        id=row.id,
        user_id=row.user_id,
        name=row.name,
        prefix=row.prefix,
        rate_limit=row.rate_limit,
        concurrency=row.concurrency,
        scopes=frozenset(Scope(word) for word in orjson.loads(row.scopes)),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
        nodes_deny=_patterns(row.nodes_deny),
        nodes_allow=_patterns(row.nodes_allow),
        deliver_to=row.deliver_to,
    )
    user = User(row.user_id, row.user_name, row.user_tier, row.user_email_verified, row.user_created_at)
    return Keyholder(key, user)


_ADD_USER = by_dialect(lambda insert_into: insert_into(users_table).on_conflict_do_nothing(index_elements=["name"]))
_USERS = (
    select(users_table).where(users_table.c.id > bindparam("seen")).order_by(users_table.c.id).limit(bindparam("most"))
)
_USER = select(users_table).where(users_table.c.id == bindparam("wanted"))
_USER_NAMED = select(users_table).where(users_table.c.name == bindparam("wanted"))
_HOLDERS = select(
    api_keys,
    users_table.c.name.label("user_name"),
    users_table.c.tier.label("user_tier"),
    users_table.c.email_verified.label("user_email_verified"),
    users_table.c.created_at.label("user_created_at"),
).join(users_table, users_table.c.id == api_keys.c.user_id)
_KEY = _HOLDERS.where(api_keys.c.id == bindparam("wanted"))
_KEYS = _HOLDERS.where(api_keys.c.id > bindparam("seen")).order_by(api_keys.c.id).limit(bindparam("most"))
_BY_HASH = _HOLDERS.join(key_hashes, key_hashes.c.key_id == api_keys.c.id).where(
    key_hashes.c.hash == bindparam("wanted"),
    or_(key_hashes.c.expires_at.is_(None), key_hashes.c.expires_at > bindparam("now")),
    api_keys.c.revoked_at.is_(None),
    or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > bindparam("now")),
)
_REVOKE = (
    update(api_keys)
    .where(api_keys.c.id == bindparam("wanted"), text(IS_NOT_REVOKED))
    .values(revoked_at=bindparam("now"))
)
_RENAME = update(api_keys).where(api_keys.c.id == bindparam("wanted")).values(prefix=bindparam("shown"))
_FORGET_HASHES = delete(key_hashes).where(key_hashes.c.key_id == bindparam("wanted"))
_FORGET_OLD = _FORGET_HASHES.where(key_hashes.c.expires_at.is_not(None))
_EXPIRE = update(key_hashes).where(key_hashes.c.key_id == bindparam("wanted")).values(expires_at=bindparam("until"))
_USED = (
    update(api_keys)
    .where(api_keys.c.id == bindparam("wanted"))
    # No value is not later than one: the first comes by "else".
    .values(
        last_used_at=case((api_keys.c.last_used_at > bindparam("at"), api_keys.c.last_used_at), else_=bindparam("at"))
    )
)
