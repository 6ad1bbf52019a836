"""Makes the pool's upstreams: those of the settings, those added while running, the gateway's own processes.

The pool knows them as ``interfaces.Upstream``; what is remembered of them (client id, draining, removal) is the store's.
"""

from __future__ import annotations

import re
import shlex
import ssl
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from gateway.data_dir import StartError
from gateway.errors import InvalidInputError
from gateway.interfaces import Clock, Store, Upstream, UpstreamRow
from gateway.lease import MayAct
from gateway.naming import upstream_name
from gateway.settings import Settings
from gateway.upstreams import checkout
from gateway.upstreams.client import parse_address
from gateway.upstreams.managed import ManagedUpstream, WorkerCommand
from gateway.upstreams.remote import RemoteUpstream
from gateway.upstreams.staging import folder_of

#: What names may be shown, logged and put in a path; those of our own workers are taken.
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
WORKER_PREFIX = "embedded-"
MIB = 1024**2


@dataclass(frozen=True, slots=True)
class Made:
    """An upstream for the pool."""

    upstream: Upstream
    draining: bool
    embedded: bool = False


class UpstreamBuilder:
    """Makes the pool's upstreams: those of the settings, those added while running, the gateway's own processes."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        clock: Clock,
        folder: Path,
        *,
        on_change: Callable[[], None],
        live_prompts: Callable[[], Collection[str]],
        tls: ssl.SSLContext | None = None,
        may_act: MayAct | None = None,
    ) -> None:
        self._may_act = may_act
        self._settings = settings
        self._store = store
        self._clock = clock
        self._folder = folder
        self._on_change = on_change
        self._live_prompts = live_prompts
        self._tls = tls

    async def all(self) -> list[Made]:
        """All upstreams of this start, each name once. Raises StartError."""
        now = self._clock.now()
        made: dict[str, Made] = {}
        for url in self._settings.upstreams:
            try:
                name = upstream_name(url)
                if name in made:
                    raise StartError(f"GATEWAY_UPSTREAMS names {name} twice: name each instance once.")
                row = await self._store.upstream(name, now=now)
                if not row.removed:
                    # One that was removed and added anew has a URL of its own: what was done last holds.
                    made[name] = Made(self._remote(name, row.url or url, row.client_id), draining=row.draining)
            except ValueError as error:
                raise StartError(f"GATEWAY_UPSTREAMS: {error}.") from error
        for row in await self._store.upstreams():
            if row.url is not None and not row.removed and row.name not in made:
                made[row.name] = Made(self._remote(row.name, row.url, row.client_id), draining=row.draining)
        for name in self._own_names:
            row = await self._store.upstream(name, now=now)
            if not row.removed:
                is_embedded = name.startswith(WORKER_PREFIX)
                made[name] = Made(self._own(name, row.client_id), draining=row.draining, embedded=is_embedded)
        return list(made.values())

    @property
    def _own_names(self) -> tuple[str, ...]:
        workers = tuple(f"{WORKER_PREFIX}{number + 1}" for number in range(self._settings.embedded_worker_count))
        return (*workers, *checkout.names(self._settings.comfyui_devices))

    async def remember(self, url: str, name: str | None, check_name: Callable[[str], None]) -> Upstream:
        """An upstream added while running; see ``UpstreamFactory``."""
        if url in self._own_names and name in {None, url}:
            check_name(url)
            return self._own(url, (await self._restore(url)).client_id)
        try:
            parse_address(url)
            wanted = name or upstream_name(url)
        except ValueError as error:
            raise InvalidInputError(f"{error}, for example http://10.0.0.5:8188", field="url") from error
        if not PLAIN_NAME.fullmatch(wanted) or wanted.startswith((WORKER_PREFIX, checkout.PREFIX)):
            raise InvalidInputError(
                "a name has 1 to 64 letters, digits, dots, dashes or underscores, and does not begin with "
                f"{WORKER_PREFIX} or {checkout.PREFIX}",
                field="name",
            )
        check_name(wanted)
        row = await self._restore(wanted, url)
        return self._remote(row.name, url, row.client_id)

    async def _restore(self, name: str, url: str | None = None) -> UpstreamRow:
        """Its row, as of one that is new: what was drained before it was removed works again."""
        row = await self._store.upstream(name, url=url, now=self._clock.now())
        if row.removed or row.draining:
            await self._store.set_upstream(name, removed=False, draining=False, now=self._clock.now())
        return row

    def _remote(self, name: str, url: str, client_id: str) -> RemoteUpstream:
        return RemoteUpstream(
            name,
            url,
            client_id=client_id,
            clock=self._clock,
            on_change=self._on_change,
            live_prompts=self._live_prompts,
            verify=self._tls,
            may_act=self._may_act,
            token=self._settings.upstream_token.get_secret_value() if self._settings.upstream_token else None,
        )

    def _own(self, name: str, client_id: str) -> Upstream:
        def make_remote(url: str, token: str) -> Upstream:
            headers = {"Authorization": f"Bearer {token}"}
            return RemoteUpstream(
                name,
                url,
                client_id=client_id,
                clock=self._clock,
                on_change=self._on_change,
                headers=headers,
                may_act=self._may_act,
                token=token,
            )

        folder, command = self._program(name)
        return ManagedUpstream(
            name,
            folder,
            make_remote,
            clock=self._clock,
            on_change=self._on_change,
            command=command,
            folder=folder_of(client_id),
        )

    def _program(self, name: str) -> tuple[Path, WorkerCommand]:
        """Where a process of our own keeps its files, and how it is started."""
        settings, device = self._settings, checkout.names(self._settings.comfyui_devices).get(name)
        if device is None or settings.comfyui_dir is None:
            return self._folder / "embedded" / name, WorkerCommand()
        folder = self._folder / checkout.FOLDER / name
        return folder, checkout.launcher(
            settings.comfyui_dir,
            checkout.python_of(settings.comfyui_dir, settings.comfyui_python),
            device,
            folder,
            max_upload_mib=-(-int(settings.max_upload) // MIB),
            arguments=shlex.split(settings.comfyui_args or ""),
        )
