"""What a bucket does not do, as far as was tried: kept by kinds of requests, since one may be refused and all others work."""

from __future__ import annotations

import structlog

from gateway.interfaces import Trouble

log = structlog.get_logger(__name__)


class Troubles:
    """Those of one bucket.

    Args:
        location: what it is called in the log.
    """

    def __init__(self, location: str) -> None:
        self._location = location
        #: Kind of request -> how the newest of it failed; the newest of all last.
        self._by_kind: dict[str, Trouble] = {}

    def newest(self) -> Trouble | None:
        """The newest failure since which no such request went well."""
        return next(reversed(self._by_kind.values()), None)

    def note(self, kind: str, trouble: Trouble) -> None:
        """A request of this kind was given up."""
        self._by_kind.pop(kind, None)
        self._by_kind[kind] = trouble

    def over(self, kind: str) -> None:
        """One of this kind was answered: so somebody answers, and what was refused of other kinds may still be."""
        if not self._by_kind:
            return
        self._by_kind = {name: each for name, each in self._by_kind.items() if name != kind and each.is_refusal}
        if not self._by_kind:
            log.info("storage_works_again", location=self._location)
