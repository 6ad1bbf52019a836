"""What ``tests/unit/blobs/test_putting.py`` and ``tests/unit/webhooks/test_delivery.py`` do not see of the sender between them."""

import asyncio
import ssl

import pytest

from gateway.blobs.dialing import dial
from gateway.blobs.sending import GuardedSender
from gateway.errors import SourceUnreachableError
from gateway.interfaces import Outgoing
from gateway.safety import UrlMode, UrlPolicy
from tests.fakes.clock import FrozenClock

ADDRESS = "93.184.215.14"


def outgoing(url, *, content=b"{}", seconds=0.05, **options):
    return Outgoing("POST", url, "text/plain", 2, content, patience_seconds=5, deadline_seconds=seconds, **options)


class Network:
    """One name, which leads to a port of this machine."""

    def __init__(self, port=0):
        self.port = port
        self.dialled = 0

    async def resolve(self, _host, _port):
        return [ADDRESS]

    async def dial(self, _address, _port, timeout_seconds):
        self.dialled += 1
        return await dial("127.0.0.1", self.port, timeout_seconds)

    def sender(self, policy=lambda: UrlPolicy.from_settings(UrlMode.PUBLIC, ())):
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return GuardedSender(policy=policy, resolver=self.resolve, dialer=self.dial, tls=tls, clock=FrozenClock())


async def test_who_never_ends_the_handshake_keeps_no_connection():
    left = asyncio.Event()

    async def say_nothing(reader, writer):
        await reader.read()  # until the other side has closed
        left.set()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        network = Network(server.sockets[0].getsockname()[1])
        with pytest.raises(TimeoutError):
            await network.sender().send(outgoing("https://files.example.com/"))
        async with asyncio.timeout(5):
            await left.wait()


async def test_plain_http_is_not_dialled_where_only_https_goes():
    network = Network()
    with pytest.raises(SourceUnreachableError):
        await network.sender().send(outgoing("http://files.example.com/", https_only=True))
    assert network.dialled == 0


async def test_the_policy_of_now_is_asked_each_time():
    modes = iter([UrlMode.OFF, UrlMode.PUBLIC])
    network = Network()
    sender = network.sender(lambda: UrlPolicy.from_settings(next(modes), ()))
    for dialled in (0, 1):
        with pytest.raises(SourceUnreachableError):
            await sender.send(outgoing("https://files.example.com/", seconds=5))
        assert network.dialled == dialled
