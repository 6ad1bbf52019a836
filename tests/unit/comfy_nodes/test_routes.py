"""Who may have files deleted, what is asked and answered, and how a real ComfyUI comes to serve it."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from comfy_nodes import routes
from comfy_nodes.cleaning import MAX_FILES
from comfy_nodes.prompts import FOLDER_KEY, History

OURS = "a1b2c3d4e5f60718"
TOKEN = "s3cret token"


@pytest.fixture
def roots(tmp_path):
    return {kind: str(tmp_path / kind) for kind in ("input", "output", "temp")}


NO_HISTORY = History(dict, lambda _: None)


def ask(path, roots, history=NO_HISTORY, **asked):
    return routes.answer(path, json.dumps({"gateway": OURS, **asked}).encode(), roots, history)


def test_the_token_opens_and_nothing_else_does():
    environment = {routes.TOKEN_VARIABLE: "s3cret token"}
    assert routes.refusal("s3cret token", environment) is None
    for wrong in (None, "", "s3cret", "s3cret token ", "š3cret"):
        status, said = routes.refusal(wrong, environment)
        assert (status, said) == (403, {"error": routes.NOT_THE_TOKEN})
        assert "s3cret" not in str(said)


@pytest.mark.parametrize("environment", [{}, {routes.TOKEN_VARIABLE: ""}])
def test_where_no_token_is_set_nobody_has_it_and_the_answer_says_what_to_set(environment):
    for token in (None, "", "anything"):
        status, said = routes.refusal(token, environment)
        assert status == 403
        assert routes.TOKEN_VARIABLE in said["error"]


def test_what_is_listed_can_be_cleaned_as_it_was_told(roots):
    folder = Path(roots["output"]) / "gateway" / OURS / "p"
    folder.mkdir(parents=True)
    (folder / "out.png").write_bytes(b"x")
    status, told = ask(routes.LIST_PATH, roots)
    file = {"type": "output", "subfolder": f"gateway/{OURS}/p", "filename": "out.png"}
    assert (status, told) == (200, {"files": [file], "has_more": False, "prompts": []})
    assert ask(routes.LIST_PATH, roots, after=file) == (200, {"files": [], "has_more": False, "prompts": []})
    assert ask(routes.CLEAN_PATH, roots, files=[file]) == (200, {"files": [{**file, "result": "gone"}], "prompts": []})
    assert not folder.exists()


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"no JSON", b"[]", b"\xff", b'{"gateway": "x"}', b"[" * 200_000, b'{"gateway": "a1b2c3d4e5f60718"'),
        json.dumps({"gateway": OURS, "files": "all"}).encode(),
        json.dumps({"gateway": OURS, "files": [{}]}).encode(),
        json.dumps({"gateway": OURS, "files": ["x"]}).encode(),
        json.dumps({"gateway": OURS, "files": [{}] * (MAX_FILES + 1)}).encode(),
        json.dumps({"gateway": OURS}).encode(),
        json.dumps({"gateway": OURS, "files": [], "prompts": "all"}).encode(),
        json.dumps({"gateway": OURS, "files": [], "prompts": [7]}).encode(),
        json.dumps({"gateway": OURS, "files": [], "prompts": ["x"] * 1001}).encode(),
    ],
)
def test_what_is_no_question_is_answered_with_a_sentence(roots, body):
    status, said = routes.answer(routes.CLEAN_PATH, body, roots, NO_HISTORY)
    assert status == 400
    assert said["error"]


def test_a_page_that_begins_outside_is_refused(roots):
    after = {"type": "input", "subfolder": "elsewhere", "filename": "x"}
    assert ask(routes.LIST_PATH, roots, after=after)[0] == 400


# ---- on a ComfyUI


class Table:
    """Like aiohttp's RouteTableDef."""

    def __init__(self):
        self.made = []

    def __iter__(self):
        return iter(self.made)

    def post(self, path):
        def keep(handler):
            self.made.append(SimpleNamespace(path=path, handler=handler))
            return handler

        return keep


class Pieces:
    def __init__(self, body, read):
        self._body, self._read = body, read

    async def iter_chunked(self, size):
        for start in range(0, len(self._body), size):
            self._read.append(start)
            yield self._body[start : start + size]


@pytest.fixture
def comfyui(monkeypatch, roots):
    """The modules of a ComfyUI that a pack sees when it is loaded."""
    extra = {FOLDER_KEY: f"gateway/{OURS}"}
    history = {"ours": {"prompt": (0, "ours", {}, extra, []), "outputs": {}}, "theirs": {"prompt": (0, "", {}, {}, [])}}
    queue = SimpleNamespace(mutex=threading.RLock(), history=history, delete_history_item=history.pop)
    instance = SimpleNamespace(routes=Table(), prompt_queue=queue)
    server = SimpleNamespace(PromptServer=SimpleNamespace(instance=instance))
    folders = SimpleNamespace(**{f"get_{kind}_directory": lambda kind=kind: roots[kind] for kind in roots})
    web = SimpleNamespace(json_response=lambda said, status: (status, said))
    for name, module in (("server", server), ("folder_paths", folders), ("aiohttp.web", web)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "aiohttp", SimpleNamespace(web=web))
    monkeypatch.setenv(routes.TOKEN_VARIABLE, "s3cret token")
    return server.PromptServer.instance.routes


def request_of(body, token=TOKEN):
    read = []
    headers = {} if token is None else {routes.TOKEN_HEADER: token}
    return SimpleNamespace(headers=headers, content=Pieces(body, read), read=read)


async def test_a_comfyui_that_loads_the_pack_serves_both_once(comfyui):
    assert routes.register()
    assert [route.path for route in comfyui] == list(routes.PATHS)
    assert not routes.register(), "a second copy of the pack"
    assert len(comfyui.made) == 2
    listing = comfyui.made[0].handler
    asked = json.dumps({"gateway": OURS}).encode()
    assert await listing(request_of(asked)) == (200, {"files": [], "has_more": False, "prompts": ["ours"]})
    asked = json.dumps({"gateway": OURS, "files": [], "prompts": ["ours", "theirs"]}).encode()
    told = [{"id": "ours", "result": "gone"}, {"id": "theirs", "result": "refused"}]
    assert await comfyui.made[1].handler(request_of(asked)) == (200, {"files": [], "prompts": told})
    assert list(sys.modules["server"].PromptServer.instance.prompt_queue.history) == ["theirs"]


async def test_it_reads_nothing_of_a_stranger_and_not_too_much_of_anybody(comfyui):
    routes.register()
    listing = comfyui.made[0].handler
    stranger = request_of(b"x" * 100, token="wrong")
    assert (await listing(stranger))[0] == 403
    assert stranger.read == []
    long = request_of(b" " * (4 * routes.MAX_BODY_BYTES))
    assert (await listing(long))[0] == 413
    assert max(long.read) <= routes.MAX_BODY_BYTES + 65_536


def test_elsewhere_nothing_is_registered_nor_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "server", raising=False)
    assert not routes.register()
    assert "server" not in sys.modules
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace())
    assert not routes.register()
