"""Where a job's files are to go, said when it is made; and what owners and operators may ask about deliveries.

A job's own word comes before its key's, and that before its template's. Clients name targets by their names alone, and a
key that has a target may name no other. A URL is judged by the guard that judges inputs and webhooks, its name resolved
once; it is judged again when it is called. From here on it is kept sealed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from gateway.delivering import (
    FIELD,
    Chosen,
    Delivery,
    DeliveryState,
    Destination,
    Named,
    shown_place,
    to_named,
    to_urls,
    wish_of,
)
from gateway.errors import InvalidInputError, NotFoundError, SourceUnreachableError
from gateway.interfaces import AccountStore, Clock, DeliveryStore, DeliveryTarget, Sealer
from gateway.job import Job, JobState

U = TypeVar("U")


class UrlGuard(Protocol[U]):
    """Judges URLs; ``U`` is one whose text was judged."""

    def check(self, url: str, *, field: str, https_only: bool = False) -> U:
        """The verdict that needs no network. Raises InvalidInputError."""
        ...

    async def require_public(self, url: U, *, field: str) -> None:
        """Resolve its host and judge every address. Raises SourceUnreachableError."""
        ...


class Deliveries:
    """The owners' side of deliveries.

    Args:
        store: where they are.
        accounts: which target a key has.
        targets: the operator's, by name.
        sealer: makes URLs unreadable.
        clock: time.
        guard: of URLs; None: none are taken.
        on_delivery: called when there is something to be delivered.
        on_change: called when what is told of some job is another thing without an event.
    """

    def __init__(
        self,
        store: DeliveryStore,
        accounts: AccountStore,
        targets: Mapping[str, DeliveryTarget],
        sealer: Sealer,
        clock: Clock,
        *,
        guard: UrlGuard[Any] | None,
        on_delivery: Callable[[], None],
        on_change: Callable[[], None],
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._targets = targets
        self._sealer = sealer
        self._clock = clock
        self._guard = guard
        self._on_delivery = on_delivery
        self._on_change = on_change

    # ------------------------------------------------------------------------------------------------------ submitting

    async def wish(self, destination: Destination, owner: str, *, field: str = FIELD) -> Mapping[str, object]:
        """What a job's ``extra`` holds of where its client wants its files.

        Args:
            destination: as read.
            owner: whose job it is.
            field: the request field, for errors.

        Raises:
            InvalidInputError: there is no such target, this key may not name it, or a URL is refused.
        """
        if isinstance(destination, Named):
            of_key = await self._of_key(owner)
            # One sentence for both: which targets there are for others is not for this key to know.
            if destination.name not in self._targets or of_key not in {None, destination.name}:
                raise InvalidInputError("There is no such target.", field=field)
            return to_named(destination.name, Chosen.JOB)
        await self._judge(destination.urls, field)
        sealed = [self._sealer.seal(owner, url.encode()).hex() for url in destination.urls]
        places = [shown_place(url) for url in destination.urls]
        return to_urls(sealed, places, [_host_of(url) for url in destination.urls])

    async def _judge(self, urls: Sequence[str], field: str) -> None:
        guard = self._guard
        if guard is None:
            raise InvalidInputError("This gateway puts nothing to URLs.", field=field)
        checked = [guard.check(url, field=field, https_only=True) for url in urls]
        # A look-up for each host, all at once: each has its time-out, and a client may name dozens.
        hosts = dict(zip(map(_host_of, urls), checked, strict=True))
        looks = (guard.require_public(one, field=field) for one in hosts.values())
        for outcome in await asyncio.gather(*looks, return_exceptions=True):
            if isinstance(outcome, SourceUnreachableError):
                raise InvalidInputError("The URL was refused: it leads where we do not go.", field=field) from outcome
            if isinstance(outcome, BaseException):
                raise outcome

    async def with_default(self, extra: Mapping[str, object], owner: str, template: str | None) -> Mapping[str, object]:
        """A job's ``extra`` with where its files go, where the client has not said so: by its key, by its template.

        Args:
            extra: of the job.
            owner: whose it is.
            template: the target that its template names.
        """
        if FIELD in extra:
            return extra
        if (of_key := await self._of_key(owner)) is not None:
            return {**extra, FIELD: to_named(of_key, Chosen.KEY)}
        return extra if template is None else {**extra, FIELD: to_named(template, Chosen.TEMPLATE)}

    async def _of_key(self, owner: str) -> str | None:
        if not self._targets:
            return None
        holder = await self._accounts.key(owner)
        return None if holder is None else holder.key.deliver_to

    # --------------------------------------------------------------------------------------------------------- looking

    async def of(self, jobs: Sequence[Job]) -> Mapping[str, Sequence[Delivery]]:
        """Deliveries by job, of those jobs that have any; each job's in the order of its outputs."""
        wanted = [job.id for job in jobs if job.state is JobState.SUCCEEDED and wish_of(job) is not None]
        found: dict[str, list[Delivery]] = {}
        for delivery in await self._store.of_jobs(wanted) if wanted else ():
            found.setdefault(delivery.job_id, []).append(delivery)
        return found

    async def is_pending(self, job_id: str) -> bool:
        """Whether one of a job's is not over."""
        return await self._store.is_pending(job_id)

    async def listed(
        self, owner: str | None, *, state: DeliveryState | None = None, before: str | None = None, limit: int = 50
    ) -> Sequence[Delivery]:
        """An owner's, or with None everybody's, newest first; none where ``before`` is none of them."""
        return await self._store.listed(owner, state=state, before=before, limit=limit)

    async def redeliver(self, delivery_id: str, owner: str | None) -> Delivery:
        """Have a delivery made now, and by the schedule from its beginning.

        Raises:
            NotFoundError: there is none of this id, or it is somebody else's.
            ConflictError: it has been made, or its file is kept no longer.
        """
        delivery = await self._store.redeliver(delivery_id, owner, now=self._clock.now())
        if delivery is None:
            raise NotFoundError("There is no such delivery.", field="id")
        self._on_change()
        self._on_delivery()
        return delivery


def _host_of(url: str) -> str:
    """Host and port of a judged URL."""
    parts = urlsplit(url)
    return f"{parts.hostname or ''}:{parts.port or 443}"
