"""One simulated ComfyUI: queue, history, files, sockets, and the traps of the real one.

Rules are those of ComfyUI a125cd84: everything but files is in memory and gone with the process; deleting and
interrupting always answer 200; an interrupt may come too late, so that the prompt ends as success; when the handler of
an old socket ends, the *new* one under the same client id is forgotten; a reply may be lost after the prompt was queued.
Where it is unrealistic: it runs nothing, and what a prompt does is drawn when it starts.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import orjson

from gateway.comfy.answers import ATTEMPT_KEY, JOB_KEY
from gateway.upstreams.client import Answer

if TYPE_CHECKING:
    from tests.chaos.simulation.wire import Connection
    from tests.chaos.simulation.world import World

#: A node that runs heeds an interrupt within this time.
LONGEST_HEED_SECONDS = 2.0

#: How often the running prompt ends between the look and the interrupt, which then hits the next.
HITS_NEXT = 0.3


def _json(value: object, status: int = 200) -> Answer:
    return Answer(status, orjson.dumps(value))


OK = _json({})
NOTHING = Answer(404, b"404: Not Found")
DESCRIPTIONS = {
    "/system_stats": _json({"system": {"comfyui_version": "0.3.64"}}),
    "/features": _json({"max_upload_size": 100_000_000}),
}


@dataclass(slots=True)
class Prompt:
    """A prompt as the server holds it."""

    id: str
    number: float
    graph: Mapping[str, Any]
    extra: Mapping[str, Any]
    #: How it will go wrong, or "".
    habit: str = ""
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    @property
    def job_id(self) -> str | None:
        """Whose it is; None for a prompt of somebody else."""
        return self.extra.get(JOB_KEY)

    @property
    def attempt(self) -> int:
        return int(self.extra.get(ATTEMPT_KEY, 0))

    @property
    def is_workflow(self) -> bool:
        """Whether it is a client's own graph."""
        return any(node["class_type"] == "PreviewImage" for node in self.graph.values())

    @property
    def outputs(self) -> dict[str, Any]:
        """What its nodes tell that they have made."""
        makers = [node for node, what in self.graph.items() if what["class_type"] in {"SaveImage", "PreviewImage"}]
        names = {node: f"{self.id}-{node}.png" if self.is_workflow else f"{self.id}.png" for node in makers}
        folder = f"gateway/{self.id}"
        return {
            node: {"images": [{"filename": name, "subfolder": folder, "type": "output"}]}
            for node, name in names.items()
        }

    def row(self) -> list[Any]:
        return [self.number, self.id, {}, self.extra, []]


