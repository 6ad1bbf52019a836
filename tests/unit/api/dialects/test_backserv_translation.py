from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.auth import Caller
from gateway.api.dialects.backserv import translation
from gateway.api.file_fields import MOVING, STILL
from gateway.api.incoming import ReceivedFile
from gateway.errors import InvalidInputError, TaskUnavailableError
from gateway.events import Progress
from gateway.interfaces import Blob
from gateway.job import TERMINAL_JOB, JobState
from gateway.settings import from_mapping
from gateway.sniffing import GIF, MP4, PNG
from tests.fakes.fake_service import TASKS, FakeService

JOB = FakeService(from_mapping({})).put()
CALLER = Caller("local", "127.0.0.1", is_admin=False)
PHOTO, CLIP = "https://media.example.org/f.png", "HTTPS://media.example.org/v.mp4"


def body(task_type="face_swap", user_id="user123", **params):
    return {"task_type": task_type, "task_params": params, "user_id": user_id}


def received(media_type, field):
    return ReceivedFile(Blob("0" * 64, 1), media_type, field)


def asked(wanted, inputs=None, *, is_open=True, caller=CALLER):
    return translation.submission(wanted, inputs or {}, caller, is_open=is_open)


def refused_field(given_body, files):
    """The field that a body is refused by; None when it is a request."""
    try:
        translation.read_request(given_body, files)
    except InvalidInputError as refused:
        told = translation.error_body(refused, "id")
        return told["field"] if str(told["field"]) in str(told["message"]) else "not named"
    return None


def test_a_swap_names_its_inputs_by_role_and_leaves_the_rest_to_the_engine():
    wanted = translation.read_request(
        body(source_image=PHOTO, target_image=CLIP, target_faces="0,1", output_name="me", nonsense=[1]), {}
    )
    assert {role: (given.url, given.field) for role, given in wanted.urls.items()} == {
        "face": (PHOTO, "source_image"),
        "target": (CLIP, "target_image"),
    }
    given = asked(wanted)
    assert (given.task, given.dialect, given.owner, given.output_name) == ("face_swap", "backserv", "local", "me")
    assert given.accepts == {"face": STILL, "target": STILL | MOVING}
    assert given.parameters == {"target_faces": "0,1", "nonsense": [1]}
    assert given.must_be_runnable


@pytest.mark.parametrize("media_type", [PNG, GIF, MP4])
def test_a_target_may_be_a_picture_a_gif_or_a_video(media_type):
    files = {"m0": received(PNG, "source_image"), "m1": received(media_type, "target_image")}
    wanted = translation.read_request(body(source_image="m0", target_image="m1"), files)
    assert wanted.urls == {}
    assert {role: file.field for role, file in wanted.files.items()} == {
        "face": "source_image",
        "target": "target_image",
    }


def test_words_alone_make_a_picture():
    wanted = translation.read_request(body("image_creation", prompt="a beautiful sunset", width=512, seed=None), {})
    given = asked(wanted)
    assert (given.task, given.inputs, given.accepts) == ("image_creation", {}, {})
    assert given.parameters == {"prompt": "a beautiful sunset", "width": 512}


def test_a_user_id_tells_users_of_one_address_apart_and_is_no_authority():
    wanted = translation.read_request(body("image_creation", user_id="admin"), {})
    assert asked(wanted).submitter == "127.0.0.1 admin"
    assert asked(wanted).owner == "local"
    keyed = Caller("alice", "alice", is_admin=False)
    assert asked(wanted, is_open=False, caller=keyed).submitter == "alice"


@given(st.text(max_size=140))
def test_a_user_id_is_short_printable_text(user_id):
    is_fit = bool(user_id.strip()) and len(user_id) <= 128 and user_id.isprintable()
    assert refused_field(body("image_creation", user_id=user_id), {}) == (None if is_fit else "user_id")


@pytest.mark.parametrize("char", ["\0", "\x1f", "\x7f", "\x85", "\u2028", "\u202e"])
def test_a_user_id_holds_nothing_that_cannot_be_seen(char):
    assert refused_field(body("image_creation", user_id=f"a{char}b"), {}) == "user_id"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9) | st.just("m0"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["source_image", "target_image", "image_url", "prompt", "output_name"])
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "task_type": st.sampled_from(list(translation.INPUTS)) | JSON,
        "task_params": st.dictionaries(NAMES, JSON | st.sampled_from([PHOTO, CLIP]), max_size=4) | JSON,
        "user_id": st.just("u") | JSON,
    },
)


