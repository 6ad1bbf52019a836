"""How the demo ends."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.cli import demo
from gateway.cli.client import ClientError


@pytest.mark.parametrize(("stopping", "signals"), [(False, 1), (True, 0)])
async def test_a_swap_that_failed_ends_the_server_unless_it_stops_already(monkeypatch, stopping, signals):
    """What a Ctrl-C in the middle of the swap did: the second signal killed it while it was taking itself apart."""
    sent = []

    async def cut_off(*_):
        raise ClientError("the stream ended")

    monkeypatch.setattr(demo, "submit_files", cut_off)
    monkeypatch.setattr(os, "kill", lambda *what: sent.append(what))
    event = asyncio.Event()
    if stopping:
        event.set()
    gateway = SimpleNamespace(service=SimpleNamespace(stopping=event))
    with pytest.raises(ClientError):
        await demo._swap(gateway, "http://127.0.0.1:1", Path("a"), Path("b"), Path("c"), once=False)
    assert len(sent) == signals