class SimulatedComfyUI:
    """See the module."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.url = f"http://{name}:8188"
        self.cancels_by_job = world.random.random() < 0.3
        self.latency_seconds = world.random.choice((0.01, 0.02, 0.02, 0.3))
        self.is_up = True
        #: Counts starts: what was under way with an earlier one is nobody's.
        self.generation = 0
        self.partitions = 0
        self.http_blocked_until = 0.0
        self.frames_blocked_until = 0.0
        self.weather_until = 0.0
        #: Until then somebody waits for the answer to a POST /prompt that will not come.
        self.posts_open_until = 0.0
        #: (when, what) of everything that was done to it: what a lost attempt may be blamed on.
        self.faults: list[tuple[float, str]] = []
        #: When it last began or ceased to be so that a prompt there could not be asked after, or would never end.
        self.unreachable_at = -math.inf
        self.killed_at: list[float] = []
        #: What lay there when its disk was emptied: missing whenever it is asked for next.
        self.wiped: set[str] = set()
        #: What lies in buffers while the network is cut.
        self.held_back: list[Callable[[], None]] = []
        self.inputs: set[str] = set()
        self.outputs: dict[str, bytes] = {}
        #: Prompts of other people that ended well, or went with the server.
        self.foreign_ends: list[str] = []
        self.foreign_sent = 0
        #: All that it ever queued.
        self.known: dict[str, Prompt] = {}
        self._boot()

    def _boot(self) -> None:
        self.pending: list[Prompt] = []
        self.running: Prompt | None = None
        self.history: dict[str, dict[str, Any]] = {}
        self.sockets: dict[str, Connection] = {}
        self.connections: list[Connection] = []
        self._numbers = count()
        self.changed_at = self.world.loop.time()

    # ------------------------------------------------------------------------------------------------------ its weather

    def blame(self, what: str, *, is_hard: bool = False) -> None:
        """Something was done to it; hard: a prompt there could not be asked after, or would never end."""
        self.faults.append((self.world.loop.time(), what))
        if is_hard:
            self.unreachable_at = self.world.loop.time()
        self.world.trace(self.name, what)

    def was_at_fault_since(self, moment: float) -> bool:
        """Whether anything was wrong with it at or after a moment."""
        now = self.world.loop.time()
        lasting = self.partitions or not self.is_up or max(self.http_blocked_until, self.frames_blocked_until) > now
        return bool(lasting) or any(at >= moment for at, _ in self.faults)

    def was_unreachable_since(self, moment: float) -> bool:
        """Whether, at or after a moment, one could not find out or do anything about a prompt there."""
        now = self.world.loop.time()
        return bool(self.partitions) or not self.is_up or self.http_blocked_until > now or self.unreachable_at >= moment

    @property
    def is_reachable(self) -> bool:
        return self.is_up and not self.partitions

    def kill(self) -> None:
        if not self.is_up:
            return
        self.blame("killed", is_hard=True)
        self.killed_at.append(self.world.loop.time())
        self.is_up = False
        self.generation += 1
        for prompt in self.held():
            for timer in prompt.timers:
                timer.cancel()
            if prompt.job_id is None:
                self.foreign_ends.append(prompt.id)
        connections = self.connections
        self._boot()
        for connection in connections:
            connection.break_off("the server died", notice=False)

    def start(self) -> None:
        if not self.is_up:
            self.blame("started", is_hard=True)
            self.is_up = True
            self.changed_at = self.world.loop.time()

    def held(self) -> list[Prompt]:
        """What waits or runs."""
        return [*([self.running] if self.running else []), *self.pending]

    def find(self, prompt_id: str) -> Prompt | None:
        return next((prompt for prompt in self.held() if prompt.id == prompt_id), None)

    # ------------------------------------------------------------------------------------------------------------ HTTP

    def answer(self, method: str, path: str, params: Mapping[str, Any], body: bytes) -> Answer:
        """What it answers, and does."""
        match path.split("/")[1:]:
            case ["upload", "image"]:
                return self._upload(params["subfolder"], params["name"])
            case ["queue"] if method == "GET":
                running = [self.running.row()] if self.running else []
                return _json({"queue_running": running, "queue_pending": [prompt.row() for prompt in self.pending]})
            case ["history", prompt_id]:
                return _json({prompt_id: self.history[prompt_id]} if prompt_id in self.history else {})
            case ["view"] if params["filename"] in self.outputs:
                return Answer(200, self.outputs[params["filename"]])
            case _ if method == "POST":
                return self._act(path, orjson.loads(body))
            case _:
                return self._describe(path)

    def _act(self, path: str, data: Mapping[str, Any]) -> Answer:
        match path.split("/")[1:]:
            case ["prompt"]:
                return self._post_prompt(data)
            case ["queue"]:
                for prompt_id in data["delete"]:
                    self._delete(prompt_id, beside=data["delete"][0])
                return OK
            case ["interrupt"]:
                self._interrupt(data.get("prompt_id"))
                return OK
            case ["api", "jobs", prompt_id, "cancel"] if self.cancels_by_job:
                self._delete(prompt_id, beside=prompt_id)
                self._interrupt(prompt_id, is_atomic=True)
                return OK
            case _:
                return NOTHING

    def _describe(self, path: str) -> Answer:
        if path == "/api/jobs" and self.cancels_by_job:
            return _json({"jobs": []})
        return {"/object_info": self.world.object_info, **DESCRIPTIONS}.get(path, NOTHING)

    def _upload(self, subfolder: str, name: str) -> Answer:
        self.inputs.add(f"{subfolder}/{name}")
        return _json({"name": name, "subfolder": subfolder, "type": "input"})

    def _post_prompt(self, data: Mapping[str, Any]) -> Answer:
        prompt = Prompt(data["prompt_id"], next(self._numbers), data["prompt"], {**data["extra_data"]})
        prompt.extra = {**prompt.extra, "client_id": data["client_id"]}
        files = [node["inputs"]["image"] for node in prompt.graph.values() if node["class_type"] == "LoadImage"]
        if missing := [name for name in files if name not in self.inputs]:
            self.world.trace(self.name, f"refuses {prompt.id[:8]}: {missing[0][:16]} is not there")
            if missing[0] in self.wiped:
                self.blame("has lost a file")
            return _json(_refusal(f"image - Invalid image file: {missing[0]}"), 400)
        self.world.checker.prompt_arrived(self, prompt)
        self._queue(prompt)
        answer: dict[str, Any] = {"prompt_id": prompt.id, "number": prompt.number, "node_errors": {}}
        if self._has_weather(0.3):
            self.blame("accepts a part")
            answer["node_errors"] = _refusal("scale - Value 0 smaller than min", "value_smaller_than_min")[
                "node_errors"
            ]
            prompt.habit = "partly"
        return _json(answer)

    def _has_weather(self, chance: float) -> bool:
        return self.world.loop.time() < self.weather_until and self.world.random.random() < chance

    def _queue(self, prompt: Prompt) -> None:
        self.world.trace(self.name, f"queued {prompt.id[:8]} of {prompt.job_id} attempt {prompt.attempt}")
        self.pending.append(prompt)
        self.known[prompt.id] = prompt
        self._tell_status()
        self.world.loop.call_soon(self._run_next, self.generation)

    def add_foreign(self) -> None:
        """Somebody else queues a prompt in the browser."""
        if self.is_up:
            self.foreign_sent += 1
            prompt_id = f"foreign-{self.foreign_sent}-{self.generation}"
            self.blame(f"gets {prompt_id}")
            self._queue(Prompt(prompt_id, next(self._numbers), {}, {"client_id": "somebody"}))

    def interrupt_by_others(self) -> None:
        """Somebody presses Cancel in the browser: whatever runs is interrupted."""
        if self.is_up and self.running is not None and self.running.job_id is not None:
            self.blame(f"somebody interrupts {self.running.id[:8]}")
            self._end_as_interrupted(self.running)

    def delete_by_others(self) -> None:
        """Somebody clears the queue."""
        for prompt in [prompt for prompt in self.pending if prompt.job_id is not None]:
            self.blame(f"somebody deletes {prompt.id[:8]}")
            self.pending.remove(prompt)
        self._tell_status()

    def _delete(self, prompt_id: str, *, beside: str) -> None:
        """Take it out of the queue; ``beside``: the prompt that the request was made for."""
        prompt = next((prompt for prompt in self.pending if prompt.id == prompt_id), None)
        if prompt is not None:
            self.world.checker.prompt_removed(self, prompt, beside=self.known.get(beside, prompt))
            self.pending.remove(prompt)
            self.changed_at = self.world.loop.time()
            self.world.trace(self.name, f"deleted {prompt_id[:8]}")
        self._tell_status()

    def _interrupt(self, prompt_id: str | None, *, is_atomic: bool = False) -> None:
        running = self.running
        if prompt_id is None:
            self.world.checker.fail("no blind interrupt", f"{self.name} was interrupted whatever it ran")
        if running is None or running.id != prompt_id:
            return
        self.world.checker.prompt_removed(self, running, beside=running)
        self.world.trace(self.name, f"interrupted {running.id[:8]}, which is {running.habit or 'well'}")
        if running.habit in {"deaf", "late_success"}:
            if running.habit == "deaf":
                self.blame(f"{running.id[:8]} is deaf still", is_hard=True)
            return
        has_next = bool(self.pending) and self.pending[0].job_id is not None
        if has_next and not is_atomic and self.world.random.random() < HITS_NEXT:
            # It looks which one runs, and interrupts what runs then.
            self._end_as_success(running)
            self._end_as_interrupted(self.running or running)
            return
        heed = self.world.random.uniform(0.0, LONGEST_HEED_SECONDS) if running.habit != "hung" else 0.1
        running.timers.append(self.world.loop.call_later(heed, self._end_as_interrupted, running))

    # ------------------------------------------------------------------------------------------------------------- work

    def _run_next(self, generation: int) -> None:
        if self.running is not None or not self.pending or generation != self.generation:
            return
        prompt = self.running = self.pending.pop(0)
        random, plan = self.world.random, self.world.plan
        self.changed_at = self.world.loop.time()
        self._tell_status()
        if prompt.job_id is not None and not prompt.habit:
            prompt.habit = "poisonous" if self.world.is_poisonous(prompt.job_id) else self.world.draw_habit()
        seconds = random.uniform(0.02, plan.longest_work)
        self.world.trace(self.name, f"starts {prompt.id[:8]} {prompt.habit} for {seconds:.1f} s")
        self._tell(prompt, "execution_start", prompt_id=prompt.id)
        self._tell(prompt, "execution_cached", nodes=[], prompt_id=prompt.id)
        if prompt.habit in {"hung", "deaf"}:
            self.blame(f"{prompt.id[:8]} is {prompt.habit}", is_hard=True)
            return
        if prompt.habit == "quiet":
            seconds = random.uniform(0.3, 0.9) * self.world.stall_seconds
        else:
            self._plan_progress(prompt, seconds)
        prompt.timers.append(self.world.loop.call_later(seconds, self._end_of_work, prompt))

    def _plan_progress(self, prompt: Prompt, seconds: float) -> None:
        nodes = list(prompt.graph)
        for place, node in enumerate(nodes):
            at = seconds * place / len(nodes)
            prompt.timers.append(self.world.loop.call_later(at, self._tell_node, prompt, node))
            if prompt.is_workflow and node in prompt.outputs:
                done = seconds * (place + 0.9) / len(nodes)
                prompt.timers.append(self.world.loop.call_later(done, self._tell_output, prompt, node))

    def _tell_node(self, prompt: Prompt, node: str) -> None:
        self._tell(prompt, "executing", node=node, display_node=node, prompt_id=prompt.id)
        self._tell(prompt, "progress", node=node, value=1, max=2, prompt_id=prompt.id)

    def _tell_output(self, prompt: Prompt, node: str) -> None:
        if prompt.habit != "file_missing":
            self._make(prompt, node)
        self._tell(prompt, "executed", node=node, output=prompt.outputs[node], prompt_id=prompt.id)

    def _make(self, prompt: Prompt, node: str) -> None:
        """The file that a node of a client's own graph makes."""
        self.outputs[prompt.outputs[node]["images"][0]["filename"]] = f"file:{prompt.id}:{node}".encode()

    def _end_of_work(self, prompt: Prompt) -> None:
        match prompt.habit:
            case "error":
                self._end_as_error(prompt, "ValueError", "a tensor has the wrong shape")
            case "oom":
                self.blame(f"out of memory on {prompt.id[:8]}")
                self._end_as_error(prompt, "torch.OutOfMemoryError", "Allocation on device")
            case "poisonous":
                self._die_of(prompt)
            case _:
                self._end_as_success(prompt)

    def _die_of(self, prompt: Prompt) -> None:
        self.world.checker.died_of(self, prompt)
        self.kill()
        self.world.loop.call_later(self.world.random.choice((2.0, 15.0, 40.0)) * self.world.random.random(), self.start)

    def strand(self, prompt: Prompt) -> None:
        """From now on it runs until somebody stops it."""
        self.blame(f"{prompt.id[:8]} is stranded", is_hard=True)
        for timer in prompt.timers:
            timer.cancel()
        prompt.habit = "hung"

    def _end_as_success(self, prompt: Prompt) -> None:
        if prompt.habit == "file_missing":
            self.blame(f"the file of {prompt.id[:8]} is missing")
        elif prompt.is_workflow:
            for node in prompt.outputs:
                self._make(prompt, node)
        elif prompt.job_id is not None:
            self.outputs[f"{prompt.id}.png"] = f"image:{prompt.id}".encode()
        self._tell(prompt, "execution_success", prompt_id=prompt.id)
        self._end(prompt, "success", [["execution_success", {"prompt_id": prompt.id}]], prompt.outputs)

    def _end_as_error(self, prompt: Prompt, kind: str, message: str) -> None:
        told = {"node_id": "4", "node_type": "ReActorFaceSwap", "exception_type": kind, "exception_message": message}
        self._tell(prompt, "execution_error", prompt_id=prompt.id, **told)
        self._end(prompt, "error", [["execution_error", told]], {})

    def _end_as_interrupted(self, prompt: Prompt) -> None:
        if self.running is prompt:
            self._tell(prompt, "execution_interrupted", prompt_id=prompt.id, node_id="4")
            self._end(prompt, "error", [["execution_interrupted", {"prompt_id": prompt.id}]], {})

    def _end(self, prompt: Prompt, how: str, messages: list[Any], outputs: dict[str, Any]) -> None:
        for timer in prompt.timers:
            timer.cancel()
        self.running = None
        self.changed_at = self.world.loop.time()
        if prompt.job_id is None:
            self.foreign_ends.append(prompt.id)
        status = {"status_str": how, "completed": how == "success", "messages": messages}
        self.history[prompt.id] = {"prompt": prompt.row(), "outputs": outputs, "status": status}
        self.world.trace(self.name, f"ended {prompt.id[:8]} as {how}")
        self._tell_status()
        self._tell(prompt, "executing", node=None, prompt_id=prompt.id)
        self._run_next(self.generation)

    # ---------------------------------------------------------------------------------------------------------- sockets

    def _tell_status(self) -> None:
        frame = _frame("status", status={"exec_info": {"queue_remaining": len(self.held())}})
        for connection in list(self.sockets.values()):
            connection.deliver(frame)

    def _tell(self, prompt: Prompt, kind: str, **data: object) -> None:
        connection = self.sockets.get(prompt.extra["client_id"])
        if connection is not None:
            connection.deliver(_frame(kind, **data))

    def connected(self, client_id: str, connection: Connection) -> None:
        """A socket was opened: it takes its client id over."""
        self.sockets[client_id] = connection
        self.connections.append(connection)
        connection.deliver(_frame("status", status={"exec_info": {"queue_remaining": len(self.held())}}, sid=client_id))
        if self.running is not None and self.running.extra["client_id"] == client_id:
            connection.deliver(_frame("executing", node="4"))

    def handler_ended(self, client_id: str, connection: Connection) -> None:
        """The wart: it forgets whatever socket has this client id now."""
        if connection in self.connections:
            self.connections.remove(connection)
            self.sockets.pop(client_id, None)

    def heard(self, client_id: str, connection: Connection) -> None:
        """``feature_flags`` came: the answer goes to whoever has the client id."""
        if connection in self.connections and client_id in self.sockets:
            self.sockets[client_id].deliver(_frame("feature_flags", max_upload_size=100_000_000))


def _frame(kind: str, **data: object) -> str:
    return orjson.dumps({"type": kind, "data": data}).decode()


def _refusal(details: str, kind: str = "custom_validation_failed") -> dict[str, Any]:
    fault = {"type": kind, "message": "Custom validation failed for node", "details": details}
    errors = {"1": {"errors": [fault], "class_type": "LoadImage", "dependent_outputs": ["5"]}}
    outer = {"type": "prompt_outputs_failed_validation", "message": "no outputs", "details": "", "extra_info": {}}
    return {"error": outer, "node_errors": errors}
