"""Inputs given as URLs: judged at once, fetched together before the job is made. Dialects share it.

A fetch is bounded in time and size by the guard behind ``Service.fetch_url``; until every input lies in the store there is
no job, and when one cannot be had, the others are given up and what was there already is taken back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gateway.api.facade import Service, SubmittedFile
from gateway.audit import MediaKind
from gateway.errors import ShuttingDownError


@dataclass(frozen=True, slots=True)
class UrlInput:
    """An input that somebody else has."""

    #: Exactly as the client sent it; never logged.
    url: str
    #: The request field it came in.
    field: str
    kinds: frozenset[MediaKind]
    #: Refuse http even where the allow-list permits it, redirects included.
    https_only: bool = False
    #: For the whole fetch; None: what the guard allows.
    deadline_seconds: float | None = None


def check_urls(service: Service, urls: Iterable[UrlInput]) -> None:
    """The verdicts that need no network. Raises InvalidInputError."""
    for given in urls:
        service.check_url(given.url, field=given.field, https_only=given.https_only)


async def with_urls(
    service: Service, files: Mapping[str, SubmittedFile], urls: Mapping[str, UrlInput]
) -> dict[str, SubmittedFile]:
    """All inputs by role, those given as URLs fetched. Whatever goes wrong, the bytes of all are taken back.

    Raises:
        ShuttingDownError: the gateway stops: no job would be made of them.
        GatewayError: an input could not be fetched or is not what it should be.
    """
    fetches: dict[str, asyncio.Task[SubmittedFile]] = {}
    try:
        if urls:
            _require_going_on(service)
            for role, given in urls.items():
                fetches[role] = asyncio.create_task(_fetch(service, given), name=f"fetch of {given.field}")
            await _ended_or_stopped(service, fetches.values())
            _require_going_on(service)
        # After a failure some are still under way; of several failures the first in order is told.
        return {**files, **{role: fetch.result() for role, fetch in fetches.items() if fetch.done()}}
    except BaseException:  # also when the client left: nobody else knows of these bytes
        await asyncio.shield(_take_back(service, files.values(), tuple(fetches.values())))
        raise


async def _ended_or_stopped(service: Service, fetches: Iterable[asyncio.Task[SubmittedFile]]) -> None:
    """Come back when all fetches have ended, one has failed, or the gateway stops."""
    ended = asyncio.create_task(asyncio.wait(fetches, return_when=asyncio.FIRST_EXCEPTION), name="end of fetches")
    stopped = asyncio.create_task(service.stopping.wait(), name="stop during fetches")
    try:
        await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (ended, stopped):
            task.cancel()
        await asyncio.gather(ended, stopped, return_exceptions=True)


def _require_going_on(service: Service) -> None:
    if service.stopping.is_set():
        raise ShuttingDownError("The gateway is stopping; send this again in a moment.", retry_after_seconds=10)


async def _fetch(service: Service, given: UrlInput) -> SubmittedFile:
    return await service.fetch_url(
        given.url,
        field=given.field,
        kinds=given.kinds,
        https_only=given.https_only,
        deadline_seconds=given.deadline_seconds,
    )


async def _take_back(
    service: Service, files: Iterable[SubmittedFile], fetches: tuple[asyncio.Task[SubmittedFile], ...]
) -> None:
    for fetch in fetches:
        fetch.cancel()
    ended = await asyncio.gather(*fetches, return_exceptions=True)
    fetched = [outcome for outcome in ended if not isinstance(outcome, BaseException)]
    await service.discard([given.blob for given in (*files, *fetched)])
