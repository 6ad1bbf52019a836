"""Puts the house together and serves it: the one place that knows every concrete class.

``open_gateway`` builds the parts in the order in which they need one another and takes them apart in the reverse order.
What can go wrong at a start is a ``StartError`` with one sentence that says the remedy. ``serving.py`` puts the house
behind a listening socket.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy.exc import DatabaseError
from starlette.applications import Starlette
from uuid_utils.compat import uuid7

from gateway.api.app import create_app
from gateway.asset_links import AssetLinks
from gateway.clock import SystemClock
from gateway.data_dir import (
    StartError,
    clear_scratch,
    leave_address,
    prepare_data_dir,
    read_admin_token,
    read_asset_key,
)
from gateway.engine.arrivals import Arrivals
from gateway.engine.bus import LocalBus
from gateway.engine.catalog import Catalog
from gateway.engine.dispatcher import Dispatcher
from gateway.engine.maintenance import Maintenance
from gateway.engine.pool import Pool
from gateway.engine.recorder import Recorder
from gateway.engine.results import Collector
from gateway.engine.runner import Runner
from gateway.engine.service import Service
from gateway.engine.storage_watch import StorageWatch
from gateway.engine.taking_back import take_back
from gateway.engine.template_files import workflows_folder
from gateway.engine.tidying import Tidying
from gateway.engine.timing import LearnedTimings
from gateway.engine.watching import TemplateWatch
from gateway.errors import GatewayError
from gateway.holding import DATABASE, DatabaseBusyError, Keeper, is_busy, take_directory
from gateway.interfaces import Blob, Blobs, Bucket, Clock
from gateway.job import RetryLimits
from gateway.media.limits import Limits
from gateway.media.workers import MediaWorkers
from gateway.outgoing import Bell, Kept, Outside, PostOffice, open_outside, open_post_office
from gateway.safety_builder import open_screening
from gateway.settings import Settings
from gateway.storage_builder import open_blobs, open_targets
from gateway.store.queries.leases import Claim
from gateway.store.sql_store import SqlStore
from gateway.upstream_builder import UpstreamBuilder
from gateway.upstreams import checkout

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Gateway:
    """The parts that a server or a test needs."""

    app: Starlette
    service: Service
    admin_token: str
    #: Whether this start made the token.
    token_is_new: bool
    #: Knows whether the data directory still is ours.
    keeper: Keeper


# ----------------------------------------------------------------------------------------------------------- the house


@asynccontextmanager
async def open_gateway(
    settings: Settings, *, listen: Callable[[], tuple[str, int]] | None = None, waits: bool = True
) -> AsyncIterator[Gateway]:
    """The whole gateway behind an ASGI app, running until the context ends.

    Args:
        settings: validated.
        listen: opens our listener once it is our turn, and says its (address, port), which URL inputs must never reach.
        waits: for another gateway that lives on the data directory to end; else we are refused.

    Raises:
        StartError: with the sentence for the operator.
    """
    listeners: list[tuple[str, int]] = []

    def on_turn() -> None:
        if listen is not None:
            listeners.append(listen())

    async def open_store(claim: Claim) -> SqlStore:
        return await _open_store(settings, folder, claim)

    folder = await asyncio.to_thread(prepare_data_dir, settings.data_dir)
    _require_embedded(settings)
    _require_checkout(settings)
    async with AsyncExitStack() as stack:
        clock = SystemClock()
        store, keeper = await take_directory(stack, folder, open_store, clock, waits=waits, on_turn=on_turn)
        await _run_beside(stack, keeper.run(), "lease")
        await asyncio.to_thread(clear_scratch, folder)
        token, is_new = await asyncio.to_thread(read_admin_token, settings, folder)
        service = await _build(stack, settings, folder, tuple(listeners), store, keeper, clock)
        app = create_app(service, settings, admin_token=token)
        for host, port in listeners[:1]:
            stack.enter_context(
                leave_address(folder, local_url(host, port, is_encrypted=settings.tls_cert is not None))
            )
        yield Gateway(app, service, token, is_new, keeper)


async def _build(
    stack: AsyncExitStack,
    settings: Settings,
    folder: Path,
    listeners: tuple[tuple[str, int], ...],
    store: SqlStore,
    holding: Keeper,
    clock: Clock,
) -> Service:
    bus = LocalBus()
    targets = await open_targets(stack, settings)
    blobs, media = await _open_files(stack, settings, folder, holding, targets)
    catalog = Catalog(workflows_folder(settings.workflows_dir), store, clock)
    await catalog.load()

    wake, posted = Bell(), Bell()
    pool = Pool(clock, on_change=wake)
    recorder = Recorder(store, bus, clock, limits=RetryLimits(settings.max_attempts), on_queued=wake, on_message=posted)
    collector = _collector(settings, folder, store, blobs, media, clock, holding, targets)
    timings = await stack.enter_async_context(LearnedTimings(store))
    runner = Runner(
        store, blobs, bus, catalog, pool, recorder, collector, timings, clock, stall_seconds=settings.stall_seconds
    )
    dispatcher = Dispatcher(store, pool, catalog, recorder, runner, clock, poison_after=settings.poison_after)
    wake.add(dispatcher.wake)
    outside = await open_outside(settings, listeners, pool)
    screening = await open_screening(stack, settings, outside.tls, media, blobs, folder / "scratch")
    builder = _builder(settings, store, clock, folder, wake, runner, outside, holding)
    fetcher = outside.fetcher(stack, blobs)
    kept = Kept(store, blobs, holding, clock, targets)
    post = await open_post_office(stack, settings, folder, kept, bus, outside, fetcher, posted, _new_id)
    service = Service(
        settings=settings,
        store=store,
        blobs=blobs,
        media=media,
        screening=screening,
        fetcher=fetcher,
        catalog=catalog,
        pool=pool,
        recorder=recorder,
        bus=bus,
        timings=timings,
        clock=clock,
        cancel_at_work=dispatcher.cancel,
        standing=dispatcher.standing,
        is_at_work=dispatcher.is_at_work,
        make_upstream=builder.remember,
        webhooks=post.webhooks,
        deliveries=post.deliveries,
        asset_links=AssetLinks(await asyncio.to_thread(read_asset_key, folder)),
        new_id=_new_id,
    )
    keeper = Maintenance(store, blobs, recorder, service, timings, clock, job_retention_seconds=settings.job_retention)
    await dispatcher.prepare()  # before any upstream is connected: what is open there is not stale
    stack.push_async_callback(service.close)
    stack.push_async_callback(pool.close)
    if settings.storage_place is not None:
        await _run_beside(stack, StorageWatch(blobs, clock).run(), "storage")
    beside = (TemplateWatch(catalog, clock), Tidying(store, pool, bus, clock))
    await _set_going(stack, pool, builder, dispatcher, keeper, *beside, post)
    stack.callback(service.stopping.set)
    return service


def _collector(
    settings: Settings,
    folder: Path,
    store: SqlStore,
    blobs: Blobs,
    media: MediaWorkers,
    clock: Clock,
    holding: Keeper,
    targets: Mapping[str, Bucket],
) -> Collector:
    scratch, max_result_bytes = folder / "scratch", 4 * settings.max_video

    async def back(blob: Blob) -> None:
        await take_back(store, blobs, [blob])

    direct = {name: targets[name] for name in settings.delivery_direct}
    may_act = holding.verified
    arrivals = Arrivals(direct, media, scratch, max_result_bytes=max_result_bytes, may_act=may_act, take_back=back)
    return Collector(store, blobs, media, scratch, clock, arrivals, max_result_bytes=max_result_bytes, new_id=_new_id)


def _builder(
    settings: Settings,
    store: SqlStore,
    clock: Clock,
    folder: Path,
    wake: Bell,
    runner: Runner,
    outside: Outside,
    holding: Keeper,
) -> UpstreamBuilder:
    return UpstreamBuilder(
        settings,
        store,
        clock,
        folder,
        on_change=wake,
        live_prompts=runner.live_prompts,
        tls=outside.tls,
        may_act=holding.verified,
    )


async def _set_going(
    stack: AsyncExitStack,
    pool: Pool,
    builder: UpstreamBuilder,
    dispatcher: Dispatcher,
    housekeeper: Maintenance,
    templates: TemplateWatch,
    tidying: Tidying,
    post: PostOffice,
) -> None:
    for made in await builder.all():
        pool.add(made.upstream, draining=made.draining, embedded=made.embedded)
    await _run_beside(stack, housekeeper.run(), "maintenance")
    await _run_beside(stack, templates.run(), "templates")
    await _run_beside(stack, tidying.run(), "tidying")
    await _run_beside(stack, dispatcher.run(), "dispatcher", dispatcher.stop)
    await _run_beside(stack, post.courier.run(), "webhooks", post.courier.stop)
    await _run_beside(stack, post.carrier.run(), "deliveries", post.carrier.stop)


async def _open_files(
    stack: AsyncExitStack, settings: Settings, folder: Path, holding: Keeper, targets: Mapping[str, Bucket]
) -> tuple[Blobs, MediaWorkers]:
    blobs = await open_blobs(stack, settings, folder, holds=holding.holds, targets=targets)
    media = MediaWorkers(Limits(video_frames=settings.max_frames), samples=settings.safety_policy != "off")
    await media.start()
    stack.push_async_callback(media.close)
    return blobs, media


async def _open_store(settings: Settings, folder: Path, claim: Claim) -> SqlStore:
    try:
        return await SqlStore.open(
            folder / DATABASE,
            result_retention_seconds=settings.result_retention,
            asset_retention_seconds=settings.asset_retention,
            claim=claim,
        )
    except GatewayError as error:
        raise StartError(error.message) from error
    except DatabaseError as error:
        if is_busy(error):
            raise DatabaseBusyError from error
        raise StartError(
            f"The database in {folder} cannot be read (it may be damaged): restore a backup, or set GATEWAY_DATA_DIR."
        ) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StartError(
            f"The database in {folder} cannot be opened ({reason}): see to its rights, or set GATEWAY_DATA_DIR."
        ) from error


def local_url(host: str, port: int, *, is_encrypted: bool) -> str:
    """Where a listener is reached from its own machine: a wildcard answers on loopback too."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return base_url(name, port, is_encrypted=is_encrypted)


