"""What operators are told of upstreams that keep the files of ended jobs, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.interfaces import Cleaning

#: What is so, and the remedy. Of the other states there is nothing to say.
KEEPS: Final[Mapping[Cleaning, tuple[str, str]]] = {
    Cleaning.NO_TOKEN: (
        "files of ended jobs stay there: there is no token to have them deleted",
        "install the node pack there ('comfygate nodes install'); set COMFYGATE_WORKER_TOKEN there, GATEWAY_UPSTREAM_TOKEN here",
    ),
    Cleaning.NO_ROUTE: (
        "files of ended jobs stay there: it has no node pack, or an earlier version",
        "install the node pack there ('comfygate nodes install') and restart it",
    ),
    Cleaning.REFUSED: (
        "files of ended jobs stay there: it refuses the token",
        "set COMFYGATE_WORKER_TOKEN in its environment to what GATEWAY_UPSTREAM_TOKEN is here, and restart it",
    ),
}
