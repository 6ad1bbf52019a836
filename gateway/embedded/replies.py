"""JSON as ComfyUI's aiohttp writes it: NaN passes, so that a prompt holding one cannot make /queue and /history fail."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response


class JSONReply(Response):
    """A JSON body."""

    media_type = "application/json; charset=utf-8"

    def render(self, content: Any) -> bytes:
        """The content as ASCII JSON."""
        return json.dumps(content, default=str).encode()
