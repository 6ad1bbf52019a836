"""Webhooks over ``/-/``, for their owner: what was told and what was not, once more, a trial, a new secret."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.problems import json_response, to_json
from gateway.api.shown import lookup_id, timestamp
from gateway.api.uploads import receive_json
from gateway.api.window import Call, Endpoint, Holds
from gateway.errors import InvalidInputError
from gateway.outbox import TEST_KIND, Message, MessageState, message_id

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 100


async def get_webhooks(request: Request, call: Call) -> Response:
    """``GET /-/webhooks?state=dead&before=<id>&limit=50``: the caller's messages, newest first."""
    query = request.query_params
    limit = _limit(query.get("limit", str(DEFAULT_LIMIT)))
    # One more than asked for tells whether there is a next page.
    found = await call.service.webhooks.messages(
        call.known.owner, state=_state(query.get("state")), before=query.get("before") or None, limit=limit + 1
    )
    page = found[:limit]
    more = page[-1].id if len(found) > limit else None
    return json_response({"webhooks": [message_body(message) for message in page], "next": more})


async def post_redeliver(request: Request, call: Call) -> Response:
    """``POST /-/webhooks/{id}/redeliver``: now, and by the schedule from its beginning; the same id, a new time."""
    wanted = message_id(lookup_id(request.path_params["id"].removeprefix(message_id(""))))
    message = await call.service.webhooks.redeliver(wanted, call.known.owner)
    return json_response(message_body(message), 202)


async def post_test(request: Request, call: Call) -> Response:
    """``POST /-/webhooks/test`` {url}: one attempt, now, with a message that means nothing."""
    body = await receive_json(request, call.window.form_limits, stopping=call.service.stopping)
    url = body.get("url")
    if not isinstance(url, str) or not url:
        raise InvalidInputError("url is where the message goes.", field="url")
    call.service.check_webhook(url, field="url")
    test_id, answer = await call.service.webhooks.test(call.known.owner, account_of(call), url, _trial)
    told = {"id": test_id, "delivered": answer.is_success, "status": answer.status, "reason": answer.reason.value}
    return json_response(told)


async def post_secret(request: Request, call: Call) -> Response:
    """``POST /-/webhooks/secret``: a new secret, told this once; the one before it signs for a day more."""
    del request
    made = await call.service.webhooks.new_secret(account_of(call))
    until = None if made.previous_until is None else timestamp(made.previous_until)
    return json_response({"secret": made.text, "previous_until": until}, 201)


def account_of(call: Call) -> str:
    """Whose secret signs for the caller: the key's user, without a key the owner."""
    caller = call.known
    return caller.owner if caller.user is None else caller.user.id


def message_body(message: Message) -> dict[str, object]:
    """A message, as its owner sees it."""
    return {
        "id": message.id,
        "type": message.kind,
        "job": message.job_id,
        "url": message.url,
        "state": message.state.value,
        "attempts": message.attempts,
        "next_at": _moment(message.next_at),
        "last_at": _moment(message.last_at),
        "last_status": message.last_status,
        "reason": message.reason.value if message.reason else None,
        "created_at": timestamp(message.created_at),
    }


def _trial(now: float) -> bytes:
    return to_json({"type": TEST_KIND, "timestamp": timestamp(now), "data": {}})


def _moment(unix_seconds: float | None) -> str | None:
    return None if unix_seconds is None else timestamp(unix_seconds)


def _state(text: str | None) -> MessageState | None:
    if not text:
        return None
    try:
        return MessageState(text)
    except ValueError:
        known = ", ".join(state.value for state in MessageState)
        raise InvalidInputError(f"state is one of: {known}.", field="state") from None


def _limit(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= len(str(MAX_LIMIT)) and 1 <= int(text) <= MAX_LIMIT:
        return int(text)
    raise InvalidInputError(f"limit is a number from 1 to {MAX_LIMIT}.", field="limit")


ENDPOINTS: Final = (
    Endpoint("GET", "/-/webhooks", get_webhooks),
    Endpoint("POST", "/-/webhooks/secret", post_secret),
    # It lasts as long as the receiver takes.
    Endpoint("POST", "/-/webhooks/test", post_test, holds=Holds.SLOT),
    Endpoint("POST", "/-/webhooks/{id}/redeliver", post_redeliver),
)
