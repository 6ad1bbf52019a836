"""Tickets: what a browser shows where it can send no header, because EventSource and WebSocket take an address alone.

A ticket opens one path, once, within a minute, for the caller who asked for it. So it may stand in a query: whoever finds it
in some log has a thing that is used up. It is kept in memory only; after a restart clients ask for another.
"""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from starlette.routing import compile_path

from gateway.api.auth import Caller
from gateway.errors import BusyError, InvalidInputError
from gateway.interfaces import Clock

LIFE_SECONDS: Final = 60
#: Unused ones, a few hundred bytes each. Of one owner the oldest gives way, so that nobody takes everybody's room.
MAX_TICKETS: Final = 4096
MAX_PER_OWNER: Final = 64
#: The name of the query's field.
FIELD: Final = "ticket"
_RANDOM_BYTES: Final = 24
#: Visible ASCII but "#" and "?".
_PATH: Final = re.compile(r"/[\x21\x22\x24-\x3e\x40-\x7e]{1,511}")


@dataclass(frozen=True, slots=True)
class Ticket:
    """Who may open what until when."""

    caller: Caller
    path: str
    #: Monotonic seconds.
    until: float


class Tickets:
    """Those that were given out and not used.

    Args:
        clock: for how long they live.
        paths: of the endpoints that take one, with names in braces.
    """

    def __init__(self, clock: Clock, paths: Iterable[str]) -> None:
        self._clock = clock
        self._places: tuple[re.Pattern[str], ...] = tuple(compile_path(path)[0] for path in paths)
        self._issued: OrderedDict[str, Ticket] = OrderedDict()

    def issue(self, caller: Caller, path: str) -> str:
        """A new ticket for a path.

        Raises:
            InvalidInputError: nothing at that path takes one.
            BusyError: too many are out.
        """
        if _PATH.fullmatch(path) is None or not any(place.fullmatch(path) for place in self._places):
            raise InvalidInputError("path is that of an event stream or a WebSocket, without a query.", field="path")
        self._make_room(caller.owner)
        text = secrets.token_urlsafe(_RANDOM_BYTES)
        self._issued[text] = Ticket(caller, path, self._clock.monotonic() + LIFE_SECONDS)
        return text

    def redeem(self, text: str, path: str) -> Caller | None:
        """Who asked for this ticket, which is used up by that; None when it opens nothing here."""
        ticket = self._issued.pop(text, None)
        if ticket is None or ticket.path != path or ticket.until <= self._clock.monotonic():
            return None
        return ticket.caller

    def _make_room(self, owner: str) -> None:
        now = self._clock.monotonic()
        while self._issued and next(iter(self._issued.values())).until <= now:
            self._issued.popitem(last=False)
        own = [text for text, ticket in self._issued.items() if ticket.caller.owner == owner]
        if len(own) >= MAX_PER_OWNER:
            del self._issued[own[0]]
        elif len(self._issued) >= MAX_TICKETS:
            raise BusyError("As many tickets are out as may be; try again in a moment.")
