"""``Idempotency-Key`` as this contract wants it: good for one request of its owner, whatever that asked for.

Nothing is told again. A key is taken when a request is known to be well-formed, free again when that fails, and used up
for a day by whatever it leads to. Keys of other dialects are other keys.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from starlette.requests import Request

from gateway.accounts import may_hold_a_key
from gateway.api.dialects.comfy_v2.words import NAME
from gateway.api.window import Call
from gateway.errors import InvalidInputError
from gateway.idempotency import HEADER, Claim, Wanted

#: The contract recommends a UUID and sets no limit; this is what its reference proxy takes.
KEY: Final = re.compile(r"[\x20-\x7e]{1,255}")


async def wanted_of(request: Request, call: Call) -> Wanted | None:
    """The key of a request that is new; None when it has none. Ask before much is read.

    Raises:
        InvalidInputError: it is malformed, or there are two.
        IdempotencyReuseError: it was used, or is being used.
    """
    values = request.headers.getlist(HEADER)
    if not values:
        return None
    if len(values) > 1 or KEY.fullmatch(values[0]) is None:
        raise InvalidInputError(f"{HEADER} takes 1 to 255 printable ASCII characters, once.", field=HEADER)
    if may_hold_a_key(values[0]):
        raise InvalidInputError(f"{HEADER} holds an API key, and what it holds is stored: send another.", field=HEADER)
    # A blank is in no key of another dialect. What the request says does not matter: there is no second one.
    wanted = Wanted(call.known.owner, f"{NAME} {values[0]}", NAME)
    await call.service.claims.require_unused(wanted)
    return wanted


@asynccontextmanager
async def claimed(call: Call, wanted: Wanted | None) -> AsyncIterator[Claim | None]:
    """The claim of a key for the length of a block, to be stored with what the request leads to; None without a key.

    Raises:
        IdempotencyReuseError: on entering: another request was faster.
    """
    if wanted is None:
        yield None
        return
    async with call.service.claims.single(wanted) as claim:
        yield claim
