"""``comfygate purge`` and ``comfygate backup``: through a running gateway, or on the data directory when none runs."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import anyio
from sqlalchemy.exc import DBAPIError

from gateway.cli.client import ClientError, GatewayClient
from gateway.cli.configuration import read_settings
from gateway.cli.reaching import DATABASE, Held
from gateway.engine.backup import DamagedBlobError, open_backup
from gateway.engine.purging import Purge, purge_job, purge_owner
from gateway.errors import GatewayError
from gateway.storage_builder import open_blobs
from gateway.store.copying import DatabaseFile
from gateway.store.sql_store import SqlStore

#: A large database takes this long to be copied before the first byte comes.
COPY_SECONDS = 600.0


async def purge(where: GatewayClient | Held, *, job: str | None, owner: str | None, consents: bool = False) -> str:
    """Forget either a job or all of an owner, records of consent only when asked; what to tell the operator.

    Raises:
        ClientError: nothing was forgotten, and why.
    """
    if isinstance(where, GatewayClient):
        body = {**({"job": job} if owner is None else {"owner": owner}), **({"consents": True} if consents else {})}
        told = await where.admin("POST", "/-/purge", body)
        done = Purge(*(int(told.get(name, 0)) for name in ("jobs", "files", "deleted_files", "consents")))
    else:
        done = await _purge_here(where.folder, job, owner, consents=consents)
    if owner is not None and not (done.jobs or done.files or done.consents):
        # Whoever gives the name of a user must not believe that all of that user's is gone.
        return (
            f"No job or file belongs to the owner {owner!r}. Owners are keys, by the ids that "
            "'comfygate keys list' shows, and local, who owns what was sent without one."
        )
    records = f" Records of consent: {done.consents}." if consents else ""
    return (
        f"Purged: jobs {done.jobs}, files {done.files}, of which deleted {done.blobs}.{records}\n"
        "What ComfyUI instances keep of it goes within minutes while a gateway runs, from those that 'comfygate status' "
        "says nothing else of."
    )


async def _purge_here(folder: Path, job: str | None, owner: str | None, *, consents: bool) -> Purge:
    async with AsyncExitStack() as stack:
        blobs = await open_blobs(stack, read_settings({"data_dir": folder}), folder)
        with our_sentences(folder):
            store = await SqlStore.open(folder / DATABASE, result_retention_seconds=0.0, asset_retention_seconds=0.0)
            try:
                return await (
                    purge_job(store, blobs, job or "", consents=consents)
                    if owner is None
                    else purge_owner(store, blobs, owner, consents=consents)
                )
            finally:
                await store.close()


async def backup(where: GatewayClient | Held, into: Path) -> int:
    """Write the tar; its size in bytes. ``into`` is there whole or not at all.

    Raises:
        ClientError: it was not written, and why.
    """
    if await anyio.to_thread.run_sync(into.exists):
        raise ClientError(f"{into} is there already: name a new file, or take that one away.")
    if isinstance(where, GatewayClient):
        return await _save(where.admin_stream("/-/backup", read_seconds=COPY_SECONDS), into)
    folder = where.folder
    async with AsyncExitStack() as stack:
        blobs = await open_blobs(stack, read_settings({"data_dir": folder}), folder)
        with our_sentences(folder):
            copier = DatabaseFile(folder / DATABASE)
            async with open_backup(copier, blobs, folder / "scratch", now=time.time()) as chunks:
                return await _save(chunks, into)


async def _save(chunks: AsyncIterator[bytes], into: Path) -> int:
    """Faces are in it: for its owner alone, from the first byte."""
    part = into.with_name(f"{into.name}.part")
    size_bytes = 0
    try:
        file: BinaryIO = await anyio.to_thread.run_sync(_create, part)
        with file:
            async for chunk in chunks:
                await anyio.to_thread.run_sync(file.write, chunk)
                size_bytes += len(chunk)
            await anyio.to_thread.run_sync(os.fsync, file.fileno())
        await anyio.to_thread.run_sync(part.rename, into)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ClientError(f"{into} cannot be written ({reason}): name a file where there is room for it.") from error
    finally:
        await anyio.to_thread.run_sync(_drop, part)
    return size_bytes


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)


def _create(part: Path) -> BinaryIO:
    part.unlink(missing_ok=True)
    return os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0)


@contextmanager
def our_sentences(folder: Path) -> Iterator[None]:
    """Whatever goes wrong in a data directory as a ClientError."""
    try:
        yield
    except GatewayError as error:
        raise ClientError(f"{error.message[0].upper()}{error.message[1:]}.".replace("..", ".")) from error
    except DamagedBlobError as error:
        raise ClientError(f"The backup was not made: {error}.") from error
    except (sqlite3.Error, DBAPIError) as error:
        raise ClientError(
            f"The database in {folder} cannot be read: 'comfygate doctor' says more; a backup restores it."
        ) from error
