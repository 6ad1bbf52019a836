"""``interfaces.AccountStore`` over SQL: each method is one query function in one transaction of an executor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.accounts import Key, Keyholder, User
from gateway.store.executors import Executor
from gateway.store.queries import accounts


class SqlAccounts:
    """Users and keys.

    Args:
        executor: where the queries run; whoever made it closes it.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def create_user(self, user: User) -> None:
        """Store a new user. Raises ConflictError when the name is taken."""
        await self._executor.write(accounts.create_user, user)

    async def users(self, *, after: str, limit: int) -> Sequence[User]:
        """Those with a higher id than ``after``, by id, which is by age."""
        return await self._executor.read(accounts.users, after, limit)

    async def user_named(self, name: str) -> User | None:
        """One by name."""
        return await self._executor.read(accounts.user_named, name)

    async def create_key(self, key: Key, key_hash: str, *, new_user: User | None = None) -> Keyholder:
        """Store a new key; of ``new_user``, who is made if need be. Raises ConflictError, NotFoundError."""
        return await self._executor.write(accounts.create_key, key, key_hash, new_user)

    async def keyholder(self, key_hash: str, *, now: float) -> Keyholder | None:
        """Whose key has this hash; None when nobody's, or when it is revoked or past its time."""
        return await self._executor.read(accounts.keyholder, key_hash, now)

    async def key(self, key_id: str) -> Keyholder | None:
        """One key, revoked or not."""
        return await self._executor.read(accounts.key, key_id)

    async def keys(self, *, after: str, limit: int) -> Sequence[Keyholder]:
        """Those with a higher id than ``after``, by id, which is by age; revoked ones too."""
        return await self._executor.read(accounts.keys, after, limit)

    async def revoke_key(self, key_id: str, *, now: float) -> Keyholder | None:
        """Have it open nothing from now on; None when there is none."""
        return await self._executor.write(accounts.revoke_key, key_id, now)

    async def rotate_key(
        self, key_id: str, key_hash: str, prefix: str, *, old_until: float, now: float
    ) -> Keyholder | None:
        """Give it a new text; the one before opens until ``old_until``. None when there is none. Raises ConflictError."""
        return await self._executor.write(accounts.rotate_key, key_id, key_hash, prefix, old_until, now)

    async def save_last_used(self, used: Mapping[str, float]) -> None:
        """When keys were used last: key id -> Unix seconds."""
        await self._executor.write(accounts.save_last_used, used)
