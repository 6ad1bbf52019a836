"""Every node class the worker has."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.embedded.node import NodeType
from gateway.embedded.nodes_faces import FACE_NODES
from gateway.embedded.nodes_image import IMAGE_NODES
from gateway.embedded.nodes_video import VIDEO_NODES

REGISTRY: Mapping[str, NodeType] = {node.name: node for node in (*IMAGE_NODES, *VIDEO_NODES, *FACE_NODES)}