def base_url(host: str, port: int, *, is_encrypted: bool) -> str:
    """The URL of a listener by the address it is bound to."""
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if is_encrypted else 'http'}://{shown}:{port}"


def _new_id() -> str:
    return str(uuid7())


async def _run_beside(
    stack: AsyncExitStack,
    work: Coroutine[object, object, None],
    name: str,
    stop: Callable[[], Awaitable[None]] | None = None,
) -> None:
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_die_loudly)

    async def end() -> None:
        if stop is not None:
            await stop()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(end)


def _die_loudly(task: asyncio.Task[None]) -> None:
    """A loop of the engine that ends with an error takes the process with it: a gateway that accepts and never runs lies."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("engine_loop_failed", loop=task.get_name(), exc_info=error)
        os.kill(os.getpid(), signal.SIGTERM)


def _require_checkout(settings: Settings) -> None:
    if settings.comfyui_dir is not None:
        python = checkout.python_of(settings.comfyui_dir, settings.comfyui_python)
        for sentence in checkout.faults(settings.comfyui_dir, python):
            raise StartError(f"{sentence}.")


def _require_embedded(settings: Settings) -> None:
    if settings.embedded_worker_count and importlib.util.find_spec("cv2") is None:
        raise StartError(
            "The embedded CPU worker needs OpenCV: pip install 'comfygate[embedded]', "
            "or set GATEWAY_UPSTREAMS to your ComfyUI instances, or GATEWAY_COMFYUI_DIR to a checkout of it."
        )
