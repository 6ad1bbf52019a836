"""Users and keys: who somebody is, what a key may do, how it is written.

Pure. A *user* is who pays; a *key* belongs to a user and is who calls: jobs, limits and lists are the key's. A key is told
once, when it is made or rotated; kept are its SHA-256 and its first characters. A fast hash is enough: a key has 190 random
bits, and nobody guesses those, however quickly a guess is checked.

A key is written ``cfg_<live|test>_<32 random><6 check>`` in base 62; the check digits are the CRC-32 of all before them, so
that a mistyped key, or one that a scanner found in somebody's files, is known for what it is without asking anybody.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gateway.errors import InvalidInputError
from gateway.workflow_rules import NodeRules

#: For secret scanners: what it matches is a key of ours when its check digits are right.
KEY_PATTERN: Final = r"cfg_(?:live|test)_[0-9A-Za-z]{38}"
#: Bytes of randomness that a key is made of: many more than it can hold, so that no digit is likelier than another.
RANDOM_BYTES: Final = 32
DEFAULT_RATE_LIMIT: Final = 60
DEFAULT_CONCURRENCY: Final = 4
DEFAULT_TIER: Final = "free"
MAX_RATE_LIMIT: Final = 100_000
MAX_CONCURRENCY: Final = 10_000
MAX_NAME_CHARACTERS: Final = 64
#: Patterns of node classes in one list of a key.
MAX_PATTERNS: Final = 200
MAX_PATTERN_CHARACTERS: Final = 100

_KEY: Final = re.compile(KEY_PATTERN)
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_DIGITS: Final = 32
_CHECK_DIGITS: Final = 6
_SHOWN_DIGITS: Final = 8
TIER: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


class KeyKind(StrEnum):
    """What a key says of itself; both kinds open the same."""

    LIVE = "live"
    #: For tests and examples: a scanner that finds one need wake nobody.
    TEST = "test"


class Scope(StrEnum):
    """What a key may do."""

    #: Start jobs; see and cancel those it started.
    JOBS = "jobs"
    #: What the admin token may: change the pool, users, keys; back up and purge.
    ADMIN = "admin"


DEFAULT_SCOPES: Final = frozenset({Scope.JOBS})


@dataclass(frozen=True, slots=True)
class User:
    """Who pays."""

    id: str
    #: Unique.
    name: str
    #: A word of the operator's; ``free`` unless said otherwise.
    tier: str
    email_verified: bool
    #: Unix seconds.
    created_at: float


@dataclass(frozen=True, slots=True)
class Key:
    """Who calls. Rotating changes what is presented, never who it is: the id stays, and jobs and limits with it."""

    #: Also the owner of the jobs that it starts.
    id: str
    user_id: str
    #: Unique among its user's keys that are not revoked.
    name: str
    #: The beginning of the newest text, for people to tell keys apart.
    prefix: str
    #: Requests in any 60 s.
    rate_limit: int
    #: Creating requests at a time.
    concurrency: int
    scopes: frozenset[Scope]
    #: Unix seconds, all of them.
    created_at: float
    #: When it ends by itself; None: never.
    expires_at: float | None = None
    revoked_at: float | None = None
    #: To the minute.
    last_used_at: float | None = None
    #: Patterns of node classes that its own workflows may not use, beside those that the gateway denies; None: no more.
    nodes_deny: frozenset[str] | None = None
    #: Patterns of the only ones that they may use, of those that the gateway allows; None: all of these.
    nodes_allow: frozenset[str] | None = None
    #: Name of the target that its jobs' files go to, and of the only one that they may name; None: none of its own.
    deliver_to: str | None = None

    @property
    def node_rules(self) -> NodeRules | None:
        """What its own workflows may hold, beside what the gateway says; None where that is all."""
        if self.nodes_deny is None and self.nodes_allow is None:
            return None
        return NodeRules.of(self.nodes_deny or (), self.nodes_allow or ())

    @property
    def kind(self) -> KeyKind:
        """What it says of itself."""
        return KeyKind(self.prefix.split("_")[1])

    def is_live(self, now: float) -> bool:
        """Whether it opens anything. Args: now: Unix seconds."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def may(self, scope: Scope) -> bool:
        """Whether it may do something; who may administer may do all."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


@dataclass(frozen=True, slots=True)
class Keyholder:
    """A key and whose it is."""

    key: Key
    user: User


def key_text(kind: KeyKind, randomness: bytes) -> str:
    """A key's text out of ``RANDOM_BYTES`` random bytes.

    Raises:
        ValueError: it is another number of bytes.
    """
    if len(randomness) != RANDOM_BYTES:
        raise ValueError(f"a key is made of {RANDOM_BYTES} random bytes, not {len(randomness)}")
    body = f"cfg_{kind.value}_{_base62(int.from_bytes(randomness), _RANDOM_DIGITS)}"
    return body + _check_digits(body)


def is_key_text(text: str) -> bool:
    """Whether a text can be a key; where not, nobody need be asked."""
    if _KEY.fullmatch(text) is None:
        return False
    return _check_digits(text[:-_CHECK_DIGITS]) == text[-_CHECK_DIGITS:]


def looks_like_a_key(text: str) -> bool:
    """Whether somebody means a key of ours by it, a good one or not."""
    return text.startswith("cfg_")


def may_hold_a_key(text: str) -> bool:
    """Whether there is something in a text that begins like a key, mistyped ones included."""
    return any(f"cfg_{kind.value}_" in text for kind in KeyKind)


def hash_of(text: str) -> str:
    """What is kept of a key: SHA-256, 64 hex digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def shown_prefix(text: str) -> str:
    """The beginning of a key as lists show it: eight of its 32 random digits."""
    return text[: len("cfg_live_") + _SHOWN_DIGITS]


