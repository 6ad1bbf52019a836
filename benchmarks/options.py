"""What a run was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.material import Material


@dataclass(frozen=True)
class Options:
    """How much is measured."""

    rounds: int
    #: The least of everything: shows that the tools work, says nothing of speed.
    is_smoke: bool
    #: Executable of comfy-api-proxy.
    peer: Path | None
    #: Deleted at the end.
    folder: Path
    material: Material
    #: What scenarios' names must contain, in benchmarks that have several; "" means all of them.
    only: str = ""

    def pick(self, normal: int, smoke: int) -> int:
        """How many of something."""
        return smoke if self.is_smoke else normal

    def seconds(self, normal: float) -> float:
        """How long something is watched."""
        return 0.3 if self.is_smoke else normal
