"""Folders for files on their way, which nobody leaves behind, and disk work that is done to its end."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

_NAME_BYTES = 16


async def finished(work: Callable[..., object], *arguments: object) -> None:
    """Do disk work in a thread, and leave it only when it is done, also when canceled.

    What goes on behind the back of a canceled task writes into a folder that is just being deleted, and it stays.
    """
    working = asyncio.get_running_loop().run_in_executor(None, work, *arguments)
    try:
        await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait({working})
        raise


@asynccontextmanager
async def scratch_folder(parent: Path, what: str, *, is_made: bool = True) -> AsyncIterator[Path]:
    """A folder of one's own below ``parent``, deleted with all that is in it at the end.

    Args:
        parent: its parent.
        what: the first part of its name.
        is_made: False where whoever writes the first file makes it, with mode 0700, in the same step.
    """
    folder = parent / f"{what}-{secrets.token_hex(_NAME_BYTES)}"
    try:
        if is_made:
            await finished(folder.mkdir, 0o700)
        yield folder
    finally:
        # Shielded: a cancel that comes now would take it out of the threads' queue before it began.
        await finished(_delete, folder)


def _delete(folder: Path) -> None:
    """Some files and no folders, most often, for which ``rmtree`` takes three times as long."""
    try:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
