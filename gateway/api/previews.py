"""Pictures of a job at work, for those who ask: whether one does, how often one comes, and how it is spelled.

They are passing events with one slot per job: whoever takes them slowly, or late, gets the newest. One that does not ask
(``?previews=1``) is not even woken by them. What a dialect makes of a picture is its own affair; here are the two forms
that need no dialect, base64 in JSON and ComfyUI's own binary frame.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Mapping
from typing import Final
from weakref import WeakKeyDictionary

from gateway.api.following import Frame
from gateway.api.problems import to_json
from gateway.errors import InvalidInputError
from gateway.events import PreviewImage

PARAMETER: Final = "previews"
_TRUTH: Final = {"1": True, "true": True, "0": False, "false": False, "": False}
#: ComfyUI's number of the frame ``PREVIEW_IMAGE_WITH_METADATA``. Source: ComfyUI a125cd84, ``protocol.py``.
_PREVIEW_WITH_METADATA: Final = 4


def wants_previews(query: Mapping[str, str]) -> bool:
    """Whether a query asks for them. Raises InvalidInputError for what is neither yes nor no."""
    wanted = _TRUTH.get(query.get(PARAMETER, "").lower())
    if wanted is None:
        raise InvalidInputError(f"{PARAMETER} is 1 or 0.", field=PARAMETER)
    return wanted


class ShownOnce:
    """Makes one frame per picture, however many watch; it is forgotten with its picture.

    Args:
        show: a picture as a frame.
    """

    def __init__(self, show: Callable[[PreviewImage], Frame]) -> None:
        self._show = show
        self._shown: WeakKeyDictionary[PreviewImage, Frame] = WeakKeyDictionary()

    def __call__(self, picture: PreviewImage) -> Frame:
        """The frame; the same object for all."""
        frame = self._shown.get(picture)
        if frame is None:
            frame = self._shown[picture] = self._show(picture)
        return frame


def as_json(picture: PreviewImage) -> Frame:
    """For streams of text: ``preview`` with the picture in base64."""
    data: dict[str, object] = {
        "node": picture.node,
        "content_type": picture.content_type,
        "data": base64.b64encode(picture.data).decode(),
    }
    return Frame("preview", data)


def as_binary(picture: PreviewImage) -> Frame:
    """For sockets: the frame that ComfyUI sends, so that what reads those reads these.

    Two big-endian words of 32 bits (4, and the length of the metadata), the metadata as JSON, the picture.
    """
    metadata = {"prompt_id": picture.job_id, "node_id": picture.node, "image_type": picture.content_type}
    described = to_json(metadata)
    header = struct.pack(">II", _PREVIEW_WITH_METADATA, len(described))
    return Frame("preview", {}, binary=header + described + picture.data)
