"""What is deployed with says what the code does: names of settings, limits on both sides of a proxy, times to stop."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

from gateway.api import bodies
from gateway.cli.app import app
from gateway.serving import GRACE_SECONDS
from gateway.settings import Settings, from_mapping
from gateway.wire import BoundedHttpProtocol
from tests.tools.proxies import blocks

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy" / "comfygate.service"
ENVIRONMENT = ROOT / "deploy" / "comfygate.env"
PAGE = ROOT / "docs" / "deploy.md"
#: uvicorn's default; a connection that is idle for longer is closed.
KEEP_ALIVE_SECONDS = 5
MIB = 1024 * 1024


def directive(name: str) -> str:
    """The argument of a directive in the nginx configuration of the page."""
    [found] = re.findall(rf"^\s*{name} ([^;]+);", blocks("nginx")[0], re.MULTILINE)
    return found


@pytest.mark.parametrize("path", [UNIT, ENVIRONMENT, PAGE], ids=lambda path: path.name)
def test_each_setting_named_exists(path: Path) -> None:
    named = set(re.findall(r"GATEWAY_([A-Z][A-Z_]*[A-Z])", path.read_text(encoding="utf-8")))
    assert named
    assert {name.lower() for name in named} <= set(Settings.model_fields)


def test_example_of_the_environment_is_valid_with_its_comments_taken_away() -> None:
    lines = re.findall(r"^#?GATEWAY_(\w+)=(.*)$", ENVIRONMENT.read_text(encoding="utf-8"), re.MULTILINE)
    settings = from_mapping({name.lower(): value for name, value in lines} | {"auth": "keys"})
    assert settings.trusted_proxies == ("127.0.0.1",)
    assert len(settings.upstreams) == 2


def test_service_runs_a_command_that_exists_and_waits_for_its_end() -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str
    unit.read(UNIT, encoding="utf-8")
    service = unit["Service"]
    program, command = service["ExecStart"].split()
    assert (Path(program).name, command) == ("comfygate", "serve")
    assert command in app
    assert int(service["TimeoutStopSec"]) > 2 * GRACE_SECONDS
    assert "GATEWAY_DATA_DIR=%S/comfygate" in service["Environment"]
    assert service["StateDirectory"] == "comfygate"


def test_proxy_takes_what_the_gateway_takes_and_a_little_more() -> None:
    limit = int(directive("client_max_body_size").removesuffix("m")) * MIB
    assert 0 < limit - int(from_mapping({}).max_upload) <= MIB


def test_proxy_takes_the_same_heads_in_the_same_time() -> None:
    count, size = directive("large_client_header_buffers").split()
    assert int(count) * int(size.removesuffix("k")) * 1024 == BoundedHttpProtocol.max_head_bytes
    assert float(directive("client_header_timeout").removesuffix("s")) == BoundedHttpProtocol.head_seconds
    assert float(directive("client_body_timeout").removesuffix("s")) == bodies.BodyPace().idle_seconds


def test_proxy_lets_an_idle_connection_go_before_the_gateway_does() -> None:
    assert int(directive("keepalive_timeout").removesuffix("s")) < KEEP_ALIVE_SECONDS
    assert f"keepalive {directive('keepalive_timeout')}" in blocks("caddy")[0]
