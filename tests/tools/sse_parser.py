"""A strict reader of Server-Sent Events, straight from WHATWG HTML section 9.2.6; and a check that ours are plain.

``parse`` does what a browser does. ``Block`` keeps comments and retry times too, which a browser hides from pages.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Message:
    """One dispatched event."""

    event: str
    data: str
    last_event_id: str

    @property
    def json(self) -> Any:
        return json.loads(self.data)


@dataclass
class Parsed:
    messages: list[Message] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    retry: int | None = None
    last_event_id: str = ""

    @property
    def names(self) -> list[str]:
        return [message.event for message in self.messages]


def parse(body: bytes) -> Parsed:
    """What a browser makes of a whole stream. An unterminated last block is thrown away, as the standard says."""
    text = body.decode("utf-8", "replace").removeprefix("\ufeff")
    lines = re.split(r"\r\n|\n|\r", text)
    parsed = Parsed()
    data: list[str] = []
    name = ""
    pending_id = ""
    for line in lines[:-1]:
        if line == "":
            parsed.last_event_id = pending_id
            if data:
                parsed.messages.append(Message(name or "message", "\n".join(data), parsed.last_event_id))
            data, name = [], ""
            continue
        if line.startswith(":"):
            parsed.comments.append(line[1:].removeprefix(" "))
            continue
        key, colon, value = line.partition(":")
        value = value.removeprefix(" ") if colon else ""
        match key:
            case "event":
                name = value
            case "data":
                data.append(value)
            case "id" if "\0" not in value:
                pending_id = value
            case "retry" if value.isascii() and value.isdigit():
                parsed.retry = int(value)
    return parsed
