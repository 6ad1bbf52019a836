"""The data directory: made, locked, and what lies in it for the command line: the admin token, the address.

Whoever works in a directory holds its lock for as long as its process lives: the lock is the kernel's, so it is free the
moment the holder is gone, however it went. The file says who holds it: a gateway writes the id that its lease carries, a
command nothing. Who takes over from a holder that is stopped cannot have that one's lock, so it puts a file of its own,
locked already, in its place: the directory is locked again by the one who acts in it, and the old lock, when its holder
ends, frees nothing that anybody looks at. ``holding.py`` says when.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from gateway.asset_links import KEY_BYTES
from gateway.settings import Settings

ADDRESS: Final = "address"
ASSET_KEY: Final = "asset-key"
LOCK: Final = "lock"


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
        raise unusable(folder, error) from error
    return folder.resolve()


def clear_scratch(folder: Path) -> None:
    """Delete what an earlier process left half done. Call it only while holding the directory."""
    for left in (folder / "scratch").iterdir():
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def unusable(folder: Path, error: OSError) -> StartError:
    """The refusal, with its remedy."""
    reason = error.strerror or type(error).__name__
    return StartError(
        f"The data directory {folder} cannot be used ({reason}): set GATEWAY_DATA_DIR to a folder you may write to."
    )


class DataDirHeldError(StartError):
    """Another process holds the data directory."""


class LockReplacedError(Exception):
    """Somebody took over while we believed to hold the lock."""


class DirectoryLock:
    """The lock of a data directory, held by this process until ``close``. Made by ``lock`` and ``replacement``."""

    def __init__(self, folder: Path, descriptor: int, *, part: Path | None = None) -> None:
        self._folder = folder
        self._descriptor = descriptor
        self._part = part

    @classmethod
    def lock(cls, folder: Path, holder: str = "") -> Self | None:
        """The lock when it is free, else None.

        Args:
            folder: the data directory.
            holder: the id of a gateway; "" for a command.

        Raises:
            OSError: the directory cannot be used.
        """
        while True:
            made = cls(folder, os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            try:
                fcntl.flock(made._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                made.close()
                return None
            if made.is_in_place():
                made._write(holder)
                return made
            made.close()  # it was replaced between the two calls

    @classmethod
    def replacement(cls, folder: Path, holder: str) -> Self:
        """A lock that is held, and that ``seal`` puts in the place of the other's. Raises OSError."""
        part = folder / f"{LOCK}.{secrets.token_hex(4)}.part"
        made = cls(folder, os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), part=part)
        fcntl.flock(made._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        made._write(holder)
        return made

    def seal(self) -> None:
        """Make sure that what we hold is the lock of the directory. In the transaction that takes the lease.

        Raises:
            LockReplacedError: somebody took over since.
        """
        if self._part is not None:
            self._part.replace(self._folder / LOCK)
            self._part = None
        elif not self.is_in_place():
            raise LockReplacedError(self._folder)

    def is_in_place(self) -> bool:
        """Whether the file that we hold is the one that others look at."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), (self._folder / LOCK).stat())
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Let go."""
        if self._part is not None:
            self._part.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _write(self, holder: str) -> None:
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{holder} {os.getpid()}\n".encode() if holder else b"", 0)


@dataclass(frozen=True, slots=True)
class LockOwner:
    """What the lock's file says of a gateway."""

    #: The id that its lease carries; "" for a command.
    holder: str
    #: As its own process namespace counts; 0 when unknown.
    pid: int = 0


def lock_owner(folder: Path) -> LockOwner:
    """Who wrote the lock's file last: its holder, where it is held."""
    try:
        words = (folder / LOCK).read_text(encoding="ascii").split()
        return LockOwner(words[0], int(words[1])) if words else LockOwner("")
    except (OSError, ValueError, IndexError):
        return LockOwner("")


@contextmanager
def hold_data_dir(folder: Path) -> Iterator[None]:
    """Keep any gateway off the directory, for a command that works in it.

    Raises:
        DataDirHeldError: another process holds it.
        StartError: the directory cannot be used.
    """
    try:
        lock = DirectoryLock.lock(folder)
    except OSError as error:
        raise unusable(folder, error) from error
    if lock is None:
        raise held_by_another(folder)
    try:
        yield
    finally:
        lock.close()


def held_by_another(folder: Path) -> DataDirHeldError:
    """The refusal, with its remedy."""
    return DataDirHeldError(
        f"Another gateway uses the data directory {folder}: stop it, or set GATEWAY_DATA_DIR to another folder."
    )


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
        raise unusable(folder, error) from error
    return token, True


def read_asset_key(folder: Path) -> bytes:
    """The key that signs links of assets, made into ``asset-key`` (0600) when there is none. Raises StartError."""
    path, part = folder / ASSET_KEY, folder / f"{ASSET_KEY}.part"
    try:
        with contextlib.suppress(FileNotFoundError):
            if len(key := path.read_bytes()) == KEY_BYTES:
                return key
        # What is no key, a half one too, is replaced: links made with it last an hour at most.
        key = secrets.token_bytes(KEY_BYTES)
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise unusable(folder, error) from error
    return key


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
        raise unusable(folder, error) from error
    try:
        yield
    finally:
        if read_address(folder) == url:  # else somebody has taken over, and has left its own
            path.unlink(missing_ok=True)


def read_address(folder: Path) -> str | None:
    """The address that a gateway left, None when there is none."""
    try:
        return (folder / ADDRESS).read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None
