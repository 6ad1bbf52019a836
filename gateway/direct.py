"""Videos that upstreams put to a delivery target themselves: which may be, what their graph says of it, what is heard back.

Pure. Such a video never passes the gateway. The graph of a template's attempt gets a ``GatewayUploadOutput`` behind the node
that makes the video, with a URL that takes one object *below a folder for arrivals*. From there the gateway copies it to its
place, within the storage and once size, hash and index were found right; so whoever reads the URL in a ComfyUI's history can
replace nothing that counts. ``engine/arrivals.py`` does all that; where anything is not as it should be the file is fetched
from the upstream as ever.

Sources: ComfyUI a125cd84 (ids of nodes are any strings); VideoHelperSuite 4ee72c0: VHS_VideoCombine gives its files as its
first output, and writes graph and workflow into them unless ``save_metadata`` is false.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from gateway.audit import MediaKind
from gateway.binding import Bound
from gateway.comfy.messages import NodeOutput, OutputFile
from gateway.interfaces import Capabilities
from gateway.template import OutputSpec

NODE_CLASS: Final = "GatewayUploadOutput"
#: Key of the node's report in the history.
REPORT: Final = "gateway_upload"
#: Classes whose first output is the names of the files that they made.
MAKERS: Final = frozenset({"VHS_VideoCombine"})
#: Below a target's prefix: what upstreams put there, until it is copied to its place.
ARRIVALS: Final = "comfygate-arrivals/"
#: How long a URL may be used. A prompt that takes longer has its file fetched.
URL_SECONDS: Final = 6 * 3600
#: What lies among the arrivals for longer is nobody's: no URL opens it any more, and what had arrived was taken over.
ARRIVAL_SECONDS: Final = 24 * 3600.0
#: One copy within the storage takes no more; nor does one PUT. Source: Amazon S3 API reference, CopyObject.
MAX_BYTES: Final = 5 * 1024**3
#: A report of the node's: a name, a reason and two numbers.
MAX_REPORT_CHARACTERS: Final = 4096
_NODE_PREFIX: Final = "comfygate-upload-"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Arrival:
    """What an upstream says that it has put there."""

    size_bytes: int
    #: 64 hex digits.
    sha256: str


@dataclass(frozen=True, slots=True)
class NotSent:
    """What an upstream says of why it has put nothing there."""

    reason: str


def sendable(bound: Bound, capabilities: Capabilities) -> tuple[OutputSpec, ...]:
    """Outputs of a graph that its upstream can put somewhere itself."""
    if bound.template.workflow is not None or "filenames" not in capabilities.classes.get(NODE_CLASS, {}):
        return ()
    return tuple(
        spec
        for node_id, spec in bound.outputs.items()
        if spec.kind is MediaKind.VIDEO and bound.graph.get(node_id, {}).get("class_type") in MAKERS
    )


def with_uploads(bound: Bound, urls: Mapping[str, str], capabilities: Capabilities) -> Bound:
    """The graph with a node for each upload. Args: urls: id of the node that makes the video -> where it goes."""
    graph, titles = dict(bound.graph), dict(bound.titles)
    for maker, url in urls.items():
        title = f"Upload {titles.get(maker, 'result')}"
        inputs: dict[str, Any] = {"url": url, "filenames": [maker, 0]}
        graph[node_for(maker)] = {"class_type": NODE_CLASS, "inputs": inputs, "_meta": {"title": title}}
        titles[node_for(maker)] = title
        node = graph[maker]
        if "save_metadata" in capabilities.classes.get(node["class_type"], {}):
            # Nobody takes it out on the way.
            graph[maker] = {**node, "inputs": {**node["inputs"], "save_metadata": False}}
    return replace(bound, graph=graph, titles=titles)


def node_for(maker: str) -> str:
    """Id of the node that puts what another one made."""
    return f"{_NODE_PREFIX}{maker}"


def is_upload(node_id: str) -> bool:
    """Whether it is a node that ``with_uploads`` put in."""
    return node_id.startswith(_NODE_PREFIX)


def arrival_key(prompt_id: str, maker: str) -> str:
    """Where an attempt puts a video, below a target's prefix."""
    return f"{ARRIVALS}{prompt_id}/{maker}"


def reports_in(output: NodeOutput) -> tuple[OutputFile, ...]:
    """What a node of ours reported, as a file that needs no fetching."""
    if not is_upload(output.node_id):
        return ()
    said = output.data.get(REPORT)
    texts = [orjson.dumps(one).decode() for one in said if isinstance(one, Mapping)] if isinstance(said, list) else []
    return tuple(
        OutputFile("", "", "output", REPORT, text=text) for text in texts if len(text) <= MAX_REPORT_CHARACTERS
    )


def without_reports(files: Mapping[str, tuple[OutputFile, ...]]) -> dict[str, tuple[OutputFile, ...]]:
    """What is left when nothing that was put elsewhere is to be taken over."""
    return {node_id: named for node_id, named in files.items() if not is_upload(node_id)}


def arrival_of(files: Mapping[str, Sequence[OutputFile]], maker: str) -> Arrival | NotSent | None:
    """What an upstream says of a video; None where it was not asked to put it anywhere."""
    texts = [file.text for file in files.get(node_for(maker), ()) if file.kind == REPORT and file.text is not None]
    if not texts:
        return None
    try:
        said = orjson.loads(texts[-1])
    except orjson.JSONDecodeError:
        said = None
    if not isinstance(said, Mapping):
        return NotSent("its report cannot be read")
    size_bytes, sha256 = said.get("size_bytes"), said.get("sha256")
    if said.get("status") != "uploaded":
        return NotSent(str(said.get("reason") or said.get("status"))[:200])
    if type(size_bytes) is not int or not isinstance(sha256, str) or _SHA256.fullmatch(sha256) is None:
        return NotSent("its report cannot be read")
    return Arrival(size_bytes, sha256)
