"""Makes the store of files, and buckets, of what the settings say, where the extra for them is installed.

A data directory belongs to one place in object storage: what it is stands in it, and a gateway with another setting, or none,
does not start on it, instead of finding none of its files.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import structlog

from gateway.blobs.bucket import MARKS, BucketBlobs
from gateway.blobs.claim import OWNER, Claim, TakenError
from gateway.blobs.local import LocalBlobs
from gateway.blobs.placed import PlacedBlobs
from gateway.data_dir import StartError, unusable
from gateway.errors import StorageUnreachableError
from gateway.interfaces import Blobs, Bucket
from gateway.object_url import ObjectUrl
from gateway.settings import Settings

#: In the data directory: marks, cache and the place.
STORAGE: Final = "storage"
_PLACE: Final = "place"
#: How long a start waits for the bucket to say whose it is.
CLAIM_SECONDS: Final = 5.0
log = structlog.get_logger(__name__)


async def open_bucket(
    place: ObjectUrl, *, setting: str, ca_file: Path | None, give_up_seconds: float | None = None
) -> Bucket:
    """The bucket that a setting names; whoever opens it closes it. Nothing is asked of it yet.

    Args:
        place: bucket and prefix.
        setting: whose it is, for the sentence, e.g. "GATEWAY_STORAGE_URL".
        ca_file: authorities that are trusted besides.
        give_up_seconds: how long something is tried again; the usual half a minute by default.

    Raises:
        StartError: the package for it is missing, or there are no credentials.
    """
    if importlib.util.find_spec("boto3") is None:
        raise StartError(f"{setting} needs boto3: pip install 'comfygate[s3]'.")
    from gateway.objects.s3 import Pace, S3Bucket
    from gateway.objects.session import NoCredentialsFoundError

    pace = Pace() if give_up_seconds is None else Pace(give_up_seconds=give_up_seconds)
    try:
        return await S3Bucket.open(place, ca_file=ca_file, pace=pace)
    except NoCredentialsFoundError as error:
        raise StartError(
            f"{setting} is set, and {error}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or whatever else boto3 "
            "reads them from."
        ) from error
    except OSError as error:
        raise StartError("GATEWAY_CA_FILE cannot be read or holds no certificate: name a PEM bundle.") from error


def claim_of(bucket: Bucket, folder: Path) -> Claim:
    """That of a data directory to a bucket's prefix."""
    return Claim(bucket, folder / STORAGE / "id")


async def open_blobs(
    stack: AsyncExitStack,
    settings: Settings,
    folder: Path,
    *,
    holds: Callable[[], bool] = lambda: True,
    targets: Mapping[str, Bucket] | None = None,
) -> Blobs:
    """Where inputs and results are kept, ready to be used; while the data directory is held.

    Args:
        stack: lets go of it.
        settings: say where.
        folder: the data directory.
        holds: whether it is still held; asked in threads.
        targets: where upstreams may have put results.

    Raises:
        StartError: it cannot be used.
    """
    inner = await _open_inner(stack, settings, folder, holds)
    links = settings.storage_downloads == "redirect"
    return PlacedBlobs(inner, targets or {}, direct=settings.delivery_direct if targets else (), links=links)


async def open_targets(stack: AsyncExitStack, settings: Settings) -> Mapping[str, Bucket]:
    """Where results may be put by name. Nothing is asked of them. Raises StartError."""
    targets: dict[str, Bucket] = {}
    for name, place in settings.target_places.items():
        setting = f"GATEWAY_DELIVERY_TARGETS ({name})"
        targets[name] = await open_bucket(place, setting=setting, ca_file=settings.ca_file)
        stack.push_async_callback(targets[name].close)
    return targets


async def _open_inner(stack: AsyncExitStack, settings: Settings, folder: Path, holds: Callable[[], bool]) -> Blobs:
    place = settings.storage_place
    await asyncio.to_thread(_require_place, folder, place)
    if place is None:
        local = LocalBlobs(folder / "blobs", holds=holds)
        await local.prepare()
        stack.push_async_callback(local.close)
        return local
    bucket = await open_bucket(place, setting="GATEWAY_STORAGE_URL", ca_file=settings.ca_file)
    stack.push_async_callback(bucket.close)
    claim = claim_of(bucket, folder)
    await _require_claim(claim, place)
    blobs = BucketBlobs(
        bucket,
        folder / STORAGE,
        cache_bytes=settings.storage_cache,
        holds=holds,
        links=settings.storage_downloads == "redirect",
        claim=claim,
    )
    stack.push_async_callback(blobs.close)
    try:
        await blobs.prepare(earlier=folder / "blobs")
    except StorageUnreachableError as error:
        raise StartError(
            f"The files in {folder / 'blobs'} could not be moved to {place.location('')} ({error.reason}): "
            "'comfygate doctor' tells what is wrong with the bucket."
        ) from error
    return blobs


async def _require_claim(claim: Claim, place: ObjectUrl) -> None:
    """See that the prefix is ours. Where nobody answers we start all the same: it is asked again before anything is swept."""
    try:
        async with asyncio.timeout(CLAIM_SECONDS):
            await claim.require()
    except TakenError as error:
        raise StartError(
            f"{place.location('')} holds the files of another data directory, which would be deleted as nobody's: let "
            f"GATEWAY_STORAGE_URL name another prefix. If that one is gone for good, delete {place.location(OWNER)}."
        ) from error
    except (TimeoutError, StorageUnreachableError):
        log.warning("storage_not_claimed", location=place.location(""))


def _require_place(folder: Path, place: ObjectUrl | None) -> None:
    """Have the data directory belong to this place, unless files of its lie in another, or may still have to be deleted there."""
    file = folder / STORAGE / _PLACE
    wanted = place.location("") if place is not None else None
    try:
        before = file.read_text(encoding="utf-8").strip() if file.is_file() else None
        is_bound = before not in {None, wanted} and any((folder / STORAGE / MARKS).glob("*/*"))
        if wanted is not None and not is_bound:
            file.parent.mkdir(mode=0o700, exist_ok=True)
            file.write_text(f"{wanted}\n", encoding="utf-8")
        elif not is_bound:
            file.unlink(missing_ok=True)
    except OSError as error:
        raise unusable(folder, error) from error
    if is_bound:
        raise StartError(
            f"The files of {folder} lie in {before}: let GATEWAY_STORAGE_URL name that place. 'comfygate backup' gets them "
            f"out for another one; if they are not wanted any more, take {file.parent} away."
        )
