"""What we ship fits together: the templates and the embedded worker's own node tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.comfy.graph import allowed_values
from gateway.embedded.files import Folders
from gateway.embedded.registry import REGISTRY
from gateway.engine.template_files import shipped_workflows
from gateway.fitness import check
from gateway.interfaces import Capabilities
from gateway.template import load_template, missing_on


@pytest.mark.parametrize("name", ["faceswap_gif", "faceswap_image", "faceswap_video"])
def test_embedded_worker_can_run_every_shipped_template(name, tmp_path: Path):
    folder = shipped_workflows() / name
    template = load_template(name, (folder / "template.toml").read_text(), (folder / "graph.json").read_text())
    worker = Folders(tmp_path)
    worker.prepare()
    object_info = {node.name: node.object_info(worker) for node in REGISTRY.values()}
    classes = {node_class: allowed_values(entry) for node_class, entry in object_info.items()}
    assert check(template, object_info) == []
    assert missing_on(template, Capabilities(classes, None, object_info)) == ()
    assert classes["ReActorFaceSwap"]["swap_model"] == ("cpu-preview",)
