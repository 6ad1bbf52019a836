"""Finds out who calls: what is presented, whose it is, whether it opens what was asked for.

The rules are those of ``auth.Doors``; here is the one question that needs the store.
"""

from __future__ import annotations

from contextlib import suppress

from starlette.datastructures import Headers

from gateway.accounts import Keyholder
from gateway.api.auth import Access, Caller, Doors, caller_of
from gateway.api.facade import Accounts
from gateway.api.knocks import Knocks
from gateway.errors import InvalidKeyError, RateLimitedError, UnauthorizedError
from gateway.interfaces import Clock


class Gatekeeper:
    """Stands in front of every endpoint.

    Args:
        doors: the rules.
        accounts: knows keys.
        clock: for how often somebody may be wrong.
    """

    def __init__(self, doors: Doors, accounts: Accounts, clock: Clock) -> None:
        self.doors = doors
        self._accounts = accounts
        self._knocks = Knocks(clock)

    async def caller(self, access: Access, headers: Headers, peer: str | None) -> Caller | None:
        """Who calls an endpoint of this access; None where a public one was asked by a stranger in keys mode.

        Raises:
            UnauthorizedError: a key is needed and none was shown, or it is malformed.
            InvalidKeyError: the key opens nothing.
            RateLimitedError: too many wrong ones came from there.
            ForbiddenError: the key may not do this.
        """
        shown = self._shown(access, headers)
        is_admin = self.doors.is_admin_token(shown)
        caller = self.doors.stranger(headers, peer, is_admin=is_admin)
        if shown is not None and not is_admin:
            if self.doors.matters(access, shown):
                caller = caller_of(await self._holder(shown, headers, peer))
            elif caller is None:  # anybody may have it; whoever is known may see more
                with suppress(InvalidKeyError, RateLimitedError):
                    caller = caller_of(await self._holder(shown, headers, peer))
        self.doors.require_access(access, caller, has_shown=shown is not None)
        return caller

    def _shown(self, access: Access, headers: Headers) -> str | None:
        try:
            return self.doors.presented(headers)
        except UnauthorizedError:
            if self.doors.matters(access, None):
                raise
            return None

    async def _holder(self, shown: str, headers: Headers, peer: str | None) -> Keyholder:
        holder = await self._accounts.keyholder(shown)
        if holder is None:
            self._knocks.failed(self.doors.client_address(headers, peer))
            raise InvalidKeyError
        return holder
