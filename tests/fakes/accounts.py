"""``interfaces.AccountStore`` in memory. Unrealistic: nothing is checked but names; ``asked`` tells what was looked up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gateway.accounts import Key, Keyholder, User
from gateway.errors import ConflictError, NotFoundError


class MemoryAccounts:
    """See the module."""

    def __init__(self) -> None:
        self.by_name: dict[str, User] = {}
        self.by_id: dict[str, Key] = {}
        #: Hash -> (id of the key, until when).
        self.hashes: dict[str, tuple[str, float]] = {}
        self.asked: list[str] = []

    async def create_user(self, user: User) -> None:
        if user.name in self.by_name:
            raise ConflictError("There is a user of that name already.", field="name")
        self.by_name[user.name] = user

    async def users(self, *, after: str, limit: int) -> Sequence[User]:
        return sorted((user for user in self.by_name.values() if user.id > after), key=lambda user: user.id)[:limit]

    async def user_named(self, name: str) -> User | None:
        return self.by_name.get(name)

    async def create_key(self, key: Key, key_hash: str, *, new_user: User | None = None) -> Keyholder:
        if new_user is not None:
            key = replace(key, user_id=self.by_name.setdefault(new_user.name, new_user).id)
        if key.user_id not in {user.id for user in self.by_name.values()}:
            raise NotFoundError("There is no such user.", field="user")
        self.by_id[key.id] = key
        self.hashes[key_hash] = (key.id, float("inf"))
        return self._holder(key.id)

    async def keyholder(self, key_hash: str, *, now: float) -> Keyholder | None:
        self.asked.append(key_hash)
        key_id, until = self.hashes.get(key_hash, ("", 0.0))
        key = self.by_id.get(key_id)
        if key is None or key.revoked_at is not None or now >= min(until, key.expires_at or until):
            return None
        return self._holder(key_id)

    async def key(self, key_id: str) -> Keyholder | None:
        return self._holder(key_id) if key_id in self.by_id else None

    async def keys(self, *, after: str, limit: int) -> Sequence[Keyholder]:
        return [self._holder(key_id) for key_id in sorted(self.by_id) if key_id > after][:limit]

    async def revoke_key(self, key_id: str, *, now: float) -> Keyholder | None:
        if key_id not in self.by_id:
            return None
        key = self.by_id[key_id]
        self.by_id[key_id] = replace(key, revoked_at=now if key.revoked_at is None else key.revoked_at)
        return self._holder(key_id)

    async def rotate_key(
        self, key_id: str, key_hash: str, prefix: str, *, old_until: float, now: float
    ) -> Keyholder | None:
        if key_id not in self.by_id:
            return None
        self.by_id[key_id] = replace(self.by_id[key_id], prefix=prefix)
        for known, (owner, until) in self.hashes.items():
            if owner == key_id:
                self.hashes[known] = (key_id, old_until if until == float("inf") else now)
        self.hashes[key_hash] = (key_id, float("inf"))
        return self._holder(key_id)

    async def save_last_used(self, used: Mapping[str, float]) -> None:
        for key_id, at in used.items():
            self.by_id[key_id] = replace(self.by_id[key_id], last_used_at=at)

    def _holder(self, key_id: str) -> Keyholder:
        key = self.by_id[key_id]
        return Keyholder(key, next(user for user in self.by_name.values() if user.id == key.user_id))