def checked_name(name: str, field: str) -> str:
    """A name of a user or key. Raises InvalidInputError."""
    if not 1 <= len(name) <= MAX_NAME_CHARACTERS or not name.isprintable() or name != name.strip():
        raise InvalidInputError(f"The {field} is 1 to {MAX_NAME_CHARACTERS} printable characters.", field=field)
    if not unicodedata.is_normalized("NFC", name):
        # Else there could be two that nobody can tell apart, and credits would go to the other.
        raise InvalidInputError(f"The {field} has letters in parts: write each as one (Unicode's NFC).", field=field)
    return name


def checked_tier(tier: str) -> str:
    """A tier. Raises InvalidInputError."""
    if TIER.fullmatch(tier) is None:
        raise InvalidInputError("The tier is a word of a to z, 0 to 9, - and _, at most 32 characters.", field="tier")
    return tier


def checked_number(number: int, field: str, most: int) -> int:
    """A limit of a key, from 1 to ``most``. Raises InvalidInputError."""
    if not 1 <= number <= most:
        raise InvalidInputError(f"The {field} is a number from 1 to {most}.", field=field)
    return number


def checked_scopes(words: frozenset[str]) -> frozenset[Scope]:
    """Scopes by their words. Raises InvalidInputError."""
    try:
        scopes = frozenset(Scope(word) for word in words)
    except ValueError:
        scopes = frozenset()
    if not scopes:
        known = ", ".join(scope.value for scope in Scope)
        raise InvalidInputError(f"A key's scopes are one or more of: {known}.", field="scopes")
    return scopes


def checked_patterns(patterns: Sequence[str], field: str) -> frozenset[str]:
    """A key's list of patterns of node classes. Raises InvalidInputError.

    An empty one is refused: it could be meant for all of them, or for none.
    """
    if not 1 <= len(patterns) <= MAX_PATTERNS:
        raise InvalidInputError(f"The list {field} has 1 to {MAX_PATTERNS} patterns.", field=field)
    for pattern in patterns:
        is_short = 1 <= len(pattern) <= MAX_PATTERN_CHARACTERS
        if not is_short or not pattern.isprintable() or pattern != pattern.strip():
            raise InvalidInputError(
                f"A pattern in {field} is 1 to {MAX_PATTERN_CHARACTERS} printable characters.", field=field
            )
    return frozenset(patterns)


def _check_digits(body: str) -> str:
    return _base62(zlib.crc32(body.encode("ascii")), _CHECK_DIGITS)


def _base62(number: int, length: int) -> str:
    """The last ``length`` digits of a number, leading zeros included."""
    digits = ""
    for _ in range(length):
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits
