"""What a job costs in credits: its template's price, and what was measured of its target.

Nothing that a client declares counts. A template says ``price``, what that is the price of (``price_per``) and below
which size it asks nothing (``free_below_bytes``); ``docs/templates.md`` explains the three to whoever writes one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gateway.audit import MediaFacts

#: A second of such a picture is what ``PricePer.SECOND`` counts: HD, as most videos are.
PIXELS: Final = 1280 * 720
_MILLISECONDS: Final = 1000


class PricePer(StrEnum):
    """What a template's price is the price of."""

    #: A job, whatever it is given.
    JOB = "job"
    #: A second of target at 1280 x 720; pro rata for other lengths and sizes, rounded up to whole credits.
    SECOND = "second"


@dataclass(frozen=True, slots=True)
class Pricing:
    """What a template says of its price."""

    credits: int = 0
    per: PricePer = PricePer.JOB
    #: A target smaller than this costs nothing; 0 where every one costs.
    free_below_bytes: int = 0


def least_price(pricing: Pricing) -> int:
    """Credits that every job costs at least, whatever it is given: what can be asked for before anything is here."""
    if pricing.credits == 0 or pricing.free_below_bytes:
        return 0
    return pricing.credits if pricing.per is PricePer.JOB else 1


def price_of(pricing: Pricing, target: MediaFacts | None, size_bytes: int) -> int:
    """Credits that a job costs, 0 when it is free.

    Args:
        pricing: of its template.
        target: as it was decoded; None where a job has none, which always costs the price of a job.
        size_bytes: of the target's bytes as they are stored.
    """
    if pricing.credits == 0 or target is None:
        return pricing.credits
    if size_bytes < pricing.free_below_bytes:
        return 0
    if pricing.per is PricePer.JOB or target.duration_seconds is None:
        return pricing.credits
    # In whole milliseconds, so that 10 s written as 9.999999 or 10.000001 cost the same.
    work = round(target.duration_seconds * _MILLISECONDS) * target.width * target.height
    return max(1, -(-pricing.credits * work // (PIXELS * _MILLISECONDS)))
