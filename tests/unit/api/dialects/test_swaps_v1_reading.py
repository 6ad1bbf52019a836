import orjson
import pytest

from gateway.api.dialects.swaps_v1.reading import (
    MAX_FACES,
    MAX_METADATA_BYTES,
    FaceSwap,
    SwapType,
    read_detection,
    read_swap,
    wants_wait,
)
from gateway.audit import MediaKind
from gateway.errors import InvalidInputError

FACE, TARGET = "https://media.example.org/face.jpg", "https://media.example.org/target.jpg"
IMAGE = {"type": "image", "source_url": FACE, "target_url": TARGET}
GIF = {**IMAGE, "type": "gif"}
VIDEO = {**IMAGE, "type": "video"}
MANY = {
    "type": "multi_face_image",
    "target_url": TARGET,
    "face_swaps": [{"face_index": 0, "source_url": FACE}, {"face_index": 2, "source_url": FACE + "?b"}],
}
MANY_IN_VIDEO = {
    "type": "video",
    "target_url": TARGET,
    "face_swaps": [{"face_index": 1, "source_url": FACE, "frame_time_seconds": 0.5}],
}


def without(body, member):
    return {name: value for name, value in body.items() if name != member}


def field_of(body, read=read_swap):
    with pytest.raises(InvalidInputError) as refused:
        read(body)
    assert refused.value.field in refused.value.message
    return refused.value.field


@pytest.mark.parametrize(
    ("body", "kind", "target"),
    [
        (IMAGE, SwapType.IMAGE, MediaKind.IMAGE),
        (GIF, SwapType.GIF, MediaKind.GIF),
        (VIDEO, SwapType.VIDEO, MediaKind.VIDEO),
        (MANY, SwapType.MULTI_FACE_IMAGE, MediaKind.IMAGE),
        (MANY_IN_VIDEO, SwapType.VIDEO, MediaKind.VIDEO),
    ],
)
def test_a_type_says_what_its_target_is_and_faces_come_from_photos(body, kind, target):
    wanted = read_swap(body)
    assert wanted.type is kind
    assert {name: given.kinds for name, given in wanted.urls.items() if name == "target"} == {
        "target": frozenset({target})
    }
    assert all(given.kinds == {MediaKind.IMAGE} for name, given in wanted.urls.items() if name != "target")
    assert wanted.names_each_face is ("face_swaps" in body)


def test_what_is_left_out_has_the_documented_default():
    wanted = read_swap(VIDEO)
    assert wanted.faces == (FaceSwap("source 0", 0, None, enhance=False),)
    assert wanted.keep_audio
    assert (wanted.webhook_url, wanted.metadata, wanted.declared) == (None, None, {})


def test_every_documented_member_is_taken():
    body = {
        **VIDEO,
        "target_face_index": 3,
        "enable_face_enhancer": True,
        "reference_frame_time_seconds": 0,
        "duration_seconds": 12.5,
        "file_size_bytes": 1_000_000,
        "keep_audio": False,
        "webhook_url": "https://hooks.example.org/",
        "metadata": {"order": [1, {"a": None}]},
    }
    wanted = read_swap(body)
    assert wanted.faces == (FaceSwap("source 0", 3, 0.0, enhance=True),)
    assert not wanted.keep_audio
    assert wanted.webhook_url == "https://hooks.example.org/"
    assert wanted.metadata == {"order": [1, {"a": None}]}
    assert wanted.declared == {"duration_seconds": 12.5, "file_size_bytes": 1_000_000}


def test_null_says_nothing_and_unknown_members_are_let_pass():
    names = ("target_face_index", "keep_audio", "face_swaps", "webhook_url", "metadata", "duration_seconds")
    assert read_swap({**IMAGE, **dict.fromkeys(names), "resolution": "4k"}) == read_swap(IMAGE)


