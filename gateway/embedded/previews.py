"""A small picture of what a node has made, and the two binary frames that it can travel in.

ComfyUI sends such pictures while a sampler works (``--preview-method auto``). No node here samples: the picture is the
first of those that a node gave, sent once, when it is done.

Source: ComfyUI a125cd84, ``protocol.py`` (numbers), ``server.py`` (send_image, send_image_with_metadata),
``comfy_execution/progress.py`` (the metadata), ``latent_preview.py`` (512 pixels, JPEG).
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from gateway.embedded.node import NodeResult

LONGEST_SIDE_PIXELS = 512
_QUALITY = 95
_PREVIEW_IMAGE = 1
_PREVIEW_IMAGE_WITH_METADATA = 4
_JPEG = 1
_FRAMES_AXES = 4


@dataclass(frozen=True, slots=True)
class Preview:
    """One picture of one node."""

    prompt_id: str
    node_id: str
    jpeg: bytes

    def plain(self) -> bytes:
        """The frame for clients that did not say that they take metadata."""
        return struct.pack(">II", _PREVIEW_IMAGE, _JPEG) + self.jpeg

    def described(self) -> bytes:
        """The frame that tells what it is of."""
        metadata = {
            "node_id": self.node_id,
            "prompt_id": self.prompt_id,
            "display_node_id": self.node_id,
            "parent_node_id": None,
            "real_node_id": self.node_id,
            "image_type": "image/jpeg",
        }
        text = json.dumps(metadata).encode()
        return struct.pack(">II", _PREVIEW_IMAGE_WITH_METADATA, len(text)) + text + self.jpeg


#: Sends a preview to whoever watches the prompt.
Show = Callable[[Preview], None]


def preview_of(prompt_id: str, node_id: str, result: NodeResult) -> Preview | None:
    """What a node's result looks like; None where it gave no pictures."""
    images = result.outputs[0] if result.outputs else None
    if not isinstance(images, np.ndarray) or images.ndim != _FRAMES_AXES or not len(images):
        return None
    picture = Image.fromarray(images[0])
    picture.thumbnail((LONGEST_SIDE_PIXELS, LONGEST_SIDE_PIXELS), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    return Preview(prompt_id, node_id, file.getvalue())
