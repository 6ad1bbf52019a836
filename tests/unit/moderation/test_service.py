from __future__ import annotations

import ssl

import pytest

from gateway.moderation.service import MAX_ANSWER_BYTES, ServiceCheck, read_answer
from gateway.screening import CheckFailedError, Opinion, Pending
from tests.tools import safety_service


@pytest.fixture
def service():
    with safety_service.serving() as service:
        yield service


@pytest.fixture
async def look(service, tmp_path):
    picture = tmp_path / "0000.png"
    picture.write_bytes(b"the bytes of a picture")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    checks = [
        ServiceCheck(service.url, token=token, tls=tls, timeout_seconds=seconds)
        for token, seconds in (("secret", 10.0), (None, 0.05))
    ]

    async def look(*, patient=True):
        return await checks[0 if patient else 1].look(picture, reference="hash-0")

    yield look
    for check in checks:
        await check.close()


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b'{"flagged": false, "score": 0.25}', Opinion(0.25)),
        (200, b'{"flagged": true, "score": 0.25}', Opinion(0.25, is_flagged=True)),
        (200, b'{"flagged": true}', Opinion(0.0, is_flagged=True)),
        (200, b'{"flagged": false, "score": 1, "why": ["anything"]}', Opinion(1.0)),
        (200, b'{"pending": true}', Pending(5)),
        (200, b'{"pending": false, "flagged": false}', Opinion(0.0)),
        (202, b"", Pending(5)),
    ],
)
def test_answers_mean_what_the_page_says(status, body, expected) -> None:
    assert read_answer(status, None, body) == expected


@pytest.mark.parametrize(
    ("wanted", "expected"), [("7", 7), ("0", 1), ("100000", 300), ("Wed, 21 Oct", 5), ("-3", 5), ("\u00b2", 5)]
)
def test_service_says_when_to_ask_again(wanted, expected) -> None:
    assert read_answer(202, wanted, b"") == Pending(expected)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""),
        (200, b"{}"),
        (200, b"[]"),
        (200, b'{"flagged": "no"}'),
        (200, b'{"flagged": 0}'),
        (200, b'{"flagged": null, "score": 0.1}'),
        (200, b'{"score": 0.1}'),
        (200, b'{"flagged": false, "score": "0.1"}'),
        (200, b'{"flagged": false, "score": true}'),
        (200, b'{"flagged": false, "score": 1.5}'),
        (200, b'{"flagged": false, "score": -0.1}'),
        (200, b'{"flagged": false, "score": NaN}'),
        (200, b'{"flagged": true, "flagged": false}'),
        (200, b'{"pending": 1, "flagged": false}'),
        (204, b""),
        (302, b""),
        (404, b'{"flagged": false}'),
        (500, b'{"flagged": false}'),
    ],
)
def test_anything_else_is_no_answer(status, body) -> None:
    with pytest.raises(CheckFailedError):
        read_answer(status, None, body)


async def test_picture_goes_out_with_token_and_reference(service, look) -> None:
    assert await look() == Opinion(0.01)
    [(headers, body)] = service.came
    assert body == b"the bytes of a picture"
    assert headers["content-type"] == "image/png"
    assert headers["authorization"] == "Bearer secret"
    assert headers["x-picture-reference"] == "hash-0"


async def test_redirect_is_not_followed(service, look) -> None:
    service.status, service.headers = 307, {"Location": service.url}
    with pytest.raises(CheckFailedError, match="307"):
        await look()
    assert len(service.came) == 1


async def test_long_answer_is_not_read_to_its_end(service, look) -> None:
    service.body = b'{"flagged": false' + b" " * MAX_ANSWER_BYTES + b"}"
    with pytest.raises(CheckFailedError, match="too long"):
        await look()


async def test_silence_has_an_end(service, look) -> None:
    service.go.clear()
    with pytest.raises(CheckFailedError, match=r"within 0\.05 s|ReadTimeout"):
        await look(patient=False)


async def test_service_that_is_down_is_told_without_its_address(tmp_path) -> None:
    with safety_service.serving() as service:
        url = service.url
    (tmp_path / "x").write_bytes(b"x")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    check = ServiceCheck(url, token=None, tls=tls, timeout_seconds=5.0)
    with pytest.raises(CheckFailedError) as failed:
        await check.look(tmp_path / "x", reference="x")
    assert "127.0.0.1" not in str(failed.value)
    await check.close()