@given(BODIES, st.booleans())
def test_a_body_is_a_request_or_refused_by_the_name_of_a_field(given_body, has_file):
    files = {"m0": received(PNG, "source_image")} if has_file else {}
    if (refused := refused_field(given_body, files)) is not None:
        assert refused != "not named"
        return
    wanted = translation.read_request(given_body, files)
    roles = {field.role for field in translation.INPUTS[wanted.task_type]}
    assert wanted.files.keys() | wanted.urls.keys() == wanted.kinds.keys() == roles
    assert not wanted.files.keys() & wanted.urls.keys()
    assert bool(wanted.files) == has_file


def test_a_file_under_a_name_that_takes_none_is_not_dropped_without_a_word():
    files = {"m0": received(PNG, "mask")}
    with pytest.raises(InvalidInputError, match="mask takes no data URI") as refused:
        translation.read_request(body("image_upscale", image_url=PHOTO, mask="m0"), files)
    assert refused.value.field == "mask"


def test_a_parameter_whose_files_have_no_field_here_is_refused_by_its_own_name():
    """Templates repeat a swap for each of several photos; there is one source_image."""
    with pytest.raises(InvalidInputError, match="face_swaps") as refused:
        translation.read_request(body(source_image=PHOTO, target_image=PHOTO, face_swaps=[{"face_index": 0}]), {})
    assert refused.value.field == "face_swaps"


def test_a_task_without_a_template_is_refused_with_what_is_missing():
    translation.refuse_unknown_task("face_swap", TASKS)
    with pytest.raises(TaskUnavailableError) as refused:
        translation.refuse_unknown_task("face_swap", ())
    told = translation.error_body(refused.value, "id")
    assert told["missing"] == [translation.NO_TEMPLATE]
    assert translation.NO_TEMPLATE in str(told["message"])


# ---------------------------------------------------------------------------------------------------------- job -> body

DOCUMENTED = {"status", "result_info", "error_info", "started_at", "completed_at"}


@pytest.mark.parametrize("state", list(JobState))
def test_the_five_documented_fields_are_always_there(state):
    told = translation.task_body(replace(JOB, state=state, upstream="gpu-1"), None, 3, "http://localhost:8000")
    assert told.keys() >= DOCUMENTED
    assert ("queue_position" in told) == (state is JobState.QUEUED)
    assert told["serv_name"] == ("pool" if state is JobState.QUEUED else "gpu-1")
    assert told["status"] == translation.STATE_WORDS[state]


@pytest.mark.parametrize("state", list(JobState))
def test_once_a_cancel_was_taken_note_of_nothing_else_is_said_until_the_end(state):
    flagged = replace(JOB, state=state, cancel_requested_at=1.0)
    told = translation.task_body(flagged, None, None, "")
    if state not in TERMINAL_JOB:
        assert (told["status"], told["code"], told["completed_at"]) == ("Cancelled", "canceled", None)
    else:
        assert told["status"] == translation.STATE_WORDS[state]


@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from(list(JobState)))
def test_progress_is_100_with_the_result_and_not_before(fraction, live, state):
    snapshot = Progress(JOB.id, live, "Working")
    shown = translation.task_body(replace(JOB, state=state, fraction=fraction), snapshot, 0, "")["progress"]
    assert (shown == 100.0) == (state is JobState.SUCCEEDED)
    assert 0 <= shown <= 100


def test_a_failed_job_says_why_in_a_sentence_and_a_code():
    failed = replace(JOB, state=JobState.FAILED, error_code="no_face_found", error_message="There is no face.")
    told = translation.task_body(failed, None, None, "")
    assert (told["error_info"], told["code"]) == ("There is no face.", "no_face_found")


# ------------------------------------------------------------------------------------------------------- types -> body


def test_all_four_types_are_told_with_what_is_required_first():
    told = translation.types_body(TASKS)["task_types"]
    assert [task["task_type"] for task in told] == ["face_swap", "image_upscale", "image_creation", "video_creation"]
    assert [task["can_run"] for task in told] == [True, True, False, False]
    for task in told:
        assert bool(task["missing"]) is not task["can_run"]
        required = [parameter["required"] for parameter in task["task_params"]]
        assert required == sorted(required, reverse=True)
        assert task["task_params"][-1]["name"] == "output_name"
    [scale] = [parameter for parameter in told[1]["task_params"] if parameter["name"] == "scale_factor"]
    assert scale == {"name": "scale_factor", "type": "int", "required": False, "default": 2, "min": 2, "max": 4}
