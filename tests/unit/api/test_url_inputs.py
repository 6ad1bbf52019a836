import asyncio

import pytest

from gateway.api.file_fields import MOVING, STILL
from gateway.api.url_inputs import UrlInput, check_urls, with_urls
from gateway.engine.service import SubmittedFile
from gateway.errors import InvalidInputError, ShuttingDownError, SourceUnreachableError
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


async def test_all_are_fetched_at_once_and_the_rest_given_up_when_one_fails(service):
    at_once, given_up = set(), []
    everybody = asyncio.Event()

    async def meet(_url, *, field, **_):
        at_once.add(field)
        if len(at_once) == 3:
            everybody.set()
        await everybody.wait()
        if field == "target_image":
            raise SourceUnreachableError("It is not there.", field=field)
        try:
            await asyncio.Event().wait()
        finally:
            given_up.append(field)

    service.fetch_url = meet
    third = UrlInput("https://media.example.org/g.png", "third", STILL)
    async with asyncio.timeout(5):
        with pytest.raises(SourceUnreachableError):
            await with_urls(service, {}, {"face": PHOTO, "target": CLIP, "other": third})
    assert sorted(given_up) == ["source_image", "third"]


async def test_of_two_failures_the_first_in_order_is_told(service):
    async def fails(_url, *, field, **_):
        raise SourceUnreachableError("It is not there.", field=field)

    service.fetch_url = fails
    with pytest.raises(SourceUnreachableError) as refused:
        await with_urls(service, {}, {"face": PHOTO, "target": CLIP})
    assert refused.value.field == "source_image"


async def test_how_it_is_to_be_fetched_is_passed_on(service):
    asked = {}

    async def note(_url, *, field, **wishes):
        asked[field] = wishes
        return uploaded(service)["face"]

    service.fetch_url = note
    strict = UrlInput(PHOTO.url, "strict", STILL, https_only=True, deadline_seconds=25.0)
    await with_urls(service, {}, {"a": PHOTO, "b": strict})
    assert asked["source_image"] == {"kinds": STILL, "https_only": False, "deadline_seconds": None}
    assert asked["strict"] == {"kinds": STILL, "https_only": True, "deadline_seconds": 25.0}


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


async def test_a_gateway_that_stops_gives_up_what_no_job_would_be_made_of(service):
    service.fetch_gate = asyncio.Event()
    fetching = asyncio.create_task(with_urls(service, uploaded(service), {"target": CLIP}))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not fetching.done()
    service.stopping.set()
    async with asyncio.timeout(5):
        with pytest.raises(ShuttingDownError):
            await fetching
    assert service.blobs.stored == {}


async def test_a_gateway_that_stops_begins_no_fetch(service):
    async def refuse(*_, **__):
        raise AssertionError("somebody was dialed")

    service.fetch_url = refuse
    service.stopping.set()
    with pytest.raises(ShuttingDownError):
        await with_urls(service, uploaded(service), {"target": CLIP})
    assert service.blobs.stored == {}


async def test_a_gateway_that_stops_takes_what_needs_no_fetch(service):
    service.stopping.set()
    assert set(await with_urls(service, uploaded(service), {})) == {"face"}
