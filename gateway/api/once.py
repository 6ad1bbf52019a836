"""``Idempotency-Key`` for dialects: whose request it is, doing it once, and the answer whoever did it.

A dialect reads the body first, asks ``wanted_of`` what is wanted, and hands ``once`` the function that does it. That
function submits with the promise that it is given the claim for; whatever it raises is answered and not kept. The order
around it is the same for all: the key's requests are counted, the body is read, an answer that is there is told again,
and only then a place among the creates in flight is taken, the claim made, and anything fetched or charged.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.facade import Done
from gateway.api.problems import JSON_TYPE, to_json
from gateway.api.window import Call
from gateway.idempotency import HEADER, Answer, Claim, Wanted, fingerprint, key_of
from gateway.interfaces import Promise
from gateway.job import Job
from gateway.strictjson import JsonValue

REPLAYED: Final = "Idempotent-Replayed"

#: A dialect's answer to a create, made of the new job and nothing else: a status of 2xx and a body.
AnswerOf = Callable[[Job], tuple[int, Mapping[str, object]]]


def wanted_of(request: Request, call: Call, body: JsonValue) -> Wanted | None:
    """What a request wants done once; None when it has no key, and is done as often as it comes.

    Args:
        request: its query does not count: how long a client waits is no part of what it asks for.
        call: whose key it is.
        body: as it was read strictly.

    Raises:
        InvalidInputError: the key is malformed, or there are two.
    """
    key = key_of(request.headers.getlist(HEADER))
    if key is None:
        return None
    return Wanted(call.known.owner, key, fingerprint(request.method, request.scope["path"], body))


async def once(
    call: Call,
    wanted: Wanted | None,
    make: Callable[[Promise | None], Awaitable[Job]],
    answer: AnswerOf,
    *,
    until: float,
) -> Done:
    """The answer to a create, done now or told again.

    Args:
        call: who asks.
        wanted: see ``wanted_of``.
        make: fetches, checks and submits, with the promise it is given in its submission.
        answer: what is told of the new job.
        until: seconds of the engine's monotonic clock; nobody waits for another's answer for longer.

    Raises:
        ConcurrencyLimitedError: as many creates of the key are in flight as may be.
        IdempotencyMismatchError: the key was used for another request.
        IdempotencyInFlightError: the first one had no answer in time.
        GatewayError: what ``make`` raises.
    """

    def told(job: Job) -> Answer:
        status, body = answer(job)
        return Answer(status, to_json(body), job.id)

    async def claimed(claim: Claim) -> Answer:
        return told(await make(Promise(claim, told)))

    if wanted is not None:
        return await call.service.claims.once(wanted, claimed, room=call.creating, until=until)
    with call.creating():
        return Done(told(await make(None)), is_replay=False)


def once_response(done: Done, body: bytes | None = None) -> Response:
    """The answer over HTTP; one that is told again says so.

    Args:
        done: as ``once`` gave it.
        body: what there is to tell by now, where the client waited for more than the answer.
    """
    replayed = {REPLAYED: "true"} if done.is_replay else {}
    content = done.answer.body if body is None else body
    return Response(content, done.answer.status, {"Cache-Control": "no-store", **replayed}, JSON_TYPE)
