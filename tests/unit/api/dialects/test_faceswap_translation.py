from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.dialects.faceswap import translation
from gateway.api.incoming import ReceivedFile
from gateway.audit import MediaKind
from gateway.errors import InvalidInputError, UnsupportedMediaError
from gateway.events import Event, EventKind, Progress
from gateway.interfaces import Blob
from gateway.job import JobState
from gateway.settings import from_mapping
from gateway.sniffing import GIF, MP4
from tests.fakes.fake_service import IMAGE_FACTS, FakeService

JOB = FakeService(from_mapping({})).put()
STILL = FakeService(from_mapping({})).put(IMAGE_FACTS)
URLS = {"video_url": "https://a.example/v.mp4", "image_url": "https://a.example/f.png"}


def snapshot(fraction: float, **fields) -> Progress:
    return Progress(JOB.id, fraction, "Swapping: 3 of 9", **fields)


@given(st.floats(0, 1, exclude_max=True))
def test_no_fraction_below_one_is_shown_as_done(fraction):
    [frame] = translation.frames(snapshot(fraction), JOB, None)
    assert 0 <= frame.data["percentage"] <= 99.99
    assert 0 <= frame.data["current"] < frame.data["total"] == 269


def test_progress_is_told_as_documented():
    [frame] = translation.frames(snapshot(0.4567, eta_seconds=12.34), JOB, None)
    assert frame.data == {
        "percentage": 45.67,
        "current": 122,
        "total": 269,
        "message": "Face swap progress: 45.67%",
        "eta_seconds": 12.3,
    }
    assert frame.number is None


def test_a_still_is_one_frame_and_an_unknown_eta_is_left_out():
    [frame] = translation.frames(snapshot(0.99, eta_seconds=float("inf")), STILL, None)
    assert (frame.data["current"], frame.data["total"]) == (0, 1)
    assert "eta_seconds" not in frame.data


def test_executing_is_told_when_the_node_changes_and_only_then():
    first = snapshot(0.1, node="3", node_title="Swap", node_class="ReActorFaceSwap")
    names = [frame.name for frame in translation.frames(first, JOB, None)]
    again = [frame.name for frame in translation.frames(snapshot(0.2, node="3"), JOB, first)]
    other = translation.frames(snapshot(0.3, node="4"), JOB, first)
    assert names == ["executing", "progress"]
    assert again == ["progress"]
    assert other[0].data == {"node": "4", "title": None, "class_type": None, "message": "Swapping: 3 of 9"}


def test_a_job_that_swaps_no_face_is_called_none():
    job = replace(JOB, task="workflow")
    told = [frame.data["message"] for frame in translation.frames(snapshot(0.5), job, None)]
    for kind in (EventKind.QUEUED, EventKind.SUCCEEDED):
        told += [str(frame.data["message"]) for frame in translation.frames(Event(job.id, 1, kind, 0.0, {}), job, None)]
    for state in JobState:
        body = translation.status_body(replace(job, state=state), None, None, "")
        told += [body["progress"]["step"], body["error"] or ""]
    assert "Job completed successfully" in told
    assert "The job failed." in told
    assert [sentence for sentence in told if "face" in sentence.lower()] == []


def test_a_lost_attempt_leaves_the_bar_where_it_was_and_says_why():
    event = Event(JOB.id, 4, EventKind.REQUEUED, 0.0, {"reason": "attempt_lost", "message": "The worker was lost."})
    assert translation.frames(event, JOB, None) == ()
    [frame] = translation.frames(event, JOB, snapshot(0.6))
    assert (frame.name, frame.number, frame.data["percentage"]) == ("progress", None, 60.0)
    assert frame.data["message"] == "The worker was lost."


@pytest.mark.parametrize("kind", list(EventKind))
def test_every_durable_event_has_frames_or_none_and_a_terminal_one_carries_its_number(kind):
    event = Event(JOB.id, 7, kind, 0.0, {})
    frames = translation.frames(event, JOB, None)
    if event.is_terminal:
        assert frames[-1].number == 7
        assert frames[-1].name in {"completed", "error"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("true", True), ("1", True), ("YES", True), ("on", True), (" true ", True)),
        *(("false", False), ("0", False), ("No", False), ("off", False), ("", False)),
    ],
)
def test_return_prompt_id_only_takes_every_documented_spelling(text, expected):
    assert translation.read_request({**URLS, "return_prompt_id_only": text}, {}).wants_id_only is expected


def test_a_field_left_empty_in_a_browsers_form_is_not_there():
    wanted = translation.read_request({**URLS, "video": "", "target_image_url": " ", "output_name": ""}, {})
    assert wanted.urls["target"][0].name == "video_url"
    assert wanted.output_name is None


@pytest.mark.parametrize("missing", ["video_url", "image_url"])
def test_a_missing_input_is_named_by_its_field(missing):
    fields = {name: url for name, url in URLS.items() if name != missing}
    with pytest.raises(InvalidInputError) as caught:
        translation.read_request(fields, {})
    assert caught.value.field == missing.removesuffix("_url")


def test_times_are_utc_with_milliseconds():
    assert translation.timestamp(1750258800.9999) == "2025-06-18T15:00:00.999Z"


@pytest.mark.parametrize("kind", [GIF, MP4])
def test_what_moves_is_sent_from_the_field_for_stills_to_the_other_one(kind):
    source = translation.SourceField("target_image", "target", is_url=False, kinds=frozenset({MediaKind.IMAGE}))
    with pytest.raises(UnsupportedMediaError, match="Send it as 'video'") as refused:
        translation._upload(source, {"target_image": ReceivedFile(Blob("00", 1), kind, "x")})
    assert refused.value.field == "target_image"
