"""What goes out to places that clients name: how they are reached, and who carries messages and files there.

Beside ``main.py`` the one place that knows the concrete classes of it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

from gateway.api.dialects import DIALECTS
from gateway.api.told_outside import teller
from gateway.blobs.dialing import SystemResolver, resolve_overrides
from gateway.blobs.fetch import UrlFetcher, tls_context
from gateway.blobs.putting import UrlPutter
from gateway.blobs.sending import GuardedSender
from gateway.data_dir import StartError
from gateway.engine.bucket_target import BucketTarget
from gateway.engine.bus import LocalBus
from gateway.engine.carrier import Carrier
from gateway.engine.courier import Courier
from gateway.engine.deliveries import Deliveries
from gateway.engine.pool import Pool
from gateway.engine.webhook_secrets import WebhookSecrets
from gateway.engine.webhooks import Webhooks
from gateway.errors import InvalidInputError
from gateway.holding import Keeper
from gateway.interfaces import Blobs, Bucket, Clock, Store
from gateway.safety import Endpoint, UrlMode, UrlPolicy, listener_endpoints
from gateway.settings import Settings
from gateway.webhooks.delivery import Deliverer
from gateway.webhooks.sealing import KEY_FILE, FileSealer, KeyFileError


class Bell:
    """Rings for those who listen, who may be made after it."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[], None]] = []

    def add(self, listener: Callable[[], None]) -> None:
        """Have it called from now on."""
        self._listeners.append(listener)

    def __call__(self) -> None:
        """Ring."""
        for listener in self._listeners:
            listener()


async def _tls(settings: Settings) -> ssl.SSLContext:
    """What certificates of upstreams and URL inputs are checked against. Raises StartError."""
    try:
        return await asyncio.to_thread(tls_context, settings.ca_file)
    except OSError as error:
        raise StartError("GATEWAY_CA_FILE cannot be read or holds no certificate: name a PEM bundle.") from error


@dataclass(frozen=True, slots=True)
class Outside:
    """How places are reached that clients name."""

    policy: Callable[[], UrlPolicy]
    #: GATEWAY_RESOLVE.
    overrides: Mapping[str, Sequence[str]]
    tls: ssl.SSLContext

    def fetcher(self, stack: AsyncExitStack, blobs: Blobs) -> UrlFetcher:
        """Fetches inputs."""
        return UrlFetcher(blobs, policy=self.policy, resolver=self._resolver(stack, 8), tls=self.tls)

    def sender(self, stack: AsyncExitStack, clock: Clock, *, threads: int) -> GuardedSender:
        """Carries what goes there. Its look-ups are its own: names that nobody answers for hold up nobody else's."""
        resolver = self._resolver(stack, threads)
        return GuardedSender(policy=self.policy, resolver=resolver, tls=self.tls, clock=clock)

    def _resolver(self, stack: AsyncExitStack, threads: int) -> SystemResolver:
        resolver = SystemResolver(self.overrides, threads=threads)
        stack.callback(resolver.close)
        return resolver


async def open_outside(settings: Settings, listeners: tuple[tuple[str, int], ...], pool: Pool) -> Outside:
    """How places are reached that clients name, by the settings.

    Args:
        settings: validated.
        listeners: (address, port) of our own.
        pool: the upstreams, which clients' URLs never reach.

    Raises:
        StartError: with the sentence for the operator.
    """
    ours = tuple(endpoint for host, port in listeners for endpoint in listener_endpoints(host, port, local_addresses()))
    try:
        fixed = UrlPolicy.from_settings(UrlMode(settings.url_inputs), settings.url_allowlist, ours)
        overrides = resolve_overrides(settings.resolve)
    except InvalidInputError as error:
        raise StartError(f"GATEWAY_{(error.field or '').upper()}: {error.message}") from error
    except ValueError as error:
        raise StartError(f"GATEWAY_RESOLVE takes name=address pairs, separated by commas: {error}") from error

    def policy() -> UrlPolicy:
        # Asked at every hop: upstreams come and go, and embedded workers change their port with each start.
        theirs = tuple(_endpoint(view.status.address) for view in pool.views())
        return replace(fixed, refused=(*fixed.refused, *theirs))

    return Outside(policy, overrides, await _tls(settings))


async def _sealer(folder: Path) -> FileSealer:
    """What makes secrets of webhooks, and URLs that files are put to, unreadable. Raises StartError."""
    try:
        return await asyncio.to_thread(FileSealer.beside, folder)
    except (KeyFileError, OSError) as error:
        raise StartError(
            f"The file {KEY_FILE} in {folder} cannot be used: see to its rights or restore it; without the file, which "
            "may be removed, users need new webhook secrets, and files that were to be put to URLs are not."
        ) from error


@dataclass(frozen=True, slots=True)
class PostOffice:
    """Who carries things there, and what their owners may ask about it."""

    courier: Courier
    webhooks: Webhooks
    carrier: Carrier
    deliveries: Deliveries


@dataclass(frozen=True, slots=True)
class Kept:
    """Where what is to be sent lies, and whether it is ours to send."""

    store: Store
    blobs: Blobs
    holding: Keeper
    clock: Clock
    #: The operator's, by name.
    targets: Mapping[str, Bucket]


async def open_post_office(
    stack: AsyncExitStack,
    settings: Settings,
    folder: Path,
    kept: Kept,
    bus: LocalBus,
    outside: Outside,
    fetcher: UrlFetcher,
    posted: Bell,
    new_id: Callable[[], str],
) -> PostOffice:
    """The post office, not at work yet; whoever rings ``posted`` wakes it. Raises StartError."""
    store, blobs, clock, may_act = kept.store, kept.blobs, kept.clock, kept.holding.verified
    sealer = await _sealer(folder)
    secrets = WebhookSecrets(store.webhooks, sealer, clock)
    kept_seconds = min(settings.result_retention, settings.job_retention)
    tell = teller(DIALECTS, settings.public_url or "", kept_seconds)
    sender = Deliverer(outside.sender(stack, clock, threads=64))
    courier = Courier(store, sender, secrets, clock, tell=tell, may_act=may_act)
    webhooks = Webhooks(store.webhooks, secrets, sender, clock, new_id, on_message=courier.wake)
    targets = {name: BucketTarget(name, bucket, blobs, clock) for name, bucket in kept.targets.items()}
    putter = UrlPutter(blobs, outside.sender(stack, clock, threads=16))
    carrier = Carrier(store, blobs, bus, putter, targets, sealer, clock, may_act=may_act)
    deliveries = Deliveries(
        store.deliveries,
        store.accounts,
        targets,
        sealer,
        clock,
        guard=None if settings.url_inputs == "off" else fetcher,
        on_delivery=carrier.wake,
        on_change=bus.doubt_all,
    )
    posted.add(courier.wake)
    posted.add(carrier.wake)
    return PostOffice(courier, webhooks, carrier, deliveries)


def _endpoint(address: str) -> Endpoint:
    """The place of an upstream, from "scheme://host:port"."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        return Endpoint(ip_network(host), port)
    except ValueError:
        return Endpoint(host.lower(), port)


def local_addresses() -> tuple[str, ...]:
    """Addresses that this machine's own name stands for: what a wildcard listener answers on, as far as one can ask."""
    try:
        found = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    except OSError:
        return ()
    return tuple({str(entry[4][0]).partition("%")[0] for entry in found})
