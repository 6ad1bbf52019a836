"""The dialect ``backserv``: submit a task of one of four types as JSON, query it, cancel it.

``translation`` holds the pure functions, ``handlers`` carries values between the web and the engine. There are no
streams in this dialect: it is polled. ``docs/dialects.md`` lists every field, code and deliberate difference from the
published document.
"""

from __future__ import annotations

from typing import Final

from gateway.api.dialects.backserv import handlers, translation
from gateway.api.window import Dialect, Endpoint, Holds

DIALECT: Final = Dialect(
    name=translation.NAME,
    endpoints=(
        Endpoint("POST", "/submit_task", handlers.submit_task, holds=Holds.SLOT),
        Endpoint("GET", "/query_task/{ticket_id}", handlers.query_task, is_polled=True),
        Endpoint("POST", "/cancel_task/{ticket_id}", handlers.cancel_task),
        Endpoint("GET", "/task_types", handlers.get_task_types),
    ),
    prefixes=("/submit_task", "/query_task", "/cancel_task", "/task_types"),
    envelope=translation.error_body,
    state_words=translation.STATE_WORDS,
    description=f"{__name__}.description",
)
