"""Secrets at rest: AES-256-GCM with a key that lies beside the database, in a file of its own.

A secret has to be had back to sign with it, so it cannot be kept as a hash, as keys are. What this is worth: a copy of the
database alone (a backup, a leaked file) opens no secret, and a secret moved to another account's row opens nothing. Whoever
can read the whole data directory can read both.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_FILE: Final = "webhook-key"
KEY_BYTES: Final = 32
#: As NIST SP 800-38D recommends. Random: some billions of secrets before a repetition becomes thinkable.
_NONCE_BYTES: Final = 12


class KeyFileError(Exception):
    """The key's file holds no key: it was damaged, or is something else."""


class FileSealer:
    """``interfaces.Sealer`` with a key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    @classmethod
    def beside(cls, folder: Path) -> Self:
        """The sealer of a data directory; its key is made when there is none (0600).

        Raises:
            KeyFileError: there is a file of that name, and it holds no key.
            OSError: it cannot be read or made.
        """
        path = folder / KEY_FILE
        try:
            key = path.read_bytes()
        except FileNotFoundError:
            return cls(_make(path))
        if len(key) != KEY_BYTES:
            raise KeyFileError(f"{KEY_FILE} holds {len(key)} bytes, not {KEY_BYTES}")
        return cls(key)

    def seal(self, account: str, secret: bytes) -> bytes:
        """The secret, sealed for an account."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, account.encode())

    def open(self, account: str, sealed: bytes) -> bytes | None:
        """What was sealed for this account; None when it was not, or not with this key."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], account.encode())
        except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce
            return None


def _make(path: Path) -> bytes:
    """A new key, whole on disk before it has its name: a half one would make a good database unreadable."""
    key = secrets.token_bytes(KEY_BYTES)
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return key
