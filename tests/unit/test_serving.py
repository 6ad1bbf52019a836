from __future__ import annotations

import asyncio
import os
import signal
import socket
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from gateway import serving
from gateway.data_dir import StartError
from gateway.main import base_url
from gateway.serving import _signals_stop, listen
from gateway.settings import from_mapping


def test_port_that_is_taken_is_told_with_the_remedy() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(StartError, match=rf"^Port {port} on 127\.0\.0\.1 is taken: .*GATEWAY_PORT"):
            listen("127.0.0.1", port)


def test_address_of_another_machine_is_told_with_the_remedy() -> None:
    with pytest.raises(StartError, match=r"GATEWAY_HOST"):
        listen("192.0.2.1", 0)


def test_port_can_be_had_again_at_once_after_a_restart() -> None:
    with listen("127.0.0.1", 0) as first:
        address = first.getsockname()
        with socket.create_connection(address):
            first.setblocking(True)
            first.accept()[0].close()
    with listen(*address) as again:
        assert again.getsockname() == address


def test_peer_that_acknowledges_nothing_is_dropped_by_the_kernel() -> None:
    with listen("127.0.0.1", 0) as listener:
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 45_000


class Service:
    def __init__(self) -> None:
        self.stopping = asyncio.Event()

    def begin_stopping(self) -> None:
        self.stopping.set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_first_signal_ends_streams_and_then_the_server_and_the_second_waits_for_nobody(number) -> None:
    gateway = SimpleNamespace(service=Service())
    server = SimpleNamespace(should_exit=False, force_exit=False)
    with _signals_stop(gateway, server):
        os.kill(os.getpid(), number)
        await asyncio.wait_for(gateway.service.stopping.wait(), 5)
        assert (server.should_exit, server.force_exit) == (True, False)
        os.kill(os.getpid(), number)
        for _ in range(100):
            await asyncio.sleep(0)
            if server.force_exit:
                break
        assert server.force_exit


def test_base_url_says_how_to_reach_it() -> None:
    assert base_url("127.0.0.1", 8000, is_encrypted=False) == "http://127.0.0.1:8000"
    assert base_url("::1", 8443, is_encrypted=True) == "https://[::1]:8443"


async def test_what_the_platform_lacks_is_logged_a_line_each_before_anything_else(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(serving.sys, "platform", "darwin")
    monkeypatch.delattr(serving.socket, "TCP_USER_TIMEOUT")
    no_certificate = {"tls_cert": tmp_path / "gone", "tls_key": tmp_path / "gone", "data_dir": tmp_path / "data"}
    with capture_logs() as lines, pytest.raises(StartError, match="GATEWAY_TLS_CERT"):
        await serving.serve(from_mapping(no_certificate))
    assert [line["log_level"] for line in lines] == ["warning"] * len(lines)
    for word in ("macOS", "TCP_USER_TIMEOUT", "parent-death"):
        assert sum(word in line["lacks"] for line in lines) == 1, word
    assert not (tmp_path / "data").exists()
