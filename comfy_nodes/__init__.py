"""A ComfyUI custom-node pack: face swap and face detection on the CPU. Imports nothing of gateway/.

Drop this folder, under any name, into ComfyUI's ``custom_nodes``. Importing it is cheap and needs nothing but the
standard library: numpy and OpenCV are loaded when a node first runs.
"""

from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from .routes import register

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]

register()
