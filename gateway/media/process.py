"""One child process that decodes, seen from the gateway: started, asked, killed.

It knows the lines that go back and forth, not what is in them. A child that is late, silent or says something else than
an answer to the question is killed; whoever holds it throws it away.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import gateway

#: What it says first, when it listens.
_READY: Final = b"ready\n"
#: An answer is a handful of facts.
_LONGEST_ANSWER_BYTES: Final = 64 * 1024
#: Importing the codecs takes a third of a second, and many times that where all processors are wanted. No file is to be
#: refused for it.
_START_SECONDS: Final = 120.0


class ChildLostError(Exception):
    """The child died, or answered something that is no answer, before it was done."""


class Child:
    """A running child; asks are one at a time.

    Args:
        process: the child's.
        is_ready: whether it has said that it listens.
    """

    def __init__(self, process: Process, *, is_ready: bool = False) -> None:
        self._process = process
        self._is_ready = is_ready
        self._killed = False
        #: how many tasks it was given.
        self.asked = 0
        #: memory it held after the last one, by its own account; None where it cannot tell.
        self.resident_bytes: int | None = None

    @classmethod
    async def start(cls) -> Self:
        """A fresh child. It warms up by itself; the first task waits for that, which is not of the task's time."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway.media.child",
            str(os.getpid()),
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            cwd="/",
            env=_environment(),
            limit=_LONGEST_ANSWER_BYTES,
        )
        return cls(process)

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked. One that was killed cannot, though the kernel may take a moment."""
        return not self._killed and self._process.returncode is None

    @property
    def is_gone(self) -> bool:
        """Whether the process has ended and was reaped."""
        return self._process.returncode is not None

    async def ask(self, task: Mapping[str, Any], *, timeout_seconds: float) -> dict[str, Any]:
        """The child's answer.

        Raises:
            TimeoutError: it took longer; kill it.
            ChildLostError: it is gone or confused; kill it.
        """
        self.asked += 1
        numbered = {**task, "id": self.asked}
        await self._ready()
        try:
            async with asyncio.timeout(timeout_seconds):
                answer = await self._exchange(json.dumps(numbered).encode() + b"\n")
        except (OSError, ValueError) as error:
            # A broken pipe, a line beyond the limit, or one that is no JSON. TimeoutError is an OSError too.
            if isinstance(error, TimeoutError):
                raise
            raise ChildLostError from error
        if not isinstance(answer, dict) or answer.get("id") != self.asked:
            raise ChildLostError
        self.resident_bytes = answer.get("resident_bytes")
        return answer

    async def _ready(self) -> None:
        """Wait until it has imported what it decodes with. Raises ChildLostError."""
        if self._is_ready or self._process.stdout is None:
            return
        try:
            async with asyncio.timeout(_START_SECONDS):
                line = await self._process.stdout.readline()
        except (OSError, ValueError) as error:  # TimeoutError is an OSError
            raise ChildLostError from error
        if line != _READY:
            raise ChildLostError
        self._is_ready = True

    async def _exchange(self, line: bytes) -> Any:
        if self._process.stdin is None or self._process.stdout is None:
            raise ChildLostError
        self._process.stdin.write(line)
        await self._process.stdin.drain()
        return json.loads(await self._process.stdout.readline())

    def kill(self) -> None:
        """End it now, in the middle of whatever it does."""
        if self.is_alive:
            self._killed = True
            self._process.kill()

    async def ended(self) -> None:
        """Wait until it is gone and reaped, after ``kill``."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()


def _environment() -> dict[str, str]:
    """Nothing of ours but where modules are: no tokens, no credentials. One thread for numpy, which else takes all."""
    roots = [str(Path(gateway.__file__).parents[1]), *(entry for entry in sys.path if entry)]
    return {"PYTHONPATH": os.pathsep.join(roots), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
