"""The dialect ``swiftswap``: POST a photo and a picture or video, ask for the task's status, fetch the file.

``translation`` holds the pure functions, ``handlers`` carry values between the web and the engine.
``docs/dialects.md`` lists every field and every deliberate difference from the published document.
"""

from __future__ import annotations

from typing import Final

from gateway.api.auth import Access
from gateway.api.dialects.swiftswap import handlers, translation
from gateway.api.window import Dialect, Endpoint, Holds

DIALECT: Final = Dialect(
    name=translation.NAME,
    endpoints=(
        Endpoint("GET", "/check_status", handlers.get_check_status, Access.PUBLIC),
        # Both spellings are served: a client that is redirected sends its files twice, or a GET without them.
        Endpoint("POST", "/swap_image/", handlers.post_swap_image, holds=Holds.SLOT),
        Endpoint("POST", "/swap_image", handlers.post_swap_image, holds=Holds.SLOT),
        Endpoint("POST", "/swap_video/", handlers.post_swap_video, holds=Holds.SLOT),
        Endpoint("POST", "/swap_video", handlers.post_swap_video, holds=Holds.SLOT),
        Endpoint("GET", "/check_task_status/{task_id}", handlers.get_task_status, is_polled=True),
        Endpoint("GET", "/static/{name}", handlers.get_static, Access.PUBLIC),
    ),
    prefixes=("/check_status", "/swap_image", "/swap_video", "/check_task_status", "/static"),
    envelope=translation.error_body,
    state_words=translation.STATE_WORDS,
    description=f"{__name__}.description",
)
