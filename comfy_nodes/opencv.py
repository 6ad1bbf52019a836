"""OpenCV when it is needed, a clear sentence when it is not there, and its threads kept to one while we work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

#: Told to whoever runs a node without it. OpenCV 5 ships neither CascadeClassifier nor cascades.
MISSING_SENTENCE = (
    "Face swap and face detection need OpenCV 4 with its face cascades: "
    "pip install 'opencv-python-headless>=4.14,<5' (with comfygate: pip install 'comfygate[embedded]')"
)


class OpenCVMissingError(RuntimeError):
    """OpenCV is not installed, or is one without face cascades."""

    def __init__(self) -> None:
        super().__init__(MISSING_SENTENCE)


@cache
def load_cv2() -> Any:
    """The cv2 module.

    Raises:
        OpenCVMissingError: it cannot be imported or has no cascades.
    """
    try:
        import cv2
    except ImportError as error:
        raise OpenCVMissingError from error
    if not hasattr(cv2, "CascadeClassifier") or not hasattr(cv2, "data"):
        raise OpenCVMissingError
    return cv2


@cache
def load_cascade(file_name: str) -> Any:
    """A bundled cascade, by file name; read from disk once.

    Raises:
        OpenCVMissingError: OpenCV or the file is not there.
    """
    cv2 = load_cv2()
    path = Path(cv2.data.haarcascades) / file_name
    cascade = cv2.CascadeClassifier(str(path)) if path.is_file() else None
    if cascade is None or cascade.empty():
        raise OpenCVMissingError
    return cascade


@contextmanager
def single_thread() -> Iterator[None]:
    """One OpenCV thread inside; what the host had, after.

    Pictures this small lose more to handing work around than they win, and the worker shares its machine.
    """
    cv2 = load_cv2()
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
