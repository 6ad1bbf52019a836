"""One ComfyUI over the network: does what the session (``comfy/protocol.py``) decides.

Nothing is judged here that the session could judge. This module owns the socket, the HTTP client and the tasks around
them: one that reads the socket, one that carries out the session's requests, one that tells it the time, one that looks
after capabilities and queue. ``run_forever`` owns them all.

Source: ComfyUI a125cd84, ``server.py``; routes of later versions are tried and done without.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

import structlog

from gateway.comfy import answers
from gateway.comfy.graph import allowed_values
from gateway.comfy.messages import Message, OutputFile
from gateway.comfy.protocol import DEAD_SECONDS, Session
from gateway.comfy.requests import (
    AskHistory,
    AskQueue,
    ClearStale,
    Dequeue,
    DoubtStaged,
    Reconnect,
    Request,
    SendProbe,
)
from gateway.interfaces import AskInUse, Blob, Capabilities, Clock, OnChange, UpstreamStatus
from gateway.lease import MayAct
from gateway.upstreams.cleaning import Cleaner
from gateway.upstreams.client import SUBMIT_SECONDS, Answer, UpstreamClient, parse_address
from gateway.upstreams.exchange import NotSentError
from gateway.upstreams.mailbox import Mailbox
from gateway.upstreams.socket import Socket
from gateway.upstreams.staging import Staging, folder_of
from gateway.upstreams.waiting import nap

log = structlog.get_logger(__name__)

#: How often the queue is looked at, for prompts of others and to notice that an idle upstream is gone.
WATCH_SECONDS = 5.0
#: How often it is told to let go of a prompt that nobody waits for.
STALE_SECONDS = 1.0
#: How often capabilities are asked for anew; models and nodes change when a person changes them.
CAPABILITIES_SECONDS = 120.0
#: Who asks anew is told what was said no longer ago than this.
RELEARN_SECONDS = 2.0
#: Waits between two tries to cancel; the last is repeated.
CANCEL_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
#: A node that ignores interrupts runs to its end; so long we go on trying.
CANCEL_LIMIT_SECONDS = 600.0

# VHS 4ee72c0 reads these from the editor's part of extra_data: no PNG with the whole prompt beside a video, and no
# copy without sound.
_EXTRA_PNGINFO = {"workflow": {"extra": {"VHS_MetadataImage": False, "VHS_KeepIntermediate": False}}}


# What /view says of a file that is not there, or of a name that can be none of its files.
_GONE = frozenset({400, 403, 404})


class RemoteUpstream:
    """One ComfyUI; see ``interfaces.Upstream`` for what each method promises.

    Args:
        name: unique in the pool.
        url: ``http(s)://[user:password@]host[:port][/path]``; credentials are sent as a header and shown nowhere.
        client_id: ours there, the same after every restart.
        clock: time.
        on_change: called when status or capabilities changed.
        live_prompts: prompts that somebody still wants; others of ours are removed after connecting. None: leave them.
        headers: sent with every request, e.g. a worker's token.
        verify: TLS context with the certificates to be trusted.
        may_act: awaited before each request that changes something there.
        token: that its node pack wants before it deletes anything; None: it is not asked.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        client_id: str,
        clock: Clock,
        on_change: OnChange = lambda: None,
        live_prompts: Callable[[], Collection[str]] | None = None,
        headers: Mapping[str, str] | None = None,
        verify: ssl.SSLContext | None = None,
        may_act: MayAct | None = None,
        token: str | None = None,
    ) -> None:
        self.name = name
        self.folder = folder_of(client_id)
        self._address = parse_address(url)
        self._client_id = client_id
        self._clock = clock
        self._on_change = on_change
        self._wanted = live_prompts
        sent = {**self._address.headers, **(headers or {})}
        self._client = UpstreamClient(self._address, sent, verify=verify or True, may_act=may_act)
        self._socket = Socket(self._address.socket_url, client_id, sent, clock=clock, verify=verify)
        self._staging = Staging(self._client, self.folder)
        self._cleaner = Cleaner(name, self._client, self._staging, self.folder, token)
        self._session = Session()
        self._mailboxes: dict[str, Mailbox] = {}
        self._requests: asyncio.Queue[Request] = asyncio.Queue()
        self._wake = asyncio.Event()
        self._sleeps_until: float | None = None
        self._look_again = asyncio.Event()
        self._capabilities: Capabilities | None = None
        self._capabilities_at: float | None = None
        #: Held while it is asked what it can do: megabytes, so never twice at once.
        self._learning = asyncio.Lock()
        self._stats: answers.SystemStats | None = None
        self._cancels_by_job = False
        self._reason = "not connected yet"
        #: When it was first asked in vain after it could be reached, monotonic seconds.
        self._unreachable_since: float | None = None
        self._socket_reason = ""
        self._foreign_prompts = 0
        #: Prompts of ours there that nobody waits for.
        self._stale: frozenset[str] = frozenset()
        #: Prompts that were let go of without an outcome, until the queue was seen without them. They may be there still,
        #: and whoever let go may not have said yet that nobody wants them.
        self._let_go: set[str] = set()
        #: Prompts that were given up just now and are being removed.
        self._dequeuing: set[str] = set()
        #: Held while a prompt is on its way there, and while one is being interrupted.
        self._no_interrupt = asyncio.Lock()
        self._tasks: asyncio.TaskGroup | None = None
        self._running: asyncio.Task[None] | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<RemoteUpstream {self.name!r} at {self._address.origin}>"

    # ------------------------------------------------------------------------------------------------------ its own life

    async def run_forever(self) -> None:
        """Keep the connection until ``close``; the pool owns the task."""
        if self._is_closed:
            return
        self._running = asyncio.current_task()
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(self._socket.keep_open(self), name=f"{self.name}: socket")
                tasks.create_task(self._carry_out(), name=f"{self.name}: requests")
                tasks.create_task(self._tell_time(), name=f"{self.name}: time")
                tasks.create_task(self._watch(), name=f"{self.name}: watch")
        except asyncio.CancelledError:
            if not self._is_closed:
                raise
        except Exception:
            # A fault of ours. It is run again, and then asks for all that was missed.
            self.closed("it was given up")
            self._set_reason("its connection was given up")
            raise
        finally:
            self._tasks = None
            self._running = None

    async def close(self) -> None:
        """Let go of the connection; prompts there run on."""
        self._is_closed = True
        running = self._running
        if running is not None and running is not asyncio.current_task():
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({running})
        await self._staging.close()
        await self._client.close()

    # --------------------------------------------------------------------------------------------------------- knowledge

    def status(self) -> UpstreamStatus:
        """How it is right now, from memory."""
        return UpstreamStatus(
            name=self.name,
            reachable=self._capabilities is not None and not self._reason,
            reason=self._reason,
            version=self._stats.version if self._stats else None,
            engine="preview" if self._stats and self._stats.is_embedded_worker else "comfyui",
            foreign_prompts=self._foreign_prompts,
            address=self._address.origin,
            stale_prompts=len(self._stale | self._dequeuing | self._let_go),
            unreachable_since=self._unreachable_since,
            cleaning=self._cleaner.state,
        )

    def capabilities(self) -> Capabilities | None:
        """What it can do; None until it has said so."""
        return self._capabilities

    async def relearn(self) -> None:
        """Ask anew what it can do, unless that was asked a moment ago; back when it has said so or did not answer."""
        with contextlib.suppress(ConnectionError):  # the next look at it says so
            await self._learn_if_older_than(RELEARN_SECONDS)

    def staged(self) -> AbstractSet[str]:
        """Hashes of blobs believed to lie there."""
        return self._staging.staged()

    def doubt(self) -> None:
        """Forget what was staged: it said that a file is not there."""
        self._staging.doubt()

    def _set_reason(self, reason: str, asked_at: float | None = None) -> None:
        """Why it is not reachable, "" when it is. Args: asked_at: when that was asked; None: nobody did."""
        if reason != self._reason:
            if not reason:
                self._unreachable_since = None
            elif not self._reason:
                self._unreachable_since = asked_at
            self._reason = reason
            log.info("upstream reachable" if not reason else "upstream unreachable", upstream=self.name, reason=reason)
            self._on_change()
            if not reason:
                self._socket.hurry()

    # -------------------------------------------------------------------------------------------------------------- work

    async def stage(self, blob: Blob, path: Path, suffix: str) -> str:
        """Upload a blob unless it is there; see ``Staging.stage``."""
        return await self._staging.stage(blob, path, suffix)

    async def run(
        self,
        prompt_id: str,
        graph: Mapping[str, object],
        *,
        job_id: str,
        attempt: int,
        secrets: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Message]:
        """Submit a prompt and follow it; the last message is its one Outcome."""
        body = {
            "prompt": graph,
            "prompt_id": prompt_id,
            "client_id": self._client_id,
            "extra_data": {
                **(secrets or {}),
                answers.JOB_KEY: job_id,
                answers.ATTEMPT_KEY: attempt,
                answers.FOLDER_KEY: self.folder,
                "extra_pnginfo": _EXTRA_PNGINFO,
            },
        }
        with self._follow(prompt_id) as mailbox:
            self._session.submitting(prompt_id, now=self._now())
            await self._submit(prompt_id, body)
            async for message in mailbox:
                yield message

    async def adopt(self, prompt_id: str) -> AsyncIterator[Message]:
        """Follow a prompt submitted before; the last message is its one Outcome."""
        with self._follow(prompt_id) as mailbox:
            self._session.adopt(prompt_id, now=self._now())
            self._pump()
            async for message in mailbox:
                yield message

    @contextlib.contextmanager
    def _follow(self, prompt_id: str) -> Iterator[Mailbox]:
        if prompt_id in self._mailboxes:
            raise RuntimeError("this prompt is followed already")
        mailbox = self._mailboxes[prompt_id] = Mailbox()
        self._let_go.discard(prompt_id)
        try:
            yield mailbox
        finally:
            del self._mailboxes[prompt_id]
            if prompt_id in self._session.live_prompts:
                self._let_go.add(prompt_id)
                self._look_again.set()
            self._session.forget(prompt_id)

    async def _submit(self, prompt_id: str, body: object) -> None:
        try:
            async with self._no_interrupt:
                answer = await self._client.post("/prompt", body, answer_seconds=SUBMIT_SECONDS)
        except ConnectionError as error:
            self._session.submission_failed(prompt_id, was_sent=not isinstance(error, NotSentError), now=self._now())
        else:
            self._session.submission_answered(prompt_id, answer.status, answer.body, now=self._now())
        self._pump()

    async def fetch(self, file: OutputFile) -> AsyncIterator[bytes]:
        """The bytes of an output file. Raises FileNotFoundError when it is gone, ConnectionError when it broke."""
        where = {"filename": file.filename, "subfolder": file.subfolder, "type": file.type}
        async with self._client.stream("/view", **where) as (status, pieces):
            if status in _GONE:
                raise FileNotFoundError("the upstream no longer has the file")
            if status != answers.OK:
                raise ConnectionError(f"the upstream did not give a file (HTTP {status})")
            async for piece in pieces:
                yield piece

    async def tidy(self, in_use: AskInUse) -> int:
        """Delete our files there that are not in use; see ``Cleaner``."""
        return await self._cleaner.tidy(in_use)

    async def cancel(self, prompt_id: str) -> None:
        """Dequeue and interrupt exactly this prompt, repeated until it left the server or the server is lost."""
        begun = self._now()
        answered_at = begun
        tries = 0
        pulled: set[str] = set()
        while self._now() - begun < CANCEL_LIMIT_SECONDS and self._now() - answered_at < DEAD_SECONDS:
            try:
                pulled |= await self._remove(prompt_id)
                queue = await self._ask_queue()
            except ConnectionError:
                queue = None
            if queue is not None:
                answered_at = self._now()
                self._note_dequeued({prompt_id, *pulled}, queue)
                if not queue.holds(prompt_id) and not self._session.is_submitting(prompt_id):
                    return
            await self._clock.sleep(CANCEL_SECONDS[min(tries, len(CANCEL_SECONDS) - 1)])
            tries += 1
        log.warning("upstream keeps a canceled prompt", upstream=self.name, prompt_id=prompt_id)

    async def _remove(self, prompt_id: str) -> frozenset[str]:
        """One try; never an interrupt that could hit another prompt.

        Returns:
            Prompts of ours that waited there and were pulled back with it, as far as they had not begun. ComfyUI looks
            which prompt runs and interrupts what runs then: a prompt that begins in between would be hit. So nothing of
            ours waits there while it is done, and nothing is on its way.
        """
        if self._cancels_by_job:
            answer = await self._client.post(f"/api/jobs/{prompt_id}/cancel", {})
            if answer.status == answers.OK:
                return frozenset()
            self._cancels_by_job = False  # it lists jobs but cannot cancel them: 0.6 to 0.25
        async with self._no_interrupt:
            pulled = self._session.waiting_prompts - {prompt_id}
            # In this order: a prompt that starts in between is caught by the interrupt.
            await self._client.post("/queue", {"delete": [prompt_id, *sorted(pulled)]})
            await self._client.post("/interrupt", {"prompt_id": prompt_id})
        return pulled

    def _note_dequeued(self, prompt_ids: Collection[str], queue: answers.QueueSnapshot) -> None:
        for prompt_id in prompt_ids:
            if not queue.holds(prompt_id):
                self._session.dequeued(prompt_id)
        self._pump()

    async def clear_stale(self) -> None:
        """Remove prompts of ours that nobody wants any more; until they have left, it counts as busy."""
        queue = await self._ask_queue()
        if queue is None or not self._stale:
            return
        pulled: set[str] = set()
        for item in (*queue.pending, *queue.running):  # in this order: what waits must not begin in between
            if item.prompt_id in self._stale:
                pulled |= await self._remove(item.prompt_id)
        if (queue := await self._ask_queue()) is not None:
            self._note_dequeued(pulled, queue)

    # --------------------------------------------------------------------------------------------- what the socket says

    async def opened(self) -> None:
        """The socket is open."""
        self._socket_reason = ""
        self._session.connected(now=self._now())
        self._pump()
        self._spawn(self._settle_in(), "settle in")

    def closed(self, reason: str) -> None:
        """It is closed, or could not be opened."""
        if reason != self._socket_reason:
            self._socket_reason = reason
            log.info("upstream socket closed", upstream=self.name, reason=reason)
        self._session.disconnected(now=self._now())
        self._pump()
        self._look_again.set()

    def heard(self, frame: str | bytes) -> None:
        """A frame came."""
        if not isinstance(frame, str):
            self._session.binary(frame, now=self._now())
        elif self._session.text(frame, now=self._now()):
            self._deliver()
            return
        self._pump()

    async def _settle_in(self) -> None:
        """What each new connection asks for."""
        try:
            # The subscription dies with the socket. Its lines are the only place where a swap says that it found no face.
            await self._client.patch("/internal/logs/subscribe", {"clientId": self._client_id, "enabled": True})
            await self.clear_stale()
        except ConnectionError as error:
            log.info("upstream did not answer after connecting", upstream=self.name, reason=str(error))
        self._capabilities_at = None
        self._look_again.set()

    # ---------------------------------------------------------------------------------------------- what the session wants

    def _deliver(self) -> None:
        for message in self._session.take_messages():
            mailbox = self._mailboxes.get(message.prompt_id or "")
            if mailbox is not None:
                mailbox.put(message)

    def _pump(self) -> None:
        self._deliver()
        for request in self._session.take_requests():
            if isinstance(request, DoubtStaged):
                self.doubt()  # at once: whoever reads the Outcome beside it may stage again
            else:
                if isinstance(request, Dequeue):
                    self._dequeuing.add(request.prompt_id)  # at once: whoever reads the Outcome may send the next
                self._requests.put_nowait(request)  # at most one question per prompt is open, so this is bounded
        deadline = self._session.next_deadline()
        if deadline is not None and (self._sleeps_until is None or deadline < self._sleeps_until):
            self._wake.set()  # only then: frames come by the hundred a second

    async def _carry_out(self) -> None:
        while True:
            request = await self._requests.get()
            match request:
                case AskHistory():
                    self._spawn(self._answer_history(request), "history")
                case AskQueue():
                    self._spawn(self._answer_queue(request), "queue")
                case SendProbe():
                    await self._socket.send_probe()
                case Reconnect():
                    log.info("upstream reconnects", upstream=self.name, reason=request.reason)
                    self._spawn(self._socket.close(), "close")
                case Dequeue():
                    self._spawn(self._dequeue(request.prompt_id), "dequeue")
                case ClearStale():
                    self._spawn(self._clear_stale_quietly(), "clear stale")
                case DoubtStaged():
                    pass  # was done at once

    def _spawn(self, work: Coroutine[object, object, None], what: str) -> None:
        """Do it beside the rest, in the task group of ``run_forever``."""
        if self._tasks is None:
            work.close()
            return
        self._tasks.create_task(work, name=f"{self.name}: {what}")

    async def _answer_history(self, request: AskHistory) -> None:
        answer = await self._answer_to(request, f"/history/{request.prompt_id}")
        if answer is not None:
            self._session.history_answered(request.prompt_id, answer.status, answer.body, now=self._now())
            self._pump()

    async def _answer_queue(self, request: AskQueue) -> None:
        answer = await self._answer_to(request, "/queue")
        if answer is not None:
            self._session.queue_answered(answer.status, answer.body, now=self._now())
            self._count_foreign(answers.parse_queue(answer.status, answer.body))
            self._pump()

    async def _answer_to(self, request: AskHistory | AskQueue, path: str) -> Answer | None:
        """None when there was none; the session was told so, also when we are cut off: it asks one question at a time."""
        answer = None
        try:
            with contextlib.suppress(ConnectionError):
                answer = await self._client.get(path)
        finally:
            if answer is None:
                self._session.ask_failed(request, now=self._now())
                self._pump()
        return answer

    async def _dequeue(self, prompt_id: str) -> None:
        try:
            await self.cancel(prompt_id)
        finally:
            self._dequeuing.discard(prompt_id)
            self._on_change()

    async def _clear_stale_quietly(self) -> None:
        with contextlib.suppress(ConnectionError):  # tried again with the next look at the queue
            await self.clear_stale()

    async def _tell_time(self) -> None:
        while True:
            self._wake.clear()
            self._sleeps_until = self._session.next_deadline()
            left = None if self._sleeps_until is None else self._sleeps_until - self._now()
            await nap(self._clock, self._wake, left)
            self._session.tick(now=self._now())
            self._pump()

    # -------------------------------------------------------------------------------------------------------- looking on

    async def _watch(self) -> None:
        while True:
            self._look_again.clear()
            begun = self._now()
            try:
                await self._learn_if_older_than(CAPABILITIES_SECONDS)
                queue = await self._ask_queue()
                self._set_reason("" if queue is not None else "it does not answer as a ComfyUI does", begun)
            except ConnectionError as error:
                self._session.http_failed(now=self._now())
                self._pump()
                self._set_reason(f"it does not answer ({error})", begun)
            if self._stale:
                await self._clear_stale_quietly()
            await nap(self._clock, self._look_again, STALE_SECONDS if self._stale | self._let_go else WATCH_SECONDS)

    async def _learn_if_older_than(self, seconds: float) -> None:
        async with self._learning:
            if self._capabilities_at is None or self._now() - self._capabilities_at >= seconds:
                await self._learn()

    async def _learn(self) -> None:
        """Ask what it is and what it can do."""
        stats = await self._ask("/system_stats")
        self._stats = answers.parse_system_stats(stats.status, stats.body)
        if self._stats is None:
            raise ConnectionError(f"HTTP {stats.status}" if stats.status != answers.OK else "not a ComfyUI")
        features = await self._ask("/features")
        jobs = await self._ask("/api/jobs", limit=1)
        info = await self._ask("/object_info")
        # Megabytes on large installs, so not on the loop.
        known = await asyncio.to_thread(_capabilities, features, info)
        if known is None:
            raise ConnectionError("no list of nodes")
        self._cancels_by_job = answers.parse_jobs_page(jobs.status, jobs.body)
        self._staging.max_upload_bytes = known.max_upload_bytes
        has_changed = self._capabilities is None or self._capabilities != known
        self._capabilities = known
        self._capabilities_at = self._now()
        if has_changed:
            self._on_change()

    async def _ask(self, path: str, **params: int) -> Answer:
        answer = await self._client.get(path, **params)
        self._session.http_answered()
        return answer

    async def _ask_queue(self) -> answers.QueueSnapshot | None:
        answer = await self._ask("/queue")
        queue = answers.parse_queue(answer.status, answer.body)
        self._count_foreign(queue)
        return queue

    def _count_foreign(self, queue: answers.QueueSnapshot | None) -> None:
        if queue is None:
            return
        items = (*queue.running, *queue.pending)
        foreign = sum(not self._is_ours(item) for item in items)
        stale = frozenset(item.prompt_id for item in items if self._is_stale(item))
        if new := stale - self._stale:
            log.info("upstream_has_stale_prompts", upstream=self.name, prompt_ids=sorted(new))
            self._look_again.set()
        let_go = self._let_go & {item.prompt_id for item in items}
        has_changed = (foreign, stale, let_go) != (self._foreign_prompts, self._stale, self._let_go)
        self._foreign_prompts, self._stale, self._let_go = foreign, stale, let_go
        if has_changed:
            self._on_change()

    def _is_stale(self, item: answers.QueueItem) -> bool:
        if self._wanted is None or item.gateway_job is None or not self._is_ours(item):
            return False
        return item.prompt_id not in self._session.live_prompts and item.prompt_id not in self._wanted()

    def _is_ours(self, item: answers.QueueItem) -> bool:
        return item.client_id == self._client_id or item.prompt_id in self._session.live_prompts

    def _now(self) -> float:
        return self._clock.monotonic()


def _capabilities(features: Answer, info: Answer) -> Capabilities | None:
    classes = answers.parse_object_info(info.status, info.body)
    if not classes:
        return None
    return Capabilities(
        classes={name: allowed_values(entry) for name, entry in classes.items()},
        max_upload_bytes=answers.parse_features(features.status, features.body),
        object_info=classes,
    )
