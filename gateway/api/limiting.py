"""The limits of keys, kept: requests counted where they come in, creates where they are made, both told in headers.

Who has no key (open mode, the admin token) has no limits of a key. The rules are those of ``gateway/limits.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Final

from starlette.types import Scope

from gateway.api.auth import Caller
from gateway.errors import RateLimitedError
from gateway.limits import Allowance, Concurrency, Quota, RateLimiter, rate_headers

_NOTE: Final = "gateway.limits"


@dataclass(slots=True)
class Limits:
    """One process's: they begin anew with it."""

    _requests: RateLimiter = field(default_factory=RateLimiter)
    _creates: Concurrency = field(default_factory=Concurrency)

    def admit(self, caller: Caller | None, scope: Scope, now: float) -> None:
        """Count a request, and have its answer tell what is left, a refusal too.

        Args:
            caller: who sent it.
            scope: of the request.
            now: monotonic seconds.

        Raises:
            RateLimitedError: the key has sent as many as it may.
        """
        if caller is None or caller.key is None:
            return
        key = caller.key
        allowance = Allowance(key.rate_limit, key.concurrency)
        try:
            left = self._requests.admit(key.id, key.rate_limit, now)
        except RateLimitedError:
            scope[_NOTE] = rate_headers(allowance, self._requests.quota(key.id, key.rate_limit, now))
            raise
        scope[_NOTE] = rate_headers(allowance, left)

    def quota(self, caller: Caller, now: float) -> Quota | None:
        """What is left to a caller; None where there is no limit."""
        return None if caller.key is None else self._requests.quota(caller.key.id, caller.key.rate_limit, now)

    def creating(self, caller: Caller) -> AbstractContextManager[None]:
        """A place for one create, held from before anything is fetched, claimed or charged until it is made or refused.

        Raises:
            ConcurrencyLimitedError: on entering: all of the key's places are taken.
        """
        return nullcontext() if caller.key is None else self._creates.take(caller.key.id, caller.key.concurrency)


def limit_headers(scope: Scope) -> Iterator[tuple[str, str]]:
    """What the answer to a request tells of its key's limits."""
    note: Mapping[str, str] = scope.get(_NOTE, {})
    yield from note.items()
