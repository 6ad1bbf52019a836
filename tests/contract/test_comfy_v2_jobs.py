"""What streams of ``comfy_v2`` tell is what the published contract says of them; and our schemas are schemas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from gateway.api.dialects.comfy_v2.template_schemas import read_inputs, schema_of
from gateway.events import EventKind, PreviewImage
from tests.contract.published import conform, needs_contract
from tests.fakes.fake_service import IMAGE_FACTS, WORKFLOWS, shipped
from tests.tools.asgi import Stream, make

SCHEMAS = {"status": "StatusEvent", "progress": "Progress", "preview": "PreviewEvent", "output": "Output"}
CASES = sorted((Path(__file__).parents[1] / "dialects" / "comfy_v2").glob("events-*.json"))
NAMES = sorted(path.name for path in WORKFLOWS.iterdir() if path.is_dir())
ASSET = {"__type": "core/ASSET", "info": {"id": "asset-1"}}


def hold_frame(name: str, data: Any) -> None:
    conform(data, "components", "schemas", SCHEMAS[name])


@needs_contract
@pytest.mark.shared
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_each_event_of_a_golden_file_is_one_of_the_contract(path: Path) -> None:
    for event in json.loads(path.read_text(encoding="utf-8"))["answer"].get("events", []):
        hold_frame(event["event"], event["data"])


@needs_contract
@pytest.mark.shared
async def test_each_event_of_a_live_stream_is_one_of_the_contract() -> None:
    app, service = make()
    job = service.put(IMAGE_FACTS, task="workflow", roles=(), dialect="comfy_v2")
    async with Stream(app, "GET", f"/api/v2/jobs/{job.id}/events") as stream:
        await stream.until("status")
        service.tell(job.id, EventKind.STARTED)
        service.show(job.id, 0.5, nodes_done=1, nodes_total=3, node="2", node_class="KSampler", step=1, steps=9)
        service.bus.show(PreviewImage(job.id, "image/jpeg", b"\xff\xd8\xff", "2"))
        await stream.until("progress", "preview")
        service.output(job.id)
        await stream.until("output")
        service.tell(job.id, EventKind.CANCEL_REQUESTED)
        service.tell(job.id, EventKind.CANCELED)
        await stream.whole()
        messages = stream.parsed.messages
    assert {message.event for message in messages} == set(SCHEMAS)
    for message in messages:
        hold_frame(message.event, message.json)
    assert messages[-1].json == {"status": "canceled", "queue_position": None}


@pytest.mark.parametrize("name", NAMES)
def test_the_schema_of_every_shipped_template_is_a_schema(name: str) -> None:
    Draft202012Validator.check_schema(schema_of(shipped(name)))


@pytest.mark.parametrize(
    ("inputs", "is_fit"),
    [
        ({"target": ASSET, "face": "me.png"}, True),
        ({"target": ASSET, "face_swaps": [{"face": ASSET, "face_index": 0}]}, True),
        ({"target": ASSET, "face": "me.png", "enable_face_enhancer": False, "target_faces": "0,2"}, True),
        ({"target": ASSET}, False),
        ({"face": ASSET}, False),
        ({"target": 5, "face": "me.png"}, False),
        ({"target": {"__type": "core/ASSET", "info": {}}, "face": "me.png"}, False),
        ({"target": ASSET, "face": "me.png", "face_swaps": [{"face": ASSET, "face_index": 0}]}, False),
        ({"target": ASSET, "face": "me.png", "made_up": 1}, False),
    ],
    ids=str,
)
def test_the_schema_and_the_reading_judge_alike(inputs: dict[str, Any], is_fit: bool) -> None:  # noqa: FBT001 - a case
    template = shipped("faceswap_image")
    assert Draft202012Validator(schema_of(template)).is_valid(inputs) == is_fit
    try:
        read_inputs(template, inputs)
    except ValueError:
        raise
    except Exception:  # noqa: BLE001 - whatever it is, it is a refusal
        assert not is_fit
    else:
        assert is_fit


def test_the_schema_says_more_than_the_reading() -> None:
    validator = Draft202012Validator(schema_of(shipped("faceswap_image")))
    both = {"target": ASSET, "face": ASSET}
    assert not validator.is_valid({**both, "face_restore_visibility": 2})
    assert not validator.is_valid({**both, "target_faces": "0, 2"})
    assert not validator.is_valid({**both, "target_gender": "other"})
