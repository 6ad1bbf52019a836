"""Creates and detections against the corpus of URLs, with the real guard and a dialler that only takes notes."""

import json
import ssl
from collections import Counter
from pathlib import Path

import pytest

from gateway.audit import MediaKind
from gateway.blobs.fetch import UrlFetcher
from gateway.engine.service import SubmittedFile
from gateway.safety import UrlMode, UrlPolicy
from tests.tools.asgi import ask, make

CORPUS = json.loads((Path(__file__).parents[3] / "corpus" / "ssrf.json").read_text())
BAD = [case["url"] for case in CORPUS if case["expect"] == "reject"]
GOOD = [case["url"] for case in CORPUS if case["expect"] == "accept"]
FINE = "https://media.example.org/fine.png"
PUBLIC = "203.0.114.7"


class Guarded:
    """An application whose engine judges and looks up like the real one; nothing is ever dialled for good."""

    def __init__(self):
        self.app, self.service = make()
        self.key = self.service.give_key(rate_limit=10_000)
        self.answers = {}
        self.looked_up = Counter()
        self.dialled = []
        policy = UrlPolicy.from_settings(UrlMode.PUBLIC, ())
        self.fetcher = UrlFetcher(
            self.service.blobs,
            policy=lambda: policy,
            resolver=self.resolve,
            dialer=self.dial,
            tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        )
        self.service.check_url = self.check
        self.service.fetch_url = self.fetch
        self.service.vet_url = self.vet

    async def resolve(self, host, _port):
        self.looked_up[host] += 1
        return self.answers.get(host, [PUBLIC])

    async def dial(self, address, port, _timeout):
        self.dialled.append((address, port))
        raise ConnectionRefusedError

    def check(self, url, *, field, https_only=False):
        self.fetcher.check(url, field=field, https_only=https_only)

    async def vet(self, url, *, field):
        await self.fetcher.require_public(self.fetcher.check(url, field=field, https_only=True), field=field)

    async def fetch(self, url, *, field, kinds, https_only=False, deadline_seconds=None):
        checked = self.fetcher.check(url, field=field, https_only=https_only)
        caps = dict.fromkeys(kinds, 1000)
        assert kinds == {MediaKind.IMAGE}
        fetched = await self.fetcher.fetch(
            checked, caps=caps, field=field, https_only=https_only, deadline_seconds=deadline_seconds
        )
        return SubmittedFile(fetched.blob, field)

    async def refused(self, path, **body):
        answer = await ask(self.app, "POST", path, json.dumps(body).encode(), **self.headers)
        assert answer.status == 400
        assert self.service.submissions == []
        assert self.service.blobs.stored == {}
        return answer

    @property
    def headers(self):
        return {"content_type": "application/json", "x_api_key": self.key, "x_request_id": "one"}

    async def create(self, **changes):
        return await self.refused(
            "/api/v1/swaps", **{"type": "image", "source_url": FINE, "target_url": FINE} | changes
        )


@pytest.fixture
def guarded():
    return Guarded()


def error(answer):
    return answer.json["error"]


async def test_every_bad_url_is_refused_in_the_same_words_and_nobody_is_dialled(guarded):
    told = set()
    for url in BAD:
        for field in ("source_url", "target_url"):
            refusal = error(await guarded.create(**{field: url}))
            assert refusal["code"] in {"validation_error", "source_unreachable"}
            told.add((field, refusal["message"]))
    assert guarded.dialled == []
    # A string that is empty is missing rather than bad; that says nothing of any place.
    told -= {(field, f"{field} is required.") for field in ("source_url", "target_url")}
    assert len(told) == 2, told


async def test_every_bad_url_is_refused_as_a_webhook_and_nobody_is_looked_up_twice(guarded):
    for url in BAD:
        refusal = error(await guarded.create(webhook_url=url))
        assert refusal["code"] == "validation_error"
        assert refusal["message"] == "webhook_url must be a public https URL."
    assert guarded.dialled == []


async def test_every_good_url_reaches_the_dialler_with_an_address_that_was_checked(guarded):
    for url in GOOD:
        guarded.dialled.clear()
        refusal = error(await guarded.create(source_url=url))
        assert refusal["code"] == "source_unreachable"
        # One of the two is given up when the other has failed, but both began.
        assert guarded.dialled
        assert all(port == 443 and address in url + PUBLIC for address, port in guarded.dialled), guarded.dialled


@pytest.mark.parametrize(
    "answers",
    [
        ["10.0.0.1"],
        [PUBLIC, "10.0.0.1"],
        [PUBLIC, "fd00::1"],
        ["64:ff9b::a9fe:a9fe"],
        ["::ffff:10.0.0.1"],
        ["fe80::1%2"],
        ["169.254.169.254"],
        [],
        [PUBLIC] * 500,
    ],
    ids=str,
)
async def test_a_name_that_leads_to_a_bad_place_reads_like_one_that_nobody_answers_at(guarded, answers):
    nobody_answers = await guarded.create(source_url="https://quiet.example.com/")
    guarded.dialled.clear()
    guarded.answers = {"media.example.org": [PUBLIC], "evil.example.com": answers}
    bad = await guarded.create(source_url="https://evil.example.com/")
    assert (bad.body, bad.status) == (nobody_answers.body, nobody_answers.status)
    assert {address for address, _ in guarded.dialled} <= {PUBLIC}
    assert error(await guarded.create(webhook_url="https://evil.example.com/"))["code"] == "validation_error"


async def test_a_name_that_cannot_be_looked_up_reads_the_same(guarded):
    nobody_answers = await guarded.create(source_url="https://quiet.example.com/")
    for failure in (OSError("no such name"), UnicodeError("label too long"), TimeoutError()):

        async def fail(_host, _port, failure=failure):
            raise failure

        guarded.fetcher._resolver = fail
        assert (await guarded.create(source_url="https://evil.example.com/")).body == nobody_answers.body
