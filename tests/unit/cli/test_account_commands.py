"""What a command line can say that no gateway is asked about."""

from __future__ import annotations

import json

import pytest
from structlog.testing import capture_logs

from gateway import logs
from gateway.cli.accounts import create_key, rotate
from gateway.cli.app import main
from gateway.cli.client import ClientError
from gateway.cli.listing import show_keys
from tests.tools.asgi import TOKEN, ask, make


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e308])
def test_times_that_are_no_numbers_are_a_sentence(number, tmp_path):
    with pytest.raises(ClientError, match="--expires-in-days is a number"):
        create_key(name="a", expires_in_days=number, data_dir=tmp_path / "none")
    with pytest.raises(ClientError, match="--overlap-hours is a number"):
        rotate("a", overlap_hours=number, data_dir=tmp_path / "none")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def keys(tmp_path, monkeypatch):
    """``comfygate keys`` on a directory; its exit status."""
    # The commands set up logging for their process, which here is that of all tests.
    monkeypatch.setattr(logs, "configure", lambda *_: None)

    def run(*words):
        with capture_logs(), pytest.raises(SystemExit) as ended:
            main(["keys", *words, "--data-dir", str(tmp_path)])
        return ended.value.code or 0

    return run


def test_a_key_is_made_with_lists_of_node_classes_and_lists_of_keys_show_them(keys, capsys):
    lists = ("--nodes-deny", "default, Load*", "VAE*,", "--nodes-allow", "K?ampler,Save Image")
    assert keys("create", "--name", "laptop", *lists) == 0
    rules = [
        "its own workflows: no node class like Load*, VAE*, default",
        "its own workflows: only node classes like K?ampler, Save Image",
    ]
    told = capsys.readouterr().out.splitlines()
    assert told[1:3] == rules
    assert told[-1].startswith("cfg_live_")
    assert keys("create", "--name", "plain") == 0
    assert "workflows" not in capsys.readouterr().out
    assert keys("list") == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.strip() for line in listed[2:4]] == rules
    assert len(listed) == 6


def test_a_list_without_a_pattern_is_refused_instead_of_being_none(keys, capsys):
    assert keys("create", "--name", "laptop", "--nodes-allow", " , ") == 1
    assert "The list nodes_allow has 1 to 200 patterns" in capsys.readouterr().err
    assert keys("list") == 0
    assert capsys.readouterr().out == "No keys.\n"


async def test_keys_of_a_running_gateway_are_shown_with_their_lists(capsys):
    app, _ = make(auth="keys")
    body = json.dumps({"name": "laptop", "nodes_allow": ["Save*"]}).encode()
    await ask(app, "POST", "/-/keys", body, authorization=f"Bearer {TOKEN}")
    page = (await ask(app, "GET", "/-/keys", authorization=f"Bearer {TOKEN}")).json
    capsys.readouterr()
    show_keys(page["keys"])
    assert capsys.readouterr().out.splitlines()[2:] == ["    its own workflows: only node classes like Save*"]
