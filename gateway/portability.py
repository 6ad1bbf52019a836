"""What the platform lacks, in sentences for the operator. Decides only; ``serving.py`` asks the platform and logs.

Linux is what the tests run on. macOS and WSL are written for and have not been run: whoever starts there is told, and
what the gateway does without.
"""

from __future__ import annotations

from dataclasses import dataclass

_SYSTEMS = {"darwin": "macOS"}


@dataclass(frozen=True, slots=True)
class Platform:
    """What matters of a platform."""

    #: ``sys.platform``.
    system: str
    #: Release of the kernel; WSL's says "microsoft".
    kernel: str
    has_tcp_user_timeout: bool
    has_uvloop: bool


def lacks(platform: Platform) -> tuple[str, ...]:
    """One sentence for each thing that is missing here, none on Linux with uvloop."""
    is_linux = platform.system == "linux"
    is_wsl = is_linux and "microsoft" in platform.kernel.lower()
    found = []
    if is_wsl or not is_linux:
        name = "WSL" if is_wsl else _SYSTEMS.get(platform.system, platform.system)
        found.append(f"The gateway is tested on Linux; it has not been run on {name}.")
    if not platform.has_tcp_user_timeout:
        found.append(
            "This platform has no TCP_USER_TIMEOUT: the connection of a reader that vanished is kept until the kernel "
            "gives it up."
        )
    if not is_linux:
        found.append(
            "This platform has no parent-death signal: a worker whose gateway was killed ends when its input does, and a "
            "ComfyUI that the gateway runs goes on when the process that watches it is killed."
        )
    if not platform.has_uvloop:
        found.append("uvloop is not installed: the gateway runs on asyncio's own event loop, and slower.")
    return tuple(found)
