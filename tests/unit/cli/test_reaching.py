"""Which gateway a command speaks to, and to whom the admin token of this machine is shown."""

from __future__ import annotations

import pytest

from gateway.cli.app import app
from gateway.cli.client import ClientError, GatewayClient
from gateway.cli.reaching import client_for
from gateway.data_dir import hold_data_dir, leave_address, prepare_data_dir

OWN = "http://127.0.0.1:8731"
TOKEN = "kept-in-the-directory"


@pytest.fixture
def serving(tmp_path, monkeypatch):
    """A data directory that a gateway holds which listens on another port than the usual one."""
    folder = prepare_data_dir(tmp_path / "data")
    (folder / "admin-token").write_text(f"{TOKEN}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_DATA_DIR", str(folder))
    with hold_data_dir(folder), leave_address(folder, OWN):
        yield folder


@pytest.mark.parametrize(
    "words",
    [["jobs"], ["upstreams"], ["upstreams", "add", "http://10.0.0.5:8188"], ["upstreams", "drain", "gpu"], ["status"]],
)
def test_every_command_finds_the_gateway_of_the_data_directory(serving, monkeypatch, words):
    asked = []

    async def note(client, *_args, **_more):
        asked.append((client.url, client._token))
        raise ClientError("enough")

    monkeypatch.setattr(GatewayClient, "_json", note)
    with pytest.raises(ClientError, match="enough"):
        app(words, result_action="return_value")
    assert asked == [(OWN, TOKEN)]


@pytest.mark.parametrize("url", [OWN, f"{OWN}/", "http://localhost:8731", "http://[::1]:8731"])
def test_the_gateway_of_this_machine_is_shown_its_token_however_it_is_called(serving, url):
    assert client_for(url, None)._token == TOKEN
    assert client_for(url, "another")._token == "another"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000",
        "https://127.0.0.1:8731",
        "http://10.0.0.9:8731",
        "https://faces.example.org",
        "http://127.0.0.1:x",
        "nonsense",
    ],
)
def test_a_gateway_elsewhere_is_never_shown_the_token_of_this_machine(serving, url):
    assert client_for(url, None)._token is None


def test_two_addresses_that_cannot_be_read_are_not_one_gateway(serving):
    (serving / "address").write_text("http://127.0.0.1:nonsense\n")
    assert client_for("http://127.0.0.1:other", None)._token is None


def test_settings_that_are_wrong_here_do_not_keep_from_a_gateway_elsewhere(serving, monkeypatch):
    monkeypatch.setenv("GATEWAY_PORT", "many")
    assert client_for("https://faces.example.org", None)._token is None


def test_an_address_left_by_a_killed_gateway_is_not_believed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = prepare_data_dir(tmp_path / "data")
    (folder / "lock").touch()
    (folder / "address").write_text(OWN)
    (folder / "admin-token").write_text(TOKEN)
    assert client_for(OWN, None)._token is None
    client = client_for(None, None)
    assert (client.url, client._token) == ("http://127.0.0.1:8000", None)
