"""The dialect ``swaps_v1``: create a swap from URLs, list, look, cancel; find faces. Every request carries a key.

``reading`` reads bodies, ``translation`` and ``detection`` write them, ``refusals`` has the errors; all pure. ``handlers``
carries values between the web and the engine, ``waiting`` holds an answer back until a job ends. ``docs/dialects.md``
lists every member, code and deliberate difference from the published reference.
"""

from __future__ import annotations

from typing import Final

from gateway.api.auth import Access
from gateway.api.dialects.swaps_v1 import handlers, refusals, translation
from gateway.api.window import Dialect, Endpoint, Holds

DIALECT: Final = Dialect(
    name=translation.NAME,
    endpoints=(
        Endpoint("GET", "/api/v1/me", handlers.get_me, Access.KEY),
        Endpoint("GET", "/api/v1/swaps", handlers.get_swaps, Access.KEY),
        Endpoint("POST", "/api/v1/swaps", handlers.post_swaps, Access.KEY, holds=Holds.SLOT),
        Endpoint("GET", "/api/v1/swaps/{id}", handlers.get_swap, Access.KEY),
        Endpoint("DELETE", "/api/v1/swaps/{id}", handlers.delete_swap, Access.KEY),
        Endpoint("POST", "/api/v1/face-detect", handlers.post_face_detect, Access.KEY, holds=Holds.SLOT),
        Endpoint("GET", "/api/v1/face-detect/{id}", handlers.get_face_detect, Access.KEY),
    ),
    prefixes=("/api/v1",),
    envelope=refusals.error_body,
    state_words=translation.STATE_WORDS,
    told_outside=translation.ended_body,
    description=f"{__name__}.description",
)
