"""The data directory: made, held, and what lies in it for the command line: the admin token, the address.

One gateway holds a directory for as long as its process lives: the lock is the kernel's, so it is free the moment the
holder is gone, however it went.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gateway.settings import Settings

ADDRESS: Final = "address"
#: A command holds the directory for some microseconds to see whether it is held.
GLANCE_SECONDS: Final = 0.02


class StartError(Exception):
    """The gateway cannot start; one sentence with the remedy."""


def prepare_data_dir(folder: Path) -> Path:
    """The data directory, absolute, made with mode 0700. Raises StartError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        for name in ("scratch", "blobs", "embedded"):
            (folder / name).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from error
    return folder.resolve()


def clear_scratch(folder: Path) -> None:
    """Delete what an earlier process left half done. Call it only while holding the directory."""
    for left in (folder / "scratch").iterdir():
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _unusable(folder: Path, error: OSError) -> StartError:
    reason = error.strerror or type(error).__name__
    return StartError(
        f"The data directory {folder} cannot be used ({reason}): set GATEWAY_DATA_DIR to a folder you may write to."
    )


class DataDirHeldError(StartError):
    """Another process holds the data directory."""


@contextmanager
def hold_data_dir(folder: Path, *, glances: int = 1) -> Iterator[None]:
    """Keep any other gateway off the directory for as long as this process lives.

    Args:
        folder: the data directory.
        glances: how often to try. A command that asks whether somebody holds the directory holds it for a moment
            itself; a gateway that starts just then should not be refused for it.

    Raises:
        DataDirHeldError: another process does.
        StartError: the directory cannot be used.
    """
    try:
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _unusable(folder, error) from error
    try:
        for glances_left in reversed(range(glances)):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if not glances_left:
                    raise DataDirHeldError(
                        f"Another gateway uses the data directory {folder}: stop it, or set GATEWAY_DATA_DIR to "
                        "another folder."
                    ) from error
                time.sleep(GLANCE_SECONDS)
        yield
    finally:
        os.close(descriptor)


def read_admin_token(settings: Settings, folder: Path) -> tuple[str, bool]:
    """The admin token, and whether it was made just now into ``admin-token`` (0600). Raises StartError."""
    if settings.admin_token is not None:
        return settings.admin_token.get_secret_value(), False
    path = folder / "admin-token"
    try:
        with contextlib.suppress(FileNotFoundError):
            if token := path.read_text(encoding="utf-8").strip():
                return token, False
        token = secrets.token_urlsafe(32)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, 0o600)  # an empty file of other rights may have been there
            file.write(token + "\n")
    except OSError as error:
        raise _unusable(folder, error) from error
    return token, True


@contextmanager
def leave_address(folder: Path, url: str) -> Iterator[None]:
    """Keep the gateway's own address in ``address`` (0600), where the command line of this machine finds it.

    Whoever reads it asks first whether the directory is held: a killed gateway leaves it behind, and its port may be
    somebody else's by now. Raises StartError.
    """
    path = folder / ADDRESS
    part = folder / f"{ADDRESS}.part"
    try:
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(url + "\n")
        part.replace(path)  # in one step, so that nobody reads half an address
    except OSError as error:
        raise _unusable(folder, error) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def read_address(folder: Path) -> str | None:
    """The address that a gateway left, None when there is none."""
    try:
        return (folder / ADDRESS).read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None
