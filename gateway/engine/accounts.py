"""Users and keys: made, found by what somebody presents, rotated, revoked.

A key that was found good is believed for half a second, so that a client that asks a hundred times a second costs two
look-ups. What is revoked or rotated through here is forgotten at once; whoever else changes the store is heard of after
that half second. What was not found is asked for again each time: a text that cannot be a key is known without asking.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from gateway.accounts import (
    DEFAULT_CONCURRENCY,
    DEFAULT_RATE_LIMIT,
    DEFAULT_SCOPES,
    DEFAULT_TIER,
    MAX_CONCURRENCY,
    MAX_RATE_LIMIT,
    RANDOM_BYTES,
    Key,
    Keyholder,
    KeyKind,
    Scope,
    User,
    checked_name,
    checked_number,
    checked_patterns,
    checked_tier,
    hash_of,
    is_key_text,
    key_text,
    shown_prefix,
)
from gateway.delivering import checked_name as checked_name_of_target
from gateway.errors import GatewayError, InvalidInputError, NotFoundError
from gateway.interfaces import AccountStore, Clock

log = structlog.get_logger(__name__)

#: How long a key that was found good is believed: the bound on how late a revocation from elsewhere is heard of.
BELIEVED_SECONDS: Final = 0.5
#: Keys believed at a time, some hundred bytes each.
MAX_BELIEVED: Final = 4096
#: Users or keys listed at a time.
PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a key is made with."""

    name: str
    #: Name of a user that there is; None: the user named as the key, made if need be.
    user: str | None = None
    rate_limit: int = DEFAULT_RATE_LIMIT
    concurrency: int = DEFAULT_CONCURRENCY
    scopes: frozenset[Scope] = DEFAULT_SCOPES
    kind: KeyKind = KeyKind.LIVE
    #: Unix seconds; None: it does not end by itself.
    expires_at: float | None = None
    #: Patterns of node classes, as ``Key`` has them; None: no list of its own.
    nodes_deny: Sequence[str] | None = None
    nodes_allow: Sequence[str] | None = None
    #: Name of a target.
    deliver_to: str | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """A key with its text, which nobody can be told a second time."""

    holder: Keyholder
    text: str

    def __repr__(self) -> str:
        """Without the text, wherever it may be printed."""
        return f"Told({self.holder!r})"


