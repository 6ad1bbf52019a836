import asyncio

import pytest

from gateway.api.file_fields import MOVING, STILL
from gateway.api.url_inputs import UrlInput, check_urls, with_urls
from gateway.engine.service import SubmittedFile
from gateway.errors import InvalidInputError, SourceUnreachableError
from gateway.interfaces import Blob
from gateway.settings import from_mapping
from tests.fakes.fake_service import FakeService

PHOTO = UrlInput("https://media.example.org/f.png", "source_image", STILL)
CLIP = UrlInput("https://media.example.org/v.mp4", "target_image", MOVING)


@pytest.fixture
def service():
    return FakeService(from_mapping({}))


def uploaded(service):
    service.blobs.stored["a" * 64] = b"x"
    return {"face": SubmittedFile(Blob("a" * 64, 1), "source_image")}


async def test_what_is_given_as_a_url_is_fetched_beside_what_is_there(service):
    inputs = await with_urls(service, uploaded(service), {"target": CLIP})
    assert inputs["face"].blob.hash == "a" * 64
    assert inputs["target"].field == "target_image"
    assert service.blobs.stored[inputs["target"].blob.hash] == CLIP.url.encode()


async def test_when_one_cannot_be_had_all_are_taken_back(service):
    fetched = []
    plain = service.fetch_url

    async def second_fails(*arguments, **named):
        fetched.append(named["field"])
        if len(fetched) == 2:
            raise SourceUnreachableError("It is not there.", field=named["field"])
        return await plain(*arguments, **named)

    service.fetch_url = second_fails
    with pytest.raises(SourceUnreachableError):
        await with_urls(service, uploaded(service), {"target": CLIP, "other": PHOTO})
    assert fetched == ["target_image", "source_image"]
    assert service.blobs.stored == {}


async def test_whoever_gives_up_waiting_leaves_nothing(service):
    service.fetch_gate = asyncio.Event()
    fetching = asyncio.create_task(with_urls(service, uploaded(service), {"target": CLIP}), name="fetching")
    await asyncio.sleep(0)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert service.blobs.stored == {}


def test_every_url_is_judged_by_its_field(service):
    check_urls(service, [PHOTO, CLIP])
    with pytest.raises(InvalidInputError) as refused:
        check_urls(service, [PHOTO, UrlInput("https://10.0.0.1/", "target_image", MOVING)])
    assert refused.value.field == "target_image"
