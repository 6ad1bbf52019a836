"""Random lives of jobs, upstreams and processes; after each step every answer is held against the model's."""

from __future__ import annotations

import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from structlog.testing import capture_logs

from gateway.comfy.messages import LogLine, NodeProgress, NodeStarted
from tests.chaos.model.model import ENDED, LIVE, QUEUE_TTL_SECONDS, Job, Model, Place
from tests.chaos.model.world import ADMIN, World, new_loop

T = TypeVar("T")
NAMES = ("gpu-1", "gpu-2", "gpu-3")
WORDS = {"queued": "QUEUED", "succeeded": "SUCCESS", "failed": "FAILED", "canceled": "FAILED"}
MAX_JOBS = 8
MAX_OPEN = 4
TERMINAL_FRAMES = {"succeeded": "completed", "failed": "error", "canceled": "error"}
pick = st.integers(0, MAX_JOBS - 1)


class Gateway(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.logs = capture_logs()
        self.logs.__enter__()
        self.scratch = tempfile.TemporaryDirectory()
        self.loop = new_loop()
        self.model = Model()
        self.world = World(Path(self.scratch.name), queue_ttl=QUEUE_TTL_SECONDS)
        self.seen: dict[str, int] = dict.fromkeys(NAMES, 0)
        self.shown: dict[str, float] = {}
        #: How many events a job had when all that is told of it was looked at last, by this process.
        self.judged: dict[str, int] = {}
        self.holding: set[str] = set()
        self.deaf: set[str] = set()
        #: What was found in the files of those that are being collected.
        self.found: dict[str, str] = {}
        self.run(self.world.start())

    def teardown(self) -> None:
        self.run(self.world.stop())
        self.run(self.world.store.close())
        self.run(self.loop.shutdown_asyncgens())
        self.loop.close()
        self.scratch.cleanup()
        self.logs.__exit__(None, None, None)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    # --------------------------------------------------------------------------------------------------------- helpers

    def job_at(self, number: int, *states: str) -> str | None:
        able = [name for name, job in self.model.jobs.items() if not states or job.state in states]
        return able[number % len(able)] if able else None

    def open_jobs(self) -> list[str]:
        return self.model.at_work("queued", *LIVE)

    def fake(self, job_id: str) -> Any:
        return self.world.upstreams[self.model.jobs[job_id].place or ""]

    def settle(self) -> None:
        """Everything that can happen happens; then the model learns which choices were made, and judges them."""
        self.run(self.world.settle())
        for name, upstream in self.world.upstreams.items():
            prompts = list(upstream.prompts.values())
            for prompt in prompts[self.seen[name] :]:
                job = self.model.jobs[prompt.job_id]
                assert self.model.may_take(prompt.job_id, name), f"{prompt.job_id} must not be given to {name}"
                assert prompt.attempt == job.attempt + 1
                self.model.dispatch(prompt.job_id, name)
            self.seen[name] = len(prompts)
        for place in self.model.places.values():
            place.before = None
        assert self.model.idle_with_work() == []

    def collect(self, job_id: str) -> None:
        """The files of a finished prompt are looked at unless they are held back."""
        job = self.model.jobs[job_id]
        if job.is_flagged:
            self.model.collected(job_id, "canceled")
        elif job.place not in self.holding:
            self.model.collected(job_id, self.found[job_id])

    # ------------------------------------------------------------------------------------------------- rules: clients

    @initialize(
        names=st.sets(st.sampled_from(NAMES), min_size=1, max_size=2),
        kinds=st.lists(st.sampled_from(["image", "video"]), min_size=1, max_size=3),
        are_deaf=st.booleans(),
    )
    def begin(self, names: set[str], kinds: list[str], are_deaf: bool) -> None:  # noqa: FBT001 - given by name
        for name in sorted(names):
            self.add(name)
            self.hears_or_not(name, is_deaf=are_deaf)
        for who, kind in enumerate(kinds, start=1):
            self.submit_one(kind, b"a", who)

    @precondition(lambda self: len(self.model.jobs) < MAX_JOBS and len(self.open_jobs()) < MAX_OPEN)
    @rule(kind=st.sampled_from(["image", "video"]), label=st.sampled_from([b"a", b"b"]), who=st.integers(1, 3))
    def submit(self, kind: str, label: bytes, who: int) -> None:
        self.submit_one(kind, label, who)

    def submit_one(self, kind: str, label: bytes, who: int) -> None:
        answer = self.run(self.world.post(kind, label, b"face", f"127.0.0.{who}"))
        assert answer.status == 200, answer.body
        self.model.jobs[answer.json["prompt_id"]] = Job(kind, self.model.now, content=label)
        self.settle()

    @precondition(lambda self: self.open_jobs())
    @rule(number=pick)
    def cancel(self, number: int) -> None:
        if (job_id := self.job_at(number, *(() if number == 0 else ("queued", *LIVE)))) is None:
            return
        answer = self.run(self.world.ask("DELETE", f"/-/jobs/{job_id}"))
        obeys = self.model.jobs[job_id].place not in self.deaf
        assert answer.status == self.model.cancel(job_id, obeys=obeys), answer.body
        self.settle()

    # ------------------------------------------------------------------------------------------------ rules: upstreams

    @precondition(lambda self: self.model.at_work("dispatched", "running"))
    @rule(number=pick)
    def starts(self, number: int) -> None:
        if (job_id := self.job_at(number, "dispatched", "running")) is None:
            return
        self.fake(job_id)
        job = self.model.jobs[job_id]
        self.world.open_prompt(job.place or "", job_id).start()
        self.model.start(job)
        self.settle()

    @precondition(lambda self: self.model.at_work("running"))
    @rule(number=pick, part=st.integers(1, 20))
    def ticks(self, number: int, part: int) -> None:
        if (job_id := self.job_at(number, "running")) is None:
            return
        job = self.model.jobs[job_id]
        prompt = self.world.open_prompt(job.place or "", job_id)
        node = next(iter(prompt.graph), "1")
        prompt.say(NodeStarted(prompt.id, node), NodeProgress(prompt.id, node, part, 20))
        self.model.tell_how_far(job)
        self.settle()

    @precondition(lambda self: self.model.at_work("dispatched", "running"))
    @rule(number=pick)
    def is_about_to_end(self, number: int) -> None:
        """Nearly all is done in two seconds, so that another one may be sent ahead."""
        if (job_id := self.job_at(number, "dispatched", "running")) is None:
            return
        job = self.model.jobs[job_id]
        prompt = self.world.open_prompt(job.place or "", job_id)
        swap = next((node for node, entry in prompt.graph.items() if "FaceSwap" in str(entry["class_type"])), "1")
        prompt.start()
        self.model.start(job)
        prompt.say(NodeStarted(prompt.id, swap), NodeProgress(prompt.id, swap, 1, 20))
        self.model.tell_how_far(job)
        self.elapse(2.0)
        if job.state == "running":
            prompt.say(NodeProgress(prompt.id, swap, 19, 20))
            self.settle()

    @precondition(lambda self: self.model.at_work("dispatched", "running"))
    @rule(number=pick, what=st.sampled_from(["succeeded", "succeeded", "unchanged", "gone"]))
    def succeeds(self, number: int, what: str) -> None:
        if (job_id := self.job_at(number, "dispatched", "running")) is not None:
            self.upstream_succeeds(job_id, what)
            self.model.finish(job_id)
            self.collect(job_id)
            self.settle()

    def upstream_succeeds(self, job_id: str, what: str) -> None:
        job, kind = self.model.jobs[job_id], self.model.jobs[job_id].kind
        label = (job.content or b"") if what == "unchanged" else f"{job_id} {job.attempt}".encode()
        name = "out_00001_.png" if kind == "image" else "out_00001-audio.mp4"
        self.found[job_id] = what
        if what == "succeeded":
            job.content = f"{kind}:".encode() + label
        node = self.world.result_node(f"faceswap_{kind}")
        prompt = self.world.open_prompt(job.place or "", job_id)
        prompt.succeed(node, f"{kind}:".encode() + label, name)
        if what == "gone":
            self.fake(job_id).files.popitem()

    @precondition(lambda self: self.model.at_work("dispatched", "running"))
    @rule(number=pick)
    def fails(self, number: int) -> None:
        if (job_id := self.job_at(number, "dispatched", "running")) is None:
            return
        job = self.model.jobs[job_id]
        self.world.open_prompt(job.place or "", job_id).fail()
        self.model.end(job_id, "failed", "node_failed")
        self.model.places[job.place or ""].success()
        self.settle()

    @precondition(lambda self: self.model.at_work("dispatched", "running"))
    @rule(number=pick, by_our_stop=st.booleans())
    def loses(self, number: int, by_our_stop: bool) -> None:  # noqa: FBT001 - Hypothesis gives it by name
        if (job_id := self.job_at(number, "dispatched", "running")) is None:
            return
        self.world.open_prompt(self.model.jobs[job_id].place or "", job_id).lose(by_our_stop=by_our_stop)
        self.model.lose(job_id, by_our_stop=by_our_stop)
        self.settle()

    @precondition(lambda self: self.model.at_work("dispatched", "running"))
    @rule(number=pick)
    def is_interrupted_there(self, number: int) -> None:
        if (job_id := self.job_at(number, "dispatched", "running")) is None:
            return
        self.world.open_prompt(self.model.jobs[job_id].place or "", job_id).interrupt()
        self.model.interrupt(job_id)
        self.settle()

    @rule(name=st.sampled_from(NAMES), is_deaf=st.booleans())
    def hears_cancels(self, name: str, is_deaf: bool) -> None:  # noqa: FBT001 - Hypothesis gives it by name
        self.hears_or_not(name, is_deaf=is_deaf)

    def hears_or_not(self, name: str, *, is_deaf: bool) -> None:
        if name in self.model.places:
            self.world.upstreams[name].obeys_cancel = not is_deaf
            (self.deaf.add if is_deaf else self.deaf.discard)(name)

    @precondition(lambda self: self.model.places.keys() - self.holding)
    @rule(name=st.sampled_from(NAMES))
    def holds_files_back(self, name: str) -> None:
        if name in self.model.places and name not in self.holding:
            self.holding.add(name)
            self.world.upstreams[name].is_holding = True

    @precondition(lambda self: self.holding)
    @rule(name=st.sampled_from(NAMES))
    def gives_files(self, name: str) -> None:
        if name not in self.holding:
            return
        self.holding.remove(name)
        upstream = self.world.upstreams[name]
        upstream.is_holding = False
        for job_id in self.model.at_work("finishing"):
            if self.model.jobs[job_id].place == name:  # one by one: a success and a loss count in their order
                upstream.give(self.world.open_prompt(name, job_id))
                self.collect(job_id)
                self.settle()

    # ----------------------------------------------------------------------------------------- rules: time and the pool

    @rule(seconds=st.sampled_from([1.3, 7.1, 31.7, 95.9]))
    def time_passes(self, seconds: float) -> None:
        self.elapse(seconds)

    def elapse(self, seconds: float) -> None:
        for job_id in self.model.at_work("dispatched", "running"):
            job = self.model.jobs[job_id]
            prompt = self.world.open_prompt(job.place or "", job_id)
            prompt.say(LogLine(prompt.id, "still here"))  # silence is a matter of its own
            job.heard = True
        self.run(self.world.settle())
        self.world.clock.advance(seconds)
        self.model.pass_time(seconds)
        self.run(self.world.recorder.expire())
        for job_id in self.model.at_work("dispatched", "running"):
            job = self.model.jobs[job_id]
            if job.is_flagged and job.asked_again_at <= self.model.now:
                self.model.ask_to_let_go(job_id, obeys=job.place not in self.deaf)
        self.settle()

    @precondition(lambda self: self.model.at_work() or any(place.draining for place in self.model.places.values()))
    @rule(number=pick, what=st.sampled_from(["nothing", "succeeded", "lost"]))
    def restarts(self, number: int, what: str) -> None:
        """As after a kill; meanwhile an upstream goes on."""
        self.run(self.world.stop())
        job_id = self.job_at(number, "dispatched", "running")
        self.model.restart()
        if job_id is not None and what == "succeeded":
            self.upstream_succeeds(job_id, what)
            self.model.finish(job_id)
            self.collect(job_id)
        elif job_id is not None and what == "lost":
            self.world.open_prompt(self.model.jobs[job_id].place or "", job_id).lose()
            self.model.lose(job_id, by_our_stop=False)
        for flagged in self.model.at_work("dispatched", "running"):
            job = self.model.jobs[flagged]
            if job.is_flagged:
                self.model.ask_to_let_go(flagged, obeys=job.place not in self.deaf)
        self.run(self.world.start())
        self.judged.clear()
        self.settle()

    def add(self, name: str) -> None:
        body = f'{{"url": "http://{name}:8188", "name": "{name}"}}'.encode()
        answer = self.run(self.world.ask("POST", "/-/upstreams", body, content_type="application/json", **ADMIN))
        if name in self.model.places:
            assert answer.status == 409
            return
        assert answer.status == 201, answer.body
        self.model.places[name] = Place()
        self.seen[name] = 0
        self.deaf.discard(name)
        self.holding.discard(name)
        self.settle()

    @rule(name=st.sampled_from(NAMES))
    def adds_upstream(self, name: str) -> None:
        self.add(name)

    @rule(name=st.sampled_from(NAMES))
    def removes_upstream(self, name: str) -> None:
        answer = self.run(self.world.ask("DELETE", f"/-/upstreams/{name}", **ADMIN))
        if name not in self.model.places:
            assert answer.status == 404
        elif any(self.model.jobs[job_id].place == name for job_id in self.model.at_work()):
            assert answer.status == 409
        else:
            assert answer.status == 204
            del self.model.places[name]
            self.holding.discard(name)
        self.settle()

    @rule(name=st.sampled_from(NAMES), draining=st.booleans())
    def drains_or_resumes(self, name: str, draining: bool) -> None:  # noqa: FBT001 - Hypothesis gives it by name
        answer = self.run(self.world.ask("POST", f"/-/upstreams/{name}/{'drain' if draining else 'resume'}", **ADMIN))
        assert answer.status == (200 if name in self.model.places else 404)
        if name in self.model.places:
            self.model.places[name].draining = draining
        self.settle()

    @rule(number=pick, cursor=st.integers(-1, 12))
    def reads_on(self, number: int, cursor: int) -> None:
        """A client that comes back with a cursor gets what came after it; one that is beyond the end gets all."""
        if (job_id := self.job_at(number)) is None:
            return
        job = self.model.jobs[job_id]
        ended, last = job.state in ENDED, len(job.events)
        status, told = self.run(self.world.told(f"/-/jobs/{job_id}/events", cursor, ended=ended))
        if ended and cursor == last:
            assert status == 204
            return
        after = cursor if 0 <= cursor <= last else 0
        numbers = [int(message.last_event_id) for message in told if message.event != "progress"]
        assert numbers == list(range(after + 1, last + 1))

    # -------------------------------------------------------------------------------------------------- what must hold

    @invariant()
    def every_answer_is_the_models(self) -> None:
        self.run(self.look())

    async def look(self) -> None:
        listed = (await self.world.ask("GET", "/-/jobs")).json["jobs"]
        assert [job["id"] for job in listed] == sorted(self.model.jobs, reverse=True)
        shown = (await self.world.ask("GET", "/-/upstreams")).json["upstreams"]
        assert {one["name"]: (one["draining"], one["job_id"]) for one in shown} == {
            name: (place.draining, place.prompts[0] if place.prompts else None)
            for name, place in self.model.places.items()
        }
        for body in listed:
            job = self.model.jobs[body["id"]]
            self.judge_job(body, job)
            # All that is told of it hangs on its events, but for the bar.
            has_changed = self.judged.get(body["id"]) != len(job.events)
            if has_changed or job.state not in ENDED:
                await self.judge_status(body, job)
            if has_changed:
                assert (await self.world.ask("GET", f"/-/jobs/{body['id']}")).json.items() >= body.items()
                await self.judge_events(body, job)
                await self.judge_files(body, job)
                self.judged[body["id"]] = len(job.events)

    def judge_job(self, body: dict[str, Any], job: Job) -> None:
        assert body["state"] == job.state
        assert body["cancel_requested"] == job.is_flagged
        assert body["last_event"] == len(job.events)
        assert (body["error"] or {}).get("code") == job.code
        assert body["upstream"] == job.place
        assert len(body["results"]) == (job.state == "succeeded")

    async def judge_status(self, body: dict[str, Any], job: Job) -> None:
        status = (await self.world.ask("GET", f"/status/{body['id']}")).json
        percentage = status["progress"]["percentage"]
        assert status["status"] == WORDS.get(job.state, "PROCESSING")
        assert status["code"] == ("canceled" if job.state == "canceled" else job.code)
        assert percentage >= self.shown.get(body["id"], 0), "the bar fell"
        assert (percentage == 100) == (job.state == "succeeded")
        self.shown[body["id"]] = percentage

    async def judge_events(self, body: dict[str, Any], job: Job) -> None:
        ended = job.state in ENDED
        _, told = await self.world.told(f"/-/jobs/{body['id']}/events", ended=ended)
        durable = [message for message in told if message.event != "progress"]
        assert [message.event for message in durable] == job.events
        assert [int(message.last_event_id) for message in durable] == list(range(1, len(durable) + 1))
        assert sum(message.event in ENDED for message in durable) == ended
        _, told = await self.world.told(f"/events/{body['id']}", ended=ended)
        names = [message.event for message in told if message.event not in {"progress", "executing"}]
        assert names == ["queued", *([TERMINAL_FRAMES[job.state]] if ended else [])]

    async def judge_files(self, body: dict[str, Any], job: Job) -> None:
        for result in body["results"]:
            answer = await self.world.ask("GET", result["url"])
            assert (answer.status, answer.body) == (200, job.content)