class Accounts:
    """The engine's book of users and keys.

    Args:
        store: where it is kept.
        clock: for what is shown, and for how long a key is believed.
        new_id: makes ids.
        random_bytes: makes keys; tests hand in their own.
    """

    def __init__(
        self,
        store: AccountStore,
        clock: Clock,
        new_id: Callable[[], str],
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._random_bytes = random_bytes
        #: Hash -> who, and until when that is believed (monotonic seconds).
        self._believed: OrderedDict[str, tuple[Keyholder, float]] = OrderedDict()
        #: Raised by each change: what was read before one is not believed after it.
        self._changes = 0
        self._used: dict[str, float] = {}

    # ------------------------------------------------------------------------------------------------- who presents it

    async def keyholder(self, text: str) -> Keyholder | None:
        """Who presents this key; None when it is nobody's, revoked, past its time, or no key at all."""
        if not is_key_text(text):
            return None
        key_hash = hash_of(text)
        holder = self._known(key_hash)
        if holder is None:
            changes = self._changes
            holder = await self._store.keyholder(key_hash, now=self._clock.now())
            if holder is None:
                return None
            if changes == self._changes:
                self._believe(key_hash, holder)
        self._used[holder.key.id] = self._clock.now()
        return holder

    async def keyholder_with(self, key_id: str) -> Keyholder | None:
        """Who has the key with this id, while it opens anything; always asked of the store."""
        holder = await self._store.key(key_id)
        return holder if holder is not None and holder.key.is_live(self._clock.now()) else None

    def _known(self, key_hash: str) -> Keyholder | None:
        holder, until = self._believed.get(key_hash, (None, 0.0))
        return holder if self._clock.monotonic() < until else None

    def _believe(self, key_hash: str, holder: Keyholder) -> None:
        self._believed[key_hash] = (holder, self._clock.monotonic() + BELIEVED_SECONDS)
        self._believed.move_to_end(key_hash)
        if len(self._believed) > MAX_BELIEVED:
            self._believed.popitem(last=False)

    def _forget(self) -> None:
        self._changes += 1
        self._believed.clear()

    async def save_last_used(self) -> None:
        """Store when keys were used last."""
        used, self._used = self._used, {}
        if used:
            await self._store.save_last_used(used)

    async def close(self) -> None:
        """Store what is known in memory alone."""
        try:
            await self.save_last_used()
        except GatewayError as error:  # taken over, or no room: it is not worth more than a line
            log.warning("last_use_of_keys_not_saved", reason=error.code)

    # ----------------------------------------------------------------------------------------------------- the operator

    async def create_user(self, name: str, *, tier: str = DEFAULT_TIER, email_verified: bool = False) -> User:
        """Make a user. Raises InvalidInputError, ConflictError."""
        user = self._new_user(name, checked_tier(tier), email_verified=email_verified)
        await self._store.create_user(user)
        return user

    async def users(self, *, after: str = "", limit: int = PAGE) -> Sequence[User]:
        """Those made after the one with the id ``after``, the oldest first."""
        return await self._store.users(after=after, limit=limit)

    async def create_key(self, new: NewKey) -> Told:
        """Make a key; its text is told now and never again.

        Raises:
            InvalidInputError: a name, limit or pattern cannot be.
            NotFoundError: there is no such user.
            ConflictError: the user has a key of that name.
        """
        now = self._clock.now()
        if new.expires_at is not None and new.expires_at <= now:
            raise InvalidInputError("The key would have ended already.", field="expires_at")
        user = None if new.user is None else await self._user(new.user)
        text = key_text(new.kind, self._random_bytes(RANDOM_BYTES))
        key = Key(
            id=self._new_id(),
            user_id="" if user is None else user.id,
            name=checked_name(new.name, "name"),
            prefix=shown_prefix(text),
            rate_limit=checked_number(new.rate_limit, "rate_limit", MAX_RATE_LIMIT),
            concurrency=checked_number(new.concurrency, "concurrency", MAX_CONCURRENCY),
            scopes=new.scopes,
            created_at=now,
            expires_at=new.expires_at,
            nodes_deny=_patterns(new.nodes_deny, "nodes_deny"),
            nodes_allow=_patterns(new.nodes_allow, "nodes_allow"),
            deliver_to=None if new.deliver_to is None else checked_name_of_target(new.deliver_to, "deliver_to"),
        )
        made = self._new_user(new.name, DEFAULT_TIER, email_verified=False) if user is None else None
        return Told(await self._store.create_key(key, hash_of(text), new_user=made), text)

    async def keys(self, *, after: str = "", limit: int = PAGE) -> Sequence[Keyholder]:
        """Those made after the one with the id ``after``, the oldest first; revoked ones too."""
        return await self._store.keys(after=after, limit=limit)

    async def revoke_key(self, key_id: str) -> Keyholder:
        """Have a key open nothing from now on; what it started goes on. Again changes nothing. Raises NotFoundError."""
        holder = await self._store.revoke_key(key_id, now=self._clock.now())
        self._forget()
        return _found(holder)

    async def rotate_key(self, key_id: str, *, overlap_seconds: float = 0.0) -> Told:
        """Give a key a new text; the one before it opens for ``overlap_seconds`` more, any older one no longer.

        Raises:
            NotFoundError: there is no such key.
            ConflictError: it is revoked.
            InvalidInputError: the overlap is negative.
        """
        if overlap_seconds < 0:
            raise InvalidInputError("The overlap is a number of seconds, 0 or more.", field="overlap_seconds")
        now = self._clock.now()
        known = _found(await self._store.key(key_id))
        text = key_text(known.key.kind, self._random_bytes(RANDOM_BYTES))
        holder = await self._store.rotate_key(
            key_id, hash_of(text), shown_prefix(text), old_until=now + overlap_seconds, now=now
        )
        self._forget()
        return Told(_found(holder), text)

    async def _user(self, name: str) -> User:
        user = await self._store.user_named(name)
        if user is None:
            raise NotFoundError("There is no such user.", field="user")
        return user

    def _new_user(self, name: str, tier: str, *, email_verified: bool) -> User:
        return User(self._new_id(), checked_name(name, "name"), tier, email_verified, self._clock.now())


def _patterns(patterns: Sequence[str] | None, field: str) -> frozenset[str] | None:
    return None if patterns is None else checked_patterns(patterns, field)


def _found(holder: Keyholder | None) -> Keyholder:
    if holder is None:
        raise NotFoundError("There is no such key.", field="id")
    return holder
