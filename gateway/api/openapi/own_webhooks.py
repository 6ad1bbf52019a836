"""Our own routes about webhooks, described."""

from __future__ import annotations

from typing import Final

from gateway.api import webhooks
from gateway.api.openapi import samples
from gateway.api.openapi.own_jobs import limit
from gateway.api.openapi.vocabulary import (
    JSON,
    Body,
    Content,
    Model,
    Moment,
    Operation,
    Parameter,
    json_answer,
    opened,
)
from gateway.errors import ConflictError, NotFoundError
from gateway.outbox import KINDS, TEST_KIND, MessageState, Reason

TAG: Final = "webhooks"
_ID: Final = "msg_01978b6e-6b8c-7c3a-9c1e-5d2f8a4b7c90"
_MESSAGE: Final = {
    "id": _ID,
    "type": "job.succeeded",
    "job": samples.JOB_ID,
    "url": "https://receiver.example.org/hook",
    "state": "delivered",
    "attempts": 1,
    "next_at": None,
    "last_at": "2025-06-18T15:00:32.000Z",
    "last_status": 200,
    "reason": "answered",
    "created_at": "2025-06-18T15:00:31.000Z",
}


class WebhookMessage(Model):
    """What is or was sent to a webhook."""

    id: str
    type: str
    job: str
    url: str
    state: MessageState
    attempts: int
    next_at: Moment | None
    last_at: Moment | None
    last_status: int | None
    reason: Reason | None
    created_at: Moment


class WebhookMessages(Model):
    """A page of messages, newest first."""

    webhooks: list[WebhookMessage]
    next: str | None
    """Of the next page's `before`; null on the last."""


class WebhookTrial(Model):
    """What came of one attempt."""

    id: str
    delivered: bool
    status: int | None
    reason: Reason


class WebhookSecret(Model):
    """A new secret, told this once."""

    secret: str
    previous_until: Moment | None
    """Until then the one before it signs as well."""


def operations() -> dict[str, Operation]:
    """All of them."""
    url = {"type": "string", "format": "uri", "minLength": 1, "description": "Where the message goes."}
    secret = {"secret": "whsec_…", "previous_until": "2025-06-19T15:00:00.000Z"}
    trial = {"id": "msg_test", "delivered": True, "status": 200, "reason": "answered"}
    return {
        "GET /-/webhooks": Operation(
            id="list_webhooks",
            tag=TAG,
            summary="The caller's messages, newest first",
            help=f"Their types are {', '.join(KINDS.values())}.",
            parameters=(
                Parameter("state", "Only messages in this state.", {"enum": list(MessageState)}),
                Parameter("before", "`next` of an earlier page."),
                limit(webhooks.MAX_LIMIT, webhooks.DEFAULT_LIMIT),
            ),
            answers=(json_answer(200, "A page.", WebhookMessages, {"page": {"webhooks": [_MESSAGE], "next": None}}),),
        ),
        "POST /-/webhooks/{id}/redeliver": Operation(
            id="redeliver_webhook",
            tag=TAG,
            summary="Send a message once more, under its id",
            parameters=(Parameter("id", "Of the message.", where="path", example=_ID),),
            answers=(
                json_answer(
                    202,
                    "It goes out now, and by the schedule from its beginning.",
                    WebhookMessage,
                    {"pending": {**_MESSAGE, "state": "pending", "next_at": "2025-06-18T16:00:00.000Z"}},
                ),
            ),
            raises=(NotFoundError,),
        ),
        "POST /-/webhooks/test": Operation(
            id="test_webhook",
            tag=TAG,
            summary="One attempt, now, with a message that means nothing",
            help=f"Its type is `{TEST_KIND}`.",
            body=Body(
                {JSON: Content(opened({"url": url}, ("url",)), {"trial": {"url": "https://receiver.example.org/hook"}})}
            ),
            answers=(json_answer(200, "What came of it.", WebhookTrial, {"delivered": trial}),),
        ),
        "POST /-/webhooks/secret": Operation(
            id="new_webhook_secret",
            tag=TAG,
            summary="A new secret; the one before it signs for a day more",
            answers=(json_answer(201, "Told this once.", WebhookSecret, {"secret": secret}),),
            raises=(ConflictError,),
        ),
    }
