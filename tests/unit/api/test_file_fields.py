import pytest

from gateway.api.file_fields import MOVING, STILL, refuse_other_files, submitted_file
from gateway.api.incoming import ReceivedFile
from gateway.errors import InvalidInputError, UnsupportedMediaError
from gateway.interfaces import Blob
from gateway.sniffing import GIF, MP4, PNG


def received(media_type):
    return ReceivedFile(Blob("00", 1), media_type, "a name")


@pytest.mark.parametrize(("media_type", "kinds"), [(PNG, STILL), (GIF, MOVING), (MP4, MOVING)])
def test_a_file_that_fits_is_submitted_under_its_field(media_type, kinds):
    given = submitted_file("photo", received(media_type), kinds)
    assert (given.blob, given.field) == (Blob("00", 1), "photo")


@pytest.mark.parametrize(
    ("media_type", "kinds", "hint", "sentence"),
    [
        (MP4, STILL, "", "The file in 'photo' is of kind video; this field takes image."),
        (GIF, STILL, "Try 'clip'.", "The file in 'photo' is of kind gif; this field takes image. Try 'clip'."),
        (PNG, MOVING, "", "The file in 'photo' is of kind image; this field takes gif or video."),
    ],
)
def test_a_file_of_another_kind_is_refused_by_the_name_of_its_field(media_type, kinds, hint, sentence):
    with pytest.raises(UnsupportedMediaError) as refused:
        submitted_file("photo", received(media_type), kinds, hint=hint)
    assert (refused.value.message, refused.value.field) == (sentence, "photo")


def test_a_file_that_nobody_asked_for_is_refused():
    refuse_other_files({"photo": received(PNG)}, {"photo", "clip"})
    with pytest.raises(InvalidInputError) as refused:
        refuse_other_files({"photo": received(PNG), "mask": received(PNG)}, {"photo", "clip"})
    assert refused.value.field == "mask"