def test_mappings_name_each_face_and_one_photo_is_fetched_once():
    mappings = [
        {"face_index": 1, "source_url": FACE},
        {"face_index": 0, "source_url": FACE + "?b", "enable_face_enhancer": False},
        {"face_index": 2.0, "source_url": FACE},
    ]
    wanted = read_swap({**MANY, "face_swaps": mappings, "enable_face_enhancer": True})
    assert wanted.faces == (
        FaceSwap("source 0", 1, None, enhance=True),
        FaceSwap("source 1", 0, None, enhance=False),
        FaceSwap("source 0", 2, None, enhance=True),
    )
    assert {name: (given.url, given.field) for name, given in wanted.urls.items()} == {
        "source 0": (FACE, "face_swaps[0].source_url"),
        "source 1": (FACE + "?b", "face_swaps[1].source_url"),
        "target": (TARGET, "target_url"),
    }


def test_a_face_of_a_video_may_be_named_at_several_moments():
    mappings = [{"face_index": 0, "source_url": FACE, "frame_time_seconds": moment} for moment in (0, 2.5)]
    wanted = read_swap({**MANY_IN_VIDEO, "face_swaps": mappings})
    assert [face.frame_time_seconds for face in wanted.faces] == [0.0, 2.5]


@pytest.mark.parametrize(
    ("body", "member"),
    [
        *[(without(IMAGE, member), member) for member in ("type", "source_url", "target_url")],
        (without(GIF, "source_url"), "source_url"),
        (without(VIDEO, "source_url"), "source_url"),
        (without(MANY, "face_swaps"), "face_swaps"),
        (without(MANY, "target_url"), "target_url"),
        *[({**IMAGE, "type": value}, "type") for value in ("", "example", "Image", 1, None, ["image"])],
        *[({**IMAGE, "source_url": value}, "source_url") for value in ("", 1, None, [FACE], {"url": FACE})],
        *[({**IMAGE, "target_url": value}, "target_url") for value in ("", False, None, [])],
        *[
            ({**IMAGE, "target_face_index": value}, "target_face_index")
            for value in (-1, 0.5, "0", True, [0], 100, 10**50)
        ],
        *[({**IMAGE, "enable_face_enhancer": value}, "enable_face_enhancer") for value in ("true", 1, 0, {})],
        *[
            ({**VIDEO, "reference_frame_time_seconds": value}, "reference_frame_time_seconds")
            for value in (-0.1, "1", True, [])
        ],
        *[({**GIF, "duration_seconds": value}, "duration_seconds") for value in (0, 0.0, -1, "2", True, 10**400)],
        *[({**GIF, "file_size_bytes": value}, "file_size_bytes") for value in (0, -1, 1.5, "9", True)],
        *[({**VIDEO, "keep_audio": value}, "keep_audio") for value in ("yes", 1, [])],
        *[({**IMAGE, "webhook_url": value}, "webhook_url") for value in (1, True, {}, [])],
        *[({**IMAGE, "metadata": value}, "metadata") for value in ("x", 1, [], True)],
    ],
    ids=str,
)
def test_a_member_that_is_missing_or_of_another_type_is_named(body, member):
    assert field_of(body) == member


@pytest.mark.parametrize(
    ("body", "member"),
    [
        ({**IMAGE, "reference_frame_time_seconds": 1}, "reference_frame_time_seconds"),
        ({**MANY, "reference_frame_time_seconds": 1}, "reference_frame_time_seconds"),
        ({**IMAGE, "duration_seconds": 1}, "duration_seconds"),
        ({**MANY, "file_size_bytes": 1}, "file_size_bytes"),
        ({**IMAGE, "keep_audio": True}, "keep_audio"),
        ({**GIF, "keep_audio": True}, "keep_audio"),
        ({**IMAGE, "face_swaps": MANY["face_swaps"]}, "face_swaps"),
        ({**GIF, "face_swaps": MANY["face_swaps"]}, "face_swaps"),
        ({**MANY, "source_url": FACE}, "source_url"),
        ({**MANY, "target_face_index": 0}, "target_face_index"),
        ({**MANY_IN_VIDEO, "source_url": FACE}, "source_url"),
        ({**MANY_IN_VIDEO, "reference_frame_time_seconds": 1}, "reference_frame_time_seconds"),
    ],
    ids=str,
)
def test_a_member_of_another_type_of_swap_is_refused_rather_than_ignored(body, member):
    assert field_of(body) == member


