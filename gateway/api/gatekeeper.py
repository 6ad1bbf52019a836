"""Finds out who calls: what is presented, whose it is, whether it opens what was asked for.

The rules are those of ``auth.Doors``; here is the one question that needs the store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.types import Scope

from gateway.accounts import Keyholder
from gateway.api.auth import Access, Caller, Doors, caller_of
from gateway.api.facade import Accounts
from gateway.api.knocks import Knocks
from gateway.api.tickets import FIELD, Tickets
from gateway.errors import InvalidKeyError, RateLimitedError, UnauthorizedError
from gateway.interfaces import Clock

_NO_TICKET: Final = (
    "This ticket opens nothing: it was used, is over a minute old, or is for another path. Ask for another."
)


@dataclass(frozen=True, slots=True)
class Knock:
    """A request or socket, as far as it says who asks."""

    headers: Headers
    peer: str | None
    path: str
    subprotocols: Sequence[str] = ()
    #: Given where one is taken.
    ticket: str | None = None

    @classmethod
    def of(cls, scope: Scope, *, takes_ticket: bool) -> Knock:
        """What a scope says."""
        client = scope.get("client")
        return cls(
            Headers(scope=scope),
            client[0] if client else None,
            scope["path"],
            scope.get("subprotocols", ()),
            _ticket_in(scope["query_string"]) if takes_ticket else None,
        )


def _ticket_in(query: bytes) -> str | None:
    if FIELD.encode() not in query:
        return None
    # Several are none: whoever sends two means neither.
    given = parse_qs(query.decode("latin-1"), keep_blank_values=True).get(FIELD)
    return None if given is None else given[0] if len(given) == 1 else ""


def _count_nothing(_caller: Caller | None) -> None:
    """Nobody has a limit."""


class Gatekeeper:
    """Stands in front of every endpoint.

    Args:
        doors: the rules.
        accounts: knows keys.
        tickets: those that are out.
        clock: for how often somebody may be wrong.
    """

    def __init__(self, doors: Doors, accounts: Accounts, tickets: Tickets, clock: Clock) -> None:
        self.doors = doors
        self._accounts = accounts
        self._tickets = tickets
        self._knocks = Knocks(clock)

    async def caller(
        self, access: Access, knock: Knock, *, count: Callable[[Caller | None], None] = _count_nothing
    ) -> Caller | None:
        """Who calls an endpoint of this access; None where a public one was asked by a stranger in keys mode.

        Args:
            access: of the endpoint.
            knock: the request.
            count: told who asks for what is not public, before it is decided whether that may be had; it may refuse.

        Raises:
            UnauthorizedError: a key is needed and none was shown, or it is malformed; or the ticket opens nothing.
            InvalidKeyError: the key opens nothing.
            RateLimitedError: too many wrong ones came from there, or what ``count`` refuses.
            ForbiddenError: the key may not do this.
        """
        shown = self._shown(access, knock)
        if knock.ticket is not None:
            found: Caller | None = await self._by_ticket(knock, has_shown=shown is not None)
        else:
            found = await self._by_key(access, knock, shown)
        if access is not Access.PUBLIC:
            count(found)
        self.doors.require_access(access, found, has_shown=shown is not None or knock.ticket is not None)
        return found

    def _shown(self, access: Access, knock: Knock) -> str | None:
        try:
            return self.doors.presented(knock.headers, knock.subprotocols)
        except UnauthorizedError:
            if self.doors.matters(access, None):
                raise
            return None

    async def _by_key(self, access: Access, knock: Knock, shown: str | None) -> Caller | None:
        is_admin = self.doors.is_admin_token(shown)
        caller = self.doors.stranger(knock.headers, knock.peer, is_admin=is_admin)
        if shown is None or is_admin:
            return caller
        if self.doors.matters(access, shown):
            return caller_of(await self._holder(shown, knock))
        if caller is None:  # anybody may have it; whoever is known may see more
            with suppress(InvalidKeyError, RateLimitedError):
                caller = caller_of(await self._holder(shown, knock))
        return caller

    async def _holder(self, shown: str, knock: Knock) -> Keyholder:
        holder = await self._accounts.keyholder(shown)
        if holder is None:
            self._note_failure(knock)
            raise InvalidKeyError
        return holder

    async def _by_ticket(self, knock: Knock, *, has_shown: bool) -> Caller:
        if has_shown:
            raise UnauthorizedError("Send a key or a ticket, not both.")
        caller = self._tickets.redeem(knock.ticket or "", knock.path)
        if caller is not None and caller.key is not None:
            # Revoked meanwhile, it opens nothing, and neither does what it was exchanged for.
            holder = await self._accounts.keyholder_with(caller.key.id)
            caller = None if holder is None else caller_of(holder)
        if caller is None:
            self._note_failure(knock)
            raise UnauthorizedError(_NO_TICKET)
        return caller

    def _note_failure(self, knock: Knock) -> None:
        self._knocks.failed(self.doors.client_address(knock.headers, knock.peer))
