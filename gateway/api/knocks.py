"""Who tries keys: wrong ones are counted per address, right ones never.

So nobody's own limit is touched by what strangers try, and whoever shares an address with somebody who tries is let in
with a good key all the same. What is bounded is noise; guessing is hopeless at any rate.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from gateway.errors import RateLimitedError
from gateway.interfaces import Clock

#: Wrong keys from one address in any minute that are answered with 401.
MAX_FAILURES: Final = 60
WINDOW_SECONDS: Final = 60.0
#: Addresses remembered, two kilobytes each at most; the one that failed longest ago is forgotten first.
MAX_ADDRESSES: Final = 4096
_HOUSEHOLD_BITS: Final = 64


class Knocks:
    """Wrong keys by address, in an exact sliding window."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def failed(self, address: str) -> None:
        """Take note of a wrong key.

        Raises:
            RateLimitedError: there were too many in the last minute; this one does not count.
        """
        now = self._clock.monotonic()
        failures = self._failures.setdefault(_household(address), deque())
        self._failures.move_to_end(_household(address))
        while failures and failures[0] <= now - WINDOW_SECONDS:
            failures.popleft()
        if len(failures) >= MAX_FAILURES:
            seconds = max(1, math.ceil(failures[0] + WINDOW_SECONDS - now))
            raise RateLimitedError("Too many wrong keys came from this address.", retry_after_seconds=seconds)
        failures.append(now)
        if len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)


def _household(address: str) -> str:
    """One client's addresses: in IPv6 it has 2^64 of them."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        return str(ip_network((int(parsed) >> _HOUSEHOLD_BITS << _HOUSEHOLD_BITS, _HOUSEHOLD_BITS)))
    return address
