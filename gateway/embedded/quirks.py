"""Which of ComfyUI's habits the worker shows: none of the harmful ones unless a profile asks for them.

Source: ComfyUI a125cd84 (0.3.64), run and recorded; for ``newer`` public sources of versions around 0.38, read only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Profile(StrEnum):
    """The names that ``--quirks`` takes."""

    V0_3_64 = "0.3.64"
    NEWER = "newer"


@dataclass(frozen=True, slots=True)
class Quirks:
    """What a client may see. The defaults are the well-behaved server."""

    #: What /system_stats says.
    comfyui_version: str = "0.3.64"
    #: When the older of two sockets with one clientId ends, the newer one stops getting frames.
    orphan_reused_client_id: bool = False
    #: All sockets share one send loop, so one reader that stops reading stalls everybody.
    single_send_loop: bool = False
    #: Progress and interruption of a prompt without client_id go to every socket.
    broadcast_clientless: bool = False
    #: A second pending prompt with the same id and number is answered 500, and queued all the same.
    error_on_same_number: bool = False
    #: At most ten ticks a second, none for less than half a per cent, and no tick of value 0 between passes.
    throttled_progress: bool = False
    #: ``prompt_id`` must be a canonical lower-case UUID.
    strict_prompt_ids: bool = False
    #: /api/jobs, /api/jobs/{id}, /api/jobs/{id}/cancel exist.
    jobs_api: bool = False
    #: Unknown classes are ``missing_node_type``; cycles are named in node_errors.
    named_graph_errors: bool = False
    #: The server adds ``extra_data.create_time`` (milliseconds).
    create_time: bool = False
    #: Uploads answer with ``asset``, output items carry ``id``.
    asset_ids: bool = False


WELL_BEHAVED = Quirks()

PROFILES = {
    Profile.V0_3_64: Quirks(
        orphan_reused_client_id=True,
        single_send_loop=True,
        broadcast_clientless=True,
        error_on_same_number=True,
    ),
    Profile.NEWER: Quirks(
        comfyui_version="0.38.0",
        # Its /ws handler is unchanged, so these three stay.
        orphan_reused_client_id=True,
        single_send_loop=True,
        broadcast_clientless=True,
        throttled_progress=True,
        strict_prompt_ids=True,
        jobs_api=True,
        named_graph_errors=True,
        create_time=True,
        asset_ids=True,
    ),
}
