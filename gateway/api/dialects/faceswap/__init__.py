"""The dialect ``faceswap``: POST a photo and a video, watch the swap as SSE or over a WebSocket, fetch the file.

``translation`` holds the five pure functions, ``handlers`` and ``socket`` carry values between the web and the engine.
``docs/dialects.md`` lists every field, code and deliberate difference from the published document.
"""

from __future__ import annotations

from typing import Final

from gateway.api.auth import Access
from gateway.api.dialects.faceswap import handlers, socket, translation
from gateway.api.window import Dialect, Endpoint, Holds, SocketEndpoint

DIALECT: Final = Dialect(
    name=translation.NAME,
    endpoints=(
        Endpoint("GET", "/", handlers.get_root, Access.PUBLIC),
        Endpoint("POST", "/face-swap", handlers.post_face_swap, holds=Holds.SLOT),
        Endpoint("GET", "/status/{prompt_id}", handlers.get_status, is_polled=True),
        Endpoint("GET", "/events/{prompt_id}", handlers.get_events, holds=Holds.SLOT, takes_ticket=True),
        SocketEndpoint("/face-swap-ws", socket.face_swap_socket),
        Endpoint("GET", "/download/{filename}", handlers.get_download, Access.PUBLIC),
        Endpoint("GET", "/health", handlers.get_health, Access.PUBLIC),
        Endpoint("GET", "/health/ready", handlers.get_ready, Access.PUBLIC),
    ),
    prefixes=("/", "/face-swap", "/face-swap-ws", "/status", "/events", "/download", "/health"),
    envelope=translation.error_body,
    state_words=translation.STATE_WORDS,
    told_outside=translation.ended_body,
    description=f"{__name__}.description",
)
