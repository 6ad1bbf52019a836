"""What goes out, as the settings say it: who is rung, and what keeps a start from going on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gateway.data_dir import StartError
from gateway.outgoing import Bell, open_outside
from gateway.safety import judge_address, parse_url
from gateway.settings import from_mapping

NO_UPSTREAMS = SimpleNamespace(views=lambda: ())


def test_a_bell_rings_for_all_who_listen():
    heard, bell = [], Bell()
    bell.add(lambda: heard.append("one"))
    bell.add(lambda: heard.append("two"))
    bell()
    assert heard == ["one", "two"]


async def test_our_own_listener_and_upstreams_are_nowhere_that_a_url_leads():
    status = SimpleNamespace(address="http://10.0.0.5:8188")
    pool = SimpleNamespace(views=lambda: (SimpleNamespace(status=status),))
    outside = await open_outside(from_mapping({"url_allowlist": "10.0.0.0/8,127.0.0.1"}), (("127.0.0.1", 8000),), pool)
    policy = outside.policy()
    for address, port, is_allowed in (("10.0.0.5", 8188, False), ("127.0.0.1", 8000, False), ("10.0.0.6", 8188, True)):
        url = parse_url(f"http://nas.lan:{port}/", policy)
        assert judge_address(address, url, policy).is_allowed is is_allowed


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"url_allowlist": "no host!"}, "GATEWAY_URL_ALLOWLIST"),
        ({"resolve": "nonsense"}, "GATEWAY_RESOLVE"),
        ({"ca_file": "/nowhere/ca.pem"}, "GATEWAY_CA_FILE"),
    ],
)
async def test_a_setting_that_cannot_be_is_named(settings, name):
    with pytest.raises(StartError, match=name):
        await open_outside(from_mapping(settings), (), NO_UPSTREAMS)
