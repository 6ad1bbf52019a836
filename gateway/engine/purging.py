"""Forgetting at once what somebody asked to be forgotten: rows first, then bytes, as in every sweep.

Bytes stay when the same were committed again after the last job that is forgotten took hold of them: an upload is under
way. They are that upload's, or the sweep's. What this cannot see is the rarer case that somebody sent the very same
bytes before that job was stored, and is still sending the rest of the form: that job then fails for want of its input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import structlog

from gateway.errors import NotFoundError
from gateway.interfaces import Blobs, Purged, Store

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Purge:
    """What went."""

    jobs: int = 0
    #: Inputs and results, also those whose bytes something else still refers to.
    files: int = 0
    #: Files whose bytes were deleted.
    blobs: int = 0
    #: Records of consent; they stay unless they are asked for.
    consents: int = 0


async def purge_job(store: Store, blobs: Blobs, job_id: str, *, consents: bool = False) -> Purge:
    """Forget an ended job and its files; with ``consents`` what was said of the people in them, too.

    Raises:
        NotFoundError: there is no such job, nor such a record where it was asked for.
        ConflictError: it has not ended.
    """
    purged = await store.purge_job(job_id)
    forgotten = await store.consents.forget(job_id) if consents else 0
    if purged is None and not forgotten:
        raise NotFoundError("there is no such job")
    total = Purge() if purged is None else await _drop(blobs, purged, Purge())
    return _told(replace(total, consents=forgotten))


async def purge_owner(store: Store, blobs: Blobs, owner: str, *, consents: bool = False) -> Purge:
    """Forget all jobs and files of an owner, and likewise; an owner of whom nothing is known has none.

    Raises:
        ConflictError: a job of the owner has not ended. Nothing was forgotten, unless it came while this ran.
    """
    total = Purge()
    while (purged := await store.purge_owner(owner)).jobs or purged.assets:
        total = await _drop(blobs, purged, total)
    while consents and (forgotten := await store.consents.forget_owner(owner)):
        total = replace(total, consents=total.consents + forgotten)
    return _told(total)


async def _drop(blobs: Blobs, purged: Purged, so_far: Purge) -> Purge:
    gone = 0
    for loose in purged.blobs:
        # "At or after" is what delete spares, and the commit may carry the very moment of the hold.
        gone += await blobs.delete(loose.hash, untouched_since=math.nextafter(loose.touched_at, math.inf))
    return Purge(so_far.jobs + purged.jobs, so_far.files + purged.assets, so_far.blobs + gone)


def _told(purge: Purge) -> Purge:
    log.info("purged", jobs=purge.jobs, files=purge.files, blobs=purge.blobs, consents=purge.consents)
    return purge
