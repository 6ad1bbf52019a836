import pytest

from gateway.api.auth import Caller
from gateway.api.dialects.swiftswap import translation
from gateway.api.file_fields import MOVING, STILL
from gateway.api.incoming import ReceivedFile
from gateway.errors import InvalidInputError
from gateway.interfaces import Blob
from gateway.sniffing import GIF, MP4, PNG

CALLER = Caller("somebody", "10.0.0.1", is_admin=False)


def received(media_type, name="a"):
    return ReceivedFile(Blob(name * 2, 1), media_type, "what they called it.png")


@pytest.mark.parametrize(
    ("target", "media_type", "kinds"),
    [(translation.PICTURE, PNG, STILL), (translation.VIDEO, MP4, MOVING), (translation.VIDEO, GIF, MOVING)],
)
def test_image_is_the_face_and_the_target_receives_it(target, media_type, kinds):
    files = {"image": received(PNG, "f"), target.name: received(media_type, "t")}
    wanted = translation.submission({}, files, target, CALLER)
    assert {role: (given.blob.hash, given.field) for role, given in wanted.inputs.items()} == {
        "face": ("ff", "image"),
        "target": ("tt", target.name),
    }
    assert wanted.accepts == {"face": STILL, "target": kinds}
    assert (wanted.owner, wanted.submitter, wanted.dialect) == ("somebody", "10.0.0.1", "swiftswap")
    assert (wanted.task, wanted.output_name) == ("face_swap", None)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"output_name": "holiday"}, "holiday"),
        ({"output": "holiday"}, "holiday"),
        ({"output_name": "", "output": "holiday"}, "holiday"),
        ({"output_name": "holiday", "output": "holiday"}, "holiday"),
        ({"output_name": " holiday.jpg "}, "holiday"),
        ({"output_name": "holiday.JPEG"}, "holiday"),
        ({"output_name": "holiday.mp4.mp4"}, "holiday.mp4"),
        ({"output_name": "v1.2"}, "v1.2"),
        ({"output_name": "holiday.jpg.exe"}, "holiday.jpg.exe"),
        ({"output_name": "../../etc/passwd.png"}, "../../etc/passwd"),
        ({"output_name": ".png"}, None),
        ({"output_name": " "}, None),
        ({}, None),
    ],
)
def test_a_name_is_taken_by_either_field_without_a_files_extension(fields, name):
    assert translation.output_name(fields) == name


def test_two_names_that_differ_are_one_too_many():
    with pytest.raises(InvalidInputError) as refused:
        translation.output_name({"output_name": "a", "output": "b"})
    assert refused.value.field == "output"
