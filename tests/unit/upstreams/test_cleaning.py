"""What is deleted on an upstream and what stays, over the very code that the node pack answers with."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from comfy_nodes import routes as pack
from comfy_nodes.cleaning import own_files
from comfy_nodes.prompts import History
from gateway.comfy import answers
from gateway.interfaces import Blob, Cleaning
from gateway.upstreams import cleaning
from gateway.upstreams.cleaning import Cleaner
from gateway.upstreams.client import Answer
from gateway.upstreams.exchange import NoAnswerError
from gateway.upstreams.staging import Staging, folder_of

OURS = folder_of("mine")
TOKEN = "s3cret token"
ONE, TWO = "ab" * 32, "cd" * 32
PROMPT, ENDED = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


class Box:
    """A ComfyUI with the pack, as its client sees it."""

    def __init__(self, folder: Path, token=TOKEN):
        self.roots = {kind: str(folder / kind) for kind in ("input", "output", "temp")}
        self.environment = {pack.TOKEN_VARIABLE: token}
        self.history = {}
        self.asked = []
        #: Answers in place of the pack's, in order.
        self.answers = []

    @property
    def _history(self):
        return History(lambda: dict(self.history), self.history.pop)

    def remember(self, prompt_id, folder=OURS):
        self.history[prompt_id] = {"prompt": (0, prompt_id, {}, {answers.FOLDER_KEY: folder}, []), "outputs": {}}

    def put(self, kind, subfolder, name):
        path = Path(self.roots[kind]) / subfolder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"face")
        return path

    def names(self):
        found = (path for root in self.roots.values() for path in Path(root).rglob("*") if path.is_file())
        return sorted(path.name for path in found)

    async def post(self, path, value, *, answer_seconds, headers):
        self.asked.append((path, value))
        if self.answers:
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        refused = pack.refusal(headers[pack.TOKEN_HEADER], self.environment)
        status, said = refused or pack.answer(path, json.dumps(value).encode(), self.roots, self._history)
        return Answer(status, json.dumps(said).encode())

    async def upload(self, path, content, headers):
        async for _ in content:
            pass
        self.put("input", OURS, f"{ONE}.png")
        return Answer(200, json.dumps({"name": f"{ONE}.png", "subfolder": OURS, "type": "input"}).encode())


@pytest.fixture
def box(tmp_path):
    return Box(tmp_path / "ComfyUI")


@pytest.fixture
def staging(box):
    return Staging(box, OURS)


def cleaner_of(box, staging, token=TOKEN):
    return Cleaner("gpu", box, staging, OURS, token)


def needing(*needed):
    async def in_use(hashes, prompts):
        return {*hashes, *prompts} & set(needed)

    return in_use


async def test_what_something_needs_stays_and_the_rest_goes(box, staging):
    box.put("input", OURS, f"{ONE}.png")
    box.put("input", OURS, f"{TWO} (1).mp4")
    box.put("output", f"{OURS}/{PROMPT}", "out_00001_.png")
    box.put("output", f"{OURS}/{ENDED}/out", "1_00001_.png")
    box.put("temp", f"{OURS}/{ENDED}/out", "2_00001_.png")
    box.put("output", OURS, "nobody's.png")
    box.put("input", OURS, "nobody's.png")
    box.put("output", "", "of the person who sits there.png")
    cleaner = cleaner_of(box, staging)
    assert cleaner.state is Cleaning.UNKNOWN
    assert await cleaner.tidy(needing(ONE, PROMPT)) == 5
    assert box.names() == [f"{ONE}.png", "of the person who sits there.png", "out_00001_.png"]
    assert await cleaner.tidy(needing()) == 2
    assert box.names() == ["of the person who sits there.png"]
    assert cleaner.state is Cleaning.WORKS
    assert await cleaner.tidy(needing()) == 0


async def test_the_store_is_asked_for_no_more_than_lies_there(box, staging):
    box.put("input", OURS, f"{ONE}.png")
    box.put("output", f"{OURS}/{PROMPT}", "a.png")
    box.put("output", f"{OURS}/{PROMPT}", "b.png")
    asked = []

    async def in_use(hashes, prompts):
        asked.append((set(hashes), set(prompts)))
        return {*hashes, *prompts}

    assert await cleaner_of(box, staging).tidy(in_use) == 0
    assert asked == [({ONE}, {PROMPT})]
    assert [path for path, _ in box.asked] == [cleaning.LIST_PATH], "there was nothing to delete"


async def test_its_history_tells_no_more_of_prompts_that_nothing_needs(box, staging):
    box.remember(PROMPT)
    box.remember(ENDED)
    box.remember("theirs", "gateway/ffffffffffffffff")
    cleaner = cleaner_of(box, staging)
    assert await cleaner.tidy(needing(PROMPT)) == 0
    assert list(box.history) == [PROMPT, "theirs"]
    await cleaner.tidy(needing())
    assert list(box.history) == ["theirs"]
    asked = len(box.asked)
    await cleaner.tidy(needing())
    assert [path for path, _ in box.asked[asked:]] == [cleaning.LIST_PATH]


async def test_an_input_that_somebody_wants_meanwhile_is_there_for_whoever_wants_it(box, staging, tmp_path):
    """The race: a job comes after the store was asked and before the file is gone, and believes that it is there."""
    (tmp_path / "blob").write_bytes(b"face")
    blob = Blob(ONE, 4)
    await staging.stage(blob, tmp_path / "blob", ".png")
    wanting = []

    async def in_use(hashes, prompts):
        wanting.append(asyncio.create_task(staging.stage(blob, tmp_path / "blob", ".png")))
        for _ in range(5):
            await asyncio.sleep(0)
        return ()

    assert await cleaner_of(box, staging).tidy(in_use) == 1
    assert await wanting[0] == f"{OURS}/{ONE}.png"
    assert box.names() == [f"{ONE}.png"]


async def test_an_input_that_is_being_uploaded_is_left_alone(box, staging, tmp_path):
    (tmp_path / "blob").write_bytes(b"face")
    box.put("input", OURS, f"{ONE}.png")
    gate = asyncio.Event()
    upload = box.upload

    async def slow(*arguments):
        await gate.wait()
        return await upload(*arguments)

    box.upload = slow
    uploading = asyncio.create_task(staging.stage(Blob(ONE, 4), tmp_path / "blob", ".png"))
    await asyncio.sleep(0)
    assert await cleaner_of(box, staging).tidy(needing()) == 0
    gate.set()
    await uploading
    assert box.names() == [f"{ONE}.png"]


async def test_after_an_answer_that_was_lost_nothing_is_believed_to_be_there(box, staging, tmp_path):
    (tmp_path / "blob").write_bytes(b"face")
    await staging.stage(Blob(ONE, 4), tmp_path / "blob", ".png")
    listed = {"files": [{"type": "input", "subfolder": OURS, "filename": f"{ONE}.png"}], "has_more": False}
    box.answers = [Answer(200, json.dumps(listed).encode()), NoAnswerError("cut")]
    with pytest.raises(ConnectionError):
        await cleaner_of(box, staging).tidy(needing())
    assert staging.staged() == frozenset()
    async with asyncio.timeout(1):  # nobody is kept waiting
        await staging.stage(Blob(ONE, 4), tmp_path / "blob", ".png")


async def test_page_after_page_is_cleaned(box, staging, monkeypatch):
    monkeypatch.setattr(pack, "own_files", lambda roots, gateway, after: own_files(roots, gateway, after, most=2))
    for number in range(7):
        box.put("output", f"{OURS}/{PROMPT if number % 2 else ENDED}", f"{number}.png")
    assert await cleaner_of(box, staging).tidy(needing(PROMPT)) == 4
    assert box.names() == ["1.png", "3.png", "5.png"]


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (Answer(405, b"405: Method Not Allowed"), Cleaning.NO_ROUTE),
        (Answer(404, b""), Cleaning.NO_ROUTE),
        (Answer(403, b"{}"), Cleaning.REFUSED),
    ],
)
async def test_why_nothing_can_be_deleted_is_known(box, staging, answer, state):
    cleaner = cleaner_of(box, staging)
    box.answers = [answer]
    assert await cleaner.tidy(needing()) == 0
    assert cleaner.state is state
    await cleaner.tidy(needing())
    assert cleaner.state is Cleaning.WORKS, "the pack was installed, or the token set"


async def test_another_token_is_refused_and_without_one_nobody_is_asked(box, staging):
    box.put("output", f"{OURS}/{ENDED}", "out.png")
    wrong = cleaner_of(box, staging, "another token")
    assert await wrong.tidy(needing()) == 0
    assert wrong.state is Cleaning.REFUSED
    none = cleaner_of(box, staging, None)
    box.asked.clear()
    assert await none.tidy(needing()) == 0
    assert (none.state, box.asked) == (Cleaning.NO_TOKEN, [])
    assert box.names() == ["out.png"]


@pytest.mark.parametrize(
    "answer", [Answer(500, b"500"), Answer(200, b"<html>"), Answer(200, b"[]"), Answer(200, b"{}")]
)
async def test_an_answer_of_something_else_is_no_answer(box, staging, answer):
    box.answers = [answer]
    cleaner = cleaner_of(box, staging)
    with pytest.raises(ConnectionError):
        await cleaner.tidy(needing())
    assert cleaner.state is Cleaning.UNKNOWN


async def test_nothing_outside_our_folder_is_asked_for_whatever_is_listed(box, staging):
    strange = [
        {"type": "input", "subfolder": "gateway/ffffffffffffffff", "filename": "a.png"},
        {"type": "input", "subfolder": f"{OURS}x", "filename": "a.png"},
        {"type": "input", "subfolder": "", "filename": "a.png"},
        {"type": 7, "subfolder": OURS, "filename": "a.png"},
        {"subfolder": OURS},
        "a.png",
    ]
    box.answers = [Answer(200, json.dumps({"files": strange, "has_more": True}).encode())]
    assert await cleaner_of(box, staging).tidy(needing()) == 0
    assert [path for path, _ in box.asked] == [cleaning.LIST_PATH]


async def test_a_list_that_never_ends_is_left_in_time(box, staging):
    file = {"type": "output", "subfolder": f"{OURS}/{PROMPT}", "filename": "a.png"}
    page = Answer(200, json.dumps({"files": [file], "has_more": True}).encode())
    box.answers = [page] * (cleaning.MAX_PAGES + 5)
    await cleaner_of(box, staging).tidy(needing(PROMPT))
    assert len(box.asked) == cleaning.MAX_PAGES
