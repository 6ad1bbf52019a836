"""Event streams, described: how they are asked for, and what they answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel

from gateway.api.openapi.vocabulary import EVENT_STREAM, Answer, Content, Model, Parameter
from gateway.api.previews import PARAMETER

LAST_EVENT_ID: Final = (
    Parameter(
        "Last-Event-ID",
        "The number after which to go on; none, or one that never was: from the beginning.",
        where="header",
    ),
    Parameter("last_event_id", "The same, for clients that cannot send a header."),
)
PREVIEWS: Final = Parameter(
    PARAMETER, "1: pictures of the work come between, as the event `preview`.", {"type": "string", "enum": ["1", "0"]}
)


class Preview(Model):
    """A picture of the work; to those who asked."""

    node: str | None
    content_type: str
    data: str
    """In base64."""


def stream(events: Mapping[str, type[BaseModel]]) -> Content:
    """Server-Sent Events. Args: events: the data of each, by its name."""
    return Content({"type": "string"}, events=events)


def event_answers(events: Mapping[str, type[BaseModel]]) -> tuple[Answer, ...]:
    """The stream of a job, and that there is no more of it."""
    return (
        Answer(
            200,
            "Server-Sent Events until the job ends, or its files are delivered; `id` stands on those that can be gone on after.",
            {EVENT_STREAM: stream(events)},
        ),
        Answer(204, "The client has seen the last event: EventSource does not come back."),
    )
