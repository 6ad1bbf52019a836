"""What a node asks of the program that runs it: tensors, a progress bar, an interrupt, a log.

Real ComfyUI (a125cd84) hands torch tensors and has all of it; elsewhere images are numpy arrays and the rest is
silence. torch and comfy are looked for only when a node runs, never at import.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any

#: ComfyUI forwards what this logger says to whoever subscribed to its logs.
logger = logging.getLogger("comfygate")


def no_tick(_value: int, _maximum: int) -> None:
    """Progress that nobody watches."""


def never_interrupted() -> None:
    """An interrupt that never comes."""


def no_log(_line: str) -> None:
    """A log that nobody reads."""


def to_array(image: Any) -> Any:
    """An IMAGE as a numpy array, without copying where it is one or shares memory with one."""
    return image.detach().cpu().numpy() if hasattr(image, "detach") else image


def like_input(array: Any, image: Any) -> Any:
    """A node's result in the type of its input; the very input object when it is the same data."""
    if array is image:
        return image
    if not hasattr(image, "detach"):
        return array
    return import_module("torch").from_numpy(array)


def progress_ticks() -> Callable[[int, int], None]:
    """A callback (value, maximum) that moves ComfyUI's bar of the running node."""
    try:
        bar = import_module("comfy.utils").ProgressBar(1)
    except ImportError:
        return lambda _value, _maximum: None

    def tick(value: int, maximum: int) -> None:
        bar.update_absolute(value, maximum)

    return tick


def interrupt_check() -> Callable[[], None]:
    """A callback that raises ComfyUI's own exception once the user asked to interrupt."""
    try:
        management = import_module("comfy.model_management")
    except ImportError:
        return lambda: None
    check: Callable[[], None] = management.throw_exception_if_processing_interrupted
    return check