@pytest.mark.parametrize(
    ("mappings", "member"),
    [
        ([], "face_swaps"),
        ("x", "face_swaps"),
        ({}, "face_swaps"),
        ([{"face_index": n, "source_url": FACE} for n in range(MAX_FACES + 1)], "face_swaps"),
        (["x"], "face_swaps[0]"),
        ([None], "face_swaps[0]"),
        ([{"source_url": FACE}], "face_swaps[0].face_index"),
        ([{"face_index": -1, "source_url": FACE}], "face_swaps[0].face_index"),
        ([{"face_index": "0", "source_url": FACE}], "face_swaps[0].face_index"),
        ([{"face_index": 0}], "face_swaps[0].source_url"),
        ([MANY["face_swaps"][0], {"face_index": 1, "source_url": 5}], "face_swaps[1].source_url"),
        (
            [{"face_index": 0, "source_url": FACE, "enable_face_enhancer": "no"}],
            "face_swaps[0].enable_face_enhancer",
        ),
        ([{"face_index": 0, "source_url": url} for url in (FACE, FACE + "?b")], "face_swaps[1].face_index"),
    ],
    ids=str,
)
def test_what_is_wrong_in_a_mapping_is_named_with_its_place(mappings, member):
    assert field_of({**MANY, "face_swaps": mappings}) == member


@pytest.mark.parametrize("moment", [None, -1, "1", True])
def test_a_mapping_of_a_video_says_when(moment):
    mapping = {"face_index": 0, "source_url": FACE, "frame_time_seconds": moment}
    assert field_of({**MANY_IN_VIDEO, "face_swaps": [mapping]}) == "face_swaps[0].frame_time_seconds"


def nested(depth):
    return {} if depth == 1 else {"a": nested(depth - 1)}


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 1e308, True])
def test_metadata_holds_numbers_that_can_be_kept(number):
    wanted = read_swap({**IMAGE, "metadata": {"a": [{"b": number}]}})
    assert orjson.loads(orjson.dumps(wanted.metadata)) == {"a": [{"b": number}]}


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**99])
def test_metadata_holds_no_number_that_cannot_be_kept(number):
    assert field_of({**IMAGE, "metadata": {"a": [{"b": number}]}}) == "metadata"


def test_metadata_is_as_large_and_as_deep_as_said_and_no_more():
    # {"a":""} are 8 bytes; "ä" is one character and two bytes.
    largest = {"a": "ä" * ((MAX_METADATA_BYTES - 8) // 2)}
    assert read_swap({**IMAGE, "metadata": largest}).metadata == largest
    assert field_of({**IMAGE, "metadata": {"a": largest["a"] + "x"}}) == "metadata"
    assert read_swap({**IMAGE, "metadata": nested(8)}).metadata == nested(8)
    assert field_of({**IMAGE, "metadata": nested(9)}) == "metadata"
    assert field_of({**IMAGE, "metadata": {"a": [nested(7)]}}) == "metadata"


def test_a_detection_takes_one_picture():
    given = read_detection({"target_url": TARGET, "more": 1})
    assert (given.url, given.field, given.kinds) == (TARGET, "target_url", frozenset({MediaKind.IMAGE}))
    for body in ({}, {"target_url": None}, {"target_url": ""}, {"target_url": 5}):
        assert field_of(body, read_detection) == "target_url"


@pytest.mark.parametrize(("values", "expected"), [([], False), (["true"], True), (["false"], False)])
def test_wait_is_true_or_false(values, expected):
    assert wants_wait(values) is expected


@pytest.mark.parametrize("values", [["1"], [""], ["True"], ["true", "true"]])
def test_another_wait_is_refused(values):
    with pytest.raises(InvalidInputError):
        wants_wait(values)
