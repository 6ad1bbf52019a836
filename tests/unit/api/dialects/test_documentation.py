"""docs/dialects.md is held true: every field, word and code that is spoken stands there, and none that is not."""

import re
from pathlib import Path

from gateway import errors
from gateway.api.dialects.faceswap import DIALECT, translation
from gateway.api.previews import as_json
from gateway.api.websocket import Close
from gateway.api.window import SocketEndpoint
from gateway.delivering import Chosen, planned, to_named
from gateway.errors import GatewayError, JobError
from gateway.events import Event, EventKind, PreviewImage, Progress
from gateway.job import JobState
from gateway.settings import from_mapping
from tests.fakes.fake_service import FakeService

TEXT = (Path(__file__).parents[4] / "docs" / "dialects.md").read_text(encoding="utf-8")
FACESWAP = TEXT.partition("\n## faceswap\n")[2].partition("\n## ")[0]
SERVICE = FakeService(from_mapping({}))
JOB = SERVICE.put(extra={"deliver_to": to_named("archive", Chosen.JOB)})
SERVICE.succeed(JOB.id)
DELIVERED = SERVICE.stored[JOB.id]


def section(title: str) -> str:
    return FACESWAP.partition(f"### {title}")[2].partition("\n### ")[0]


def table(text: str) -> dict[str, str]:
    return {
        key: rest for key, rest in re.findall(r"^\| (.+?) \| (.*) \|$", text, re.MULTILINE) if key[0] in "`0123456789"
    }


def words(text: str) -> set[str]:
    return set(re.findall(r"`([a-z_]+)`", text))


def classes(kind: type[GatewayError]) -> set[type[GatewayError]]:
    found = {kind}.union(*(classes(sub) for sub in kind.__subclasses__()))
    return {leaf for leaf in found if leaf.__module__ == errors.__name__}


def test_every_request_field_is_documented():
    rows = table(section("`POST /face-swap`").partition("**As a stream**")[0])
    documented = {key.strip("`") for key in rows}
    others = {"output_name", "return_prompt_id_only", "webhook_url", "deliver_to", "consent"}
    assert documented == {source.name for source in translation.SOURCES} | others


def test_every_field_of_every_event_is_documented():
    rows = table(section("`POST /face-swap`").partition("**As a stream**")[2])
    spoken: dict[str, set[str]] = {}
    snapshot = Progress(JOB.id, 0.5, "Working", node="3", eta_seconds=1.0)
    told = [snapshot, *(Event(JOB.id, 1, kind, 0.0, {}) for kind in EventKind)]
    frames = [frame for item in told for frame in translation.frames(item, JOB, None)]
    for frame in (*frames, as_json(PreviewImage(JOB.id, "image/jpeg", b""))):
        spoken.setdefault(frame.name, set()).update(frame.data)
        is_durable = next(key for key in rows if key.startswith(f"`{frame.name}`")).endswith("#")
        assert (frame.number is not None) == is_durable
    assert {key.split("`")[1] for key in rows} == set(spoken)
    for key, rest in rows.items():
        assert spoken[key.split("`")[1]] <= words(rest) <= spoken[key.split("`")[1]] | {"comfyui", "preview"}


def test_every_field_of_the_bodies_is_documented():
    status = translation.status_body(DELIVERED, None, None, "", planned(DELIVERED, 0.0))
    documented = words(section("`GET /status/{prompt_id}`").partition("404 otherwise")[0])
    assert documented == {*status, *status["deliveries"][0], "percentage", "step"}
    accepted = translation.accepted_body(JOB, "")
    assert words(section("`POST /face-swap`").partition("**As JSON**")[2]) == set(accepted)


def test_every_state_is_documented():
    rows = table(section("`GET /status/{prompt_id}`"))
    del rows["`status`"]  # the head of the table
    documented = {JobState(state): word.strip("`") for word, states in rows.items() for state in states.split(", ")}
    assert documented == dict(translation.STATE_WORDS)


def test_every_code_is_documented_under_its_status():
    text = section("Errors")
    documented = {int(status): words(rest) for status, rest in table(text).items()}
    expected: dict[int, set[str]] = {}
    for kind in classes(GatewayError) - classes(JobError):
        expected.setdefault(kind.status_hint, set()).add(kind.code)
    assert documented == expected
    reasons = words(text.partition("Why a job failed")[2]) - {"error", "code"}
    assert reasons == {kind.code for kind in classes(JobError)} | {translation.CANCELED_CODE}


def test_every_close_code_is_documented():
    assert {int(code) for code in table(section("`WS /face-swap-ws`"))} == {int(code) for code in Close}


def test_every_endpoint_is_documented():
    for endpoint in DIALECT.endpoints:
        method = "WS" if isinstance(endpoint, SocketEndpoint) else endpoint.method
        assert f"`{method} {endpoint.path}`" in FACESWAP
