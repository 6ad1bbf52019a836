"""Has upstreams say anew what they can do, where it matters just now whether something was added."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Final

from gateway.interfaces import Upstream

#: An upstream that takes longer is not waited for.
PATIENCE_SECONDS: Final = 5.0


async def relearn(upstreams: Iterable[Upstream]) -> None:
    """Ask them all at once; back when each has said it, did not answer, or took too long."""
    await asyncio.gather(*(_asked(upstream) for upstream in upstreams))


async def _asked(upstream: Upstream) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            await upstream.relearn()
