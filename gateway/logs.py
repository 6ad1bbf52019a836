"""How log lines look: one processor chain for our own, uvicorn's and the libraries' lines.

What must never stand in a line (names of uploaded files, URL queries, tokens) is not put into one; this module does not
try to find it afterwards.
"""

from __future__ import annotations

import logging
import sys
from typing import Literal

import orjson
import structlog
from structlog.typing import Processor

#: Libraries that tell at INFO what we tell ourselves, or tell URLs with their queries. uvicorn.error tells the query of each
#: WebSocket at INFO, and all its headers at DEBUG: tickets and keys.
QUIET = ("httpx", "httpcore", "httpcore2", "websockets", "alembic", "uvicorn.access", "uvicorn.error", "asyncio")
#: They would log requests with their signatures and session tokens.
TELLTALES = ("boto3", "botocore", "s3transfer", "urllib3")


def configure(level: str, style: Literal["text", "json"]) -> None:
    """Send all logging to standard error at ``level``."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[Processor]
    if style == "json":
        renderer = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=lambda value, **_: orjson.dumps(value, default=repr).decode()),
        ]
    else:
        # Plain, because the default shows the locals of each frame: tokens, URLs and file names among them.
        renderer = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
            )
        ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in (*QUIET, *TELLTALES):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_no_false_alarm)


def _no_false_alarm(record: logging.LogRecord) -> bool:
    """Drop uvicorn's error line for every refused WebSocket: the refusal is an answer, not a fault."""
    return "ASGI callable returned without completing handshake" not in record.getMessage()
