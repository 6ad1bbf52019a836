"""Inputs given as URLs: judged at once, fetched before the job is made. Dialects share it.

A fetch is bounded in time and size by the guard behind ``Service.fetch_url``; until every input lies in the store there is
no job, and when one cannot be had, what was there already is taken back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gateway.api.facade import Service, SubmittedFile
from gateway.audit import MediaKind


@dataclass(frozen=True, slots=True)
class UrlInput:
    """An input that somebody else has."""

    #: Exactly as the client sent it; never logged.
    url: str
    #: The request field it came in.
    field: str
    kinds: frozenset[MediaKind]


def check_urls(service: Service, urls: Iterable[UrlInput]) -> None:
    """The verdicts that need no network. Raises InvalidInputError."""
    for given in urls:
        service.check_url(given.url, field=given.field)


async def with_urls(
    service: Service, files: Mapping[str, SubmittedFile], urls: Mapping[str, UrlInput]
) -> dict[str, SubmittedFile]:
    """All inputs by role, those given as URLs fetched. Whatever goes wrong, the bytes of all are taken back.

    Raises:
        GatewayError: an input could not be fetched or is not what it should be.
    """
    inputs = dict(files)
    try:
        for role, given in urls.items():
            inputs[role] = await service.fetch_url(given.url, field=given.field, kinds=given.kinds)
    except BaseException:  # also when the client left: nobody else knows of these bytes
        await asyncio.shield(service.discard([given.blob for given in inputs.values()]))
        raise
    return inputs
