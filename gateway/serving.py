"""Puts the gateway behind a listening socket until a signal comes.

The socket is our own, so that a taken port is told in a sentence, port 0 can be named, and ``TCP_USER_TIMEOUT`` is
inherited by every connection. It is opened when it is our turn to serve the data directory, so that a gateway that waits
for another one takes no connections that it would not answer. A signal first tells the streams to end, then the server to
stop; prompts that run on real upstreams run on and are taken up at the next start. The same happens, in less time, when
another gateway has taken over.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib.util
import os
import platform
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping

import structlog
import uvicorn

from gateway.data_dir import StartError
from gateway.errors import LeaseLostError
from gateway.main import Gateway, base_url, open_gateway
from gateway.portability import Platform, lacks
from gateway.settings import Settings
from gateway.tls import server_context
from gateway.wire import BoundedHttpProtocol

log = structlog.get_logger(__name__)

#: Open streams get this long to end after a signal; then they are cut.
GRACE_SECONDS = 20
#: A peer that acknowledges nothing for this long is dead: without it a stopped reader would keep its socket for ever.
TCP_USER_TIMEOUT_MILLISECONDS = 45_000
#: The same where another gateway serves already.
LOST_GRACE_SECONDS = 2
#: sysexits.h: try again later. A supervisor that starts us again gets one that waits for its turn.
EX_TEMPFAIL = 75
BACKLOG = 2048
WS_MAX_BYTES = 1024 * 1024


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises StartError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; elsewhere a dead reader goes with the kernel's own time-out
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MILLISECONDS)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            sentence = (
                f"Port {port} on {host} is taken: stop what listens there, or set GATEWAY_PORT (--port) to another."
            )
        elif error.errno == errno.EACCES:
            sentence = f"Port {port} needs rights this user does not have: set GATEWAY_PORT to one above 1023."
        else:
            sentence = f"Cannot listen on {host}: set GATEWAY_HOST to an address of this machine."
        raise StartError(sentence) from error
    return listener


class _Server(uvicorn.Server):
    """uvicorn without its signal handling, which would end the process before our own parts could be taken apart."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    settings: Settings, *, on_ready: Callable[[Gateway, str], None] | None = None, waits: bool = True
) -> int:
    """Serve until SIGTERM or SIGINT, or until another gateway has taken over; the exit status, 0 or ``EX_TEMPFAIL``.

    Args:
        settings: validated.
        on_ready: called once with the gateway and its base URL when it accepts connections.
        waits: for another gateway that lives on the data directory to end; else it is a StartError.

    Raises:
        StartError: with the sentence for the operator.
    """
    for sentence in lacks(_this_platform()):
        log.warning("platform", lacks=sentence)
    tls = await asyncio.to_thread(_tls, settings)
    with contextlib.ExitStack() as opened:
        listeners: list[socket.socket] = []

        def listen_here() -> tuple[str, int]:
            listener = opened.enter_context(contextlib.closing(listen(settings.host, settings.port)))
            listeners.append(listener)
            host, port = listener.getsockname()[:2]
            return host, port

        try:
            async with open_gateway(settings, listen=listen_here, waits=waits) as gateway:
                await _serve(gateway, tls, listeners, on_ready)
                # One that was stopped, taken over and then told to end has not been told yet.
                return 0 if await gateway.keeper.check() else EX_TEMPFAIL
        except LeaseLostError:  # somewhere on the way in or out it wanted to write
            return EX_TEMPFAIL


async def _serve(
    gateway: Gateway,
    tls: ssl.SSLContext | None,
    listeners: list[socket.socket],
    on_ready: Callable[[Gateway, str], None] | None,
) -> None:
    server = _Server(_config(gateway, tls))
    host, port = listeners[0].getsockname()[:2]
    ready = _tell_when_ready(server, gateway, base_url(host, port, is_encrypted=tls is not None), on_ready)
    async with _beside({"tell when ready": ready, "stop when lost": _stop_when_lost(server, gateway)}):
        with _signals_stop(gateway, server):
            await server.serve(sockets=listeners)


@contextlib.asynccontextmanager
async def _beside(works: Mapping[str, Coroutine[object, object, None]]) -> AsyncIterator[None]:
    """Run these until the context ends; by the names of their tasks."""
    tasks = [asyncio.create_task(work, name=name) for name, work in works.items()]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _stop_when_lost(server: uvicorn.Server, gateway: Gateway) -> None:
    await gateway.keeper.lost.wait()
    server.config.timeout_graceful_shutdown = LOST_GRACE_SECONDS
    gateway.service.begin_stopping()
    server.should_exit = True


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return server_context(settings.tls_cert, settings.tls_key)


def _this_platform() -> Platform:
    return Platform(
        system=sys.platform,
        kernel=platform.release(),
        has_tcp_user_timeout=hasattr(socket, "TCP_USER_TIMEOUT"),
        has_uvloop=importlib.util.find_spec("uvloop") is not None,
    )


def _config(gateway: Gateway, tls: ssl.SSLContext | None) -> uvicorn.Config:
    return uvicorn.Config(
        gateway.app,
        ssl_context_factory=None if tls is None else lambda _config, _default: tls,
        http=BoundedHttpProtocol,
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        ws_max_size=WS_MAX_BYTES,
        timeout_graceful_shutdown=GRACE_SECONDS,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        log_config=None,
    )


@contextlib.contextmanager
def _signals_stop(gateway: Gateway, server: uvicorn.Server) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if gateway.service.stopping.is_set():
            server.force_exit = True  # asked twice: do not wait for anybody
        log.info("stopping")
        gateway.service.begin_stopping()
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _tell_when_ready(
    server: uvicorn.Server, gateway: Gateway, url: str, on_ready: Callable[[Gateway, str], None] | None
) -> None:
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it; a few turns of the loop, once
        await asyncio.sleep(0.01)
    log.info("listening", url=url)
    if on_ready is not None:
        on_ready(gateway, url)


def run(settings: Settings, *, on_ready: Callable[[Gateway, str], None] | None = None, waits: bool = True) -> int:
    """``serve`` on uvloop where there is one; the exit status. Raises StartError."""
    os.umask(0o077)  # whatever is made below the data directory is for this user only
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(serve(settings, on_ready=on_ready, waits=waits))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # no wheel for this platform: slower, not broken
        return None
    return uvloop.new_event_loop
