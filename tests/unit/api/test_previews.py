from __future__ import annotations

import base64

import pytest

from gateway.api.previews import ShownOnce, as_binary, as_json, wants_previews
from gateway.comfy.frames import PreviewPicture, parse_binary
from gateway.errors import InvalidInputError
from gateway.events import PreviewImage

JPEG = b"\xff\xd8\xff picture"


@pytest.mark.parametrize(("text", "wanted"), [(None, False), ("", False), ("0", False), ("1", True), ("True", True)])
def test_previews_are_asked_for_by_the_query(text, wanted):
    assert wants_previews({} if text is None else {"previews": text}) is wanted


def test_a_word_that_is_neither_yes_nor_no_is_refused():
    with pytest.raises(InvalidInputError) as refusal:
        wants_previews({"previews": "maybe"})
    assert refusal.value.field == "previews"


def test_as_json_the_picture_is_base64():
    frame = as_json(PreviewImage("j", "image/jpeg", JPEG, "3"))
    assert (frame.name, frame.number) == ("preview", None)
    assert frame.data == {"node": "3", "content_type": "image/jpeg", "data": base64.b64encode(JPEG).decode()}


@pytest.mark.parametrize("node", ["3", None])
def test_the_binary_frame_is_the_one_that_comfyui_sends(node):
    frame = as_binary(PreviewImage("j", "image/jpeg", JPEG, node))
    assert parse_binary(frame.binary) == PreviewPicture("j", node, "image/jpeg", JPEG)


def test_a_picture_is_spelled_once_for_all_and_forgotten_with_it():
    spelled = []

    def show(picture):
        spelled.append(picture.node)
        return as_json(picture)

    once = ShownOnce(show)
    picture = PreviewImage("j", "image/jpeg", JPEG, "3")
    assert once(picture) is once(picture)
    assert spelled == ["3"]
    del picture
    assert not once._shown
