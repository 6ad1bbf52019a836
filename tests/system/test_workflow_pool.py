"""Clients' own graphs on a pool whose upstreams differ: they land only where they can run, and hostile ones nowhere."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import random
from http import HTTPStatus
from typing import Any

import pytest
from comfy_sdk import Comfy
from PIL import Image

from tests.fakes.scripted_comfyui import ScriptedComfyUI
from tests.tools.gateway_process import GatewayProcess
from tests.tools.waiting import wait_until

pytestmark = pytest.mark.system

JOBS = "/api/v2/jobs"
SEED = 20260


#: Asked anew whenever it matters: the boxes change faster here than anybody copies a model. What became of one that is
#: lost is decided after tenths of seconds instead of seconds.
QUICK = (
    "from gateway.comfy import protocol; from gateway.upstreams import remote; remote.RELEARN_SECONDS = 0.0; "
    "protocol.RETRY_SECONDS, protocol.PROBE_DELAY_SECONDS, protocol.UNCLEAR_SECONDS = 0.1, 0.2, 0.3"
)


def node_class(inputs: dict[str, Any], outputs: list[str], *, saves: bool = False) -> dict[str, Any]:
    return {"input": {"required": inputs}, "output": outputs, "output_node": saves, "name": ""}


def classes(models: list[str], *more: str) -> dict[str, Any]:
    """What /object_info of a box says: a loader that lists its models, a sampler, a saver, and classes only it has."""
    found = {
        "Loader": node_class({"ckpt_name": [models, {}]}, ["MODEL"]),
        "Sampler": node_class({"model": ["MODEL"], "seed": ["INT", {"min": 0, "max": 2**31}]}, ["IMAGE"]),
        "LoadImage": node_class({"image": [["others.png"], {"image_upload": True}]}, ["IMAGE", "MASK"]),
        "VHS_LoadVideo": node_class({"video": [["others.mp4"], {"video_upload": True}]}, ["IMAGE"]),
        "VHS_LoadVideoPath": node_class({"video": ["STRING", {"placeholder": "X://insert/path/here.mp4"}]}, ["IMAGE"]),
        "SaveImage": node_class({"images": ["IMAGE"], "filename_prefix": ["STRING", {}]}, [], saves=True),
    }
    return found | {name: node_class({"images": ["IMAGE"]}, ["IMAGE"]) for name in more}


def graph(model: str, *through: str, seed: int = 0, prefix: str = "mine") -> dict[str, Any]:
    made: dict[str, Any] = {
        "1": {"class_type": "Loader", "inputs": {"ckpt_name": model}},
        "2": {"class_type": "Sampler", "inputs": {"model": ["1", 0], "seed": seed}},
    }
    last = "2"
    for number, name in enumerate(through, 3):
        made[str(number)] = {"class_type": name, "inputs": {"images": [last, 0]}}
        last = str(number)
    made["9"] = {"class_type": "SaveImage", "inputs": {"images": [last, 0], "filename_prefix": prefix}}
    return made


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(file, "PNG")
    return file.getvalue()


class Box(ScriptedComfyUI):
    """A box that makes a picture of every prompt at once, unless it is told to hold it."""

    def __init__(self, models: list[str], *more: str) -> None:
        super().__init__()
        self.nodes = classes(models, *more)
        self.max_upload_size = 10**6
        self.graphs: list[dict[str, Any]] = []
        self.holds = False
        self.on_prompt = self._take
        self._work: set[asyncio.Task[None]] = set()

    def _take(self, prompt_id: str) -> None:
        task = asyncio.create_task(self._run(prompt_id), name=f"box {prompt_id}")
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _run(self, prompt_id: str) -> None:
        self.graphs.append(next(item for item in self.pending if item[1] == prompt_id)[2])
        await self.start(prompt_id)
        if self.holds:
            return
        name = f"{prompt_id}_00001_.png"
        self.outputs[name] = picture()
        file = {"filename": name, "subfolder": "", "type": "output"}
        await self.finish(prompt_id, **{"9": {"images": [file]}})

    @property
    def touched(self) -> list[str]:
        """What was sent there that changes anything."""
        return [call for call in self.calls if call.startswith(("prompt", "upload"))]


@contextlib.asynccontextmanager
async def serving(folder, *boxes: Box, **settings: str):
    async with contextlib.AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(box.serve()) for box in boxes]
        gateway = GatewayProcess(folder / "gateway", {"UPSTREAMS": ",".join(urls), **settings}, workers=0, first=QUICK)
        await asyncio.to_thread(gateway.start, wait_for_workers=False)
        try:
            async with gateway.client() as client:

                async def are_known() -> bool:
                    upstreams = (await client.get("/-/upstreams")).json()["upstreams"]
                    return all(each["reachable"] for each in upstreams)

                await wait_until(are_known, what="all boxes to be known")
                yield gateway, client
        finally:
            await asyncio.to_thread(gateway.end)


async def ended(client, job_id: str) -> dict[str, Any]:
    async def has_ended() -> bool:
        job = (await client.get(f"{JOBS}/{job_id}")).json()
        return job["status"] in {"succeeded", "failed", "canceled", "expired"}

    await wait_until(has_ended, what="its end")
    return (await client.get(f"{JOBS}/{job_id}")).json()


def needs(made: dict[str, Any]) -> tuple[str, frozenset[str]]:
    model = next(node["inputs"]["ckpt_name"] for node in made.values() if node["class_type"] == "Loader")
    return model, frozenset(node["class_type"] for node in made.values())


@pytest.mark.long
async def test_sixty_mixed_workflows_land_only_where_they_can_run_and_new_models_count_at_once(tmp_path):
    red, blue, grey = (
        Box(["red", "both"], "Sharpen"),
        Box(["blue", "both"], "Soften"),
        Box(["grey"], "Sharpen", "Soften"),
    )
    chance = random.Random(SEED)  # noqa: S311 - a replayable order, no secret
    kinds = [
        ("red",),
        ("blue",),
        ("both",),
        ("grey",),
        ("red", "Sharpen"),
        ("blue", "Soften"),
        ("grey", "Soften", "Sharpen"),
    ]
    async with serving(tmp_path, red, blue, grey) as (_, client):
        made = [graph(*chance.choice(kinds), seed=number) for number in range(60)]
        answers = await asyncio.gather(*(client.post(JOBS, json={"workflow": each}) for each in made))
        assert {answer.status_code for answer in answers} == {HTTPStatus.CREATED}
        jobs = [await ended(client, answer.json()["id"]) for answer in answers]
        assert {job["status"] for job in jobs} == {"succeeded"}
        assert {job["outputs"][0]["name"] for job in jobs} == {"mine_00001_.png"}
        assert len(red.graphs) + len(blue.graphs) + len(grey.graphs) == 60
        for box in (red, blue, grey):
            models = box.nodes["Loader"]["input"]["required"]["ckpt_name"][0]
            assert box.graphs
            for model, names in map(needs, box.graphs):
                assert model in models
                assert names <= box.nodes.keys()

        # No box has both: what each lacks is told.
        refused = await client.post(JOBS, json={"workflow": graph("red", "Soften")})
        assert refused.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
        error = refused.json()["error"]
        assert error["code"] == "invalid_workflow"
        assert len(error["details"]["upstreams"]) == 3
        assert any("'red'" in sentence for lacks in error["details"]["upstreams"].values() for sentence in lacks)

        # Somebody copies a model onto a box: nothing is restarted, nobody waits.
        red.nodes = classes(["red", "both", "new"], "Sharpen")
        fresh = await client.post(JOBS, json={"workflow": graph("new")})
        assert fresh.status_code == HTTPStatus.CREATED, fresh.text
        assert (await ended(client, fresh.json()["id"]))["status"] == "succeeded"
        assert needs(red.graphs[-1])[0] == "new"


async def test_a_workflow_whose_upstream_dies_in_the_middle_succeeds_on_another(tmp_path, monkeypatch):
    one, other = Box(["both"]), Box(["both"])
    one.holds = other.holds = True
    async with serving(tmp_path, one, other) as (gateway, client):
        monkeypatch.setenv("COMFY_BASE_URL", gateway.url)
        sdk = await asyncio.to_thread(Comfy)
        job = await asyncio.to_thread(sdk.submit, sdk.workflows.from_json(graph("both")))
        waiting = asyncio.create_task(asyncio.to_thread(job.wait, timeout=60), name="the client's wait")

        async def runs() -> bool:
            return bool(one.running or other.running)

        await wait_until(runs, what="its run")
        dying, left = (one, other) if one.running else (other, one)
        left.holds = False
        await dying.restart()  # as a supervisor does it: at once, with an empty history
        assert (await waiting).status == "succeeded"
        assert (len(dying.graphs), len(left.graphs)) == (1, 1)
        assert (await ended(client, job.id))["outputs"][0]["name"] == "mine_00001_.png"
        await asyncio.to_thread(sdk.close)


def hostile() -> dict[str, Any]:
    """Name -> workflow; none of it may reach an upstream."""

    def loading(value: object) -> dict[str, Any]:
        return {
            "1": {"class_type": "LoadImage", "inputs": {"image": value}},
            "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
        }

    def video(name: str, value: object) -> dict[str, Any]:
        return loading("x.png") | {"1": {"class_type": name, "inputs": {"video": value}}}

    deep: object = "x"
    for _ in range(200):
        deep = [deep]
    circle = graph("m") | {
        "2": {"class_type": "Sharpen", "inputs": {"images": ["3", 0]}},
        "3": {"class_type": "Sharpen", "inputs": {"images": ["2", 0]}},
    }
    circle["9"]["inputs"]["images"] = ["2", 0]
    return {
        "absolute path": loading("/etc/hostname"),
        "windows path": loading("C:\\Windows\\win.ini"),
        "climbing path": loading("../input/others.png"),
        "annotation": loading("others.png [output]"),
        "what others uploaded": loading("others.png"),
        "a staged name": loading("gateway/0123456789abcdef.png"),
        "nobody's asset": loading({"__type": "core/ASSET", "info": {"id": "0b5a7c1e-0000-4000-8000-000000000000"}}),
        "asset without an id": loading({"__type": "core/ASSET"}),
        "URL in a loader": video("VHS_LoadVideo", "http://127.0.0.1:1/x.mp4"),
        "URL in a path loader": video("VHS_LoadVideoPath", "http://169.254.169.254/latest"),
        "path in a path loader": video("VHS_LoadVideoPath", "/etc/passwd"),
        "a link as a list of words": loading(["1", 0]),
        "circle": circle,
        "itself": {"9": {"class_type": "SaveImage", "inputs": {"images": ["9", 0], "filename_prefix": "x"}}},
        "far too many nodes": {str(n): {"class_type": "Loader", "inputs": {"ckpt_name": "m"}} for n in range(50_000)},
        "a string of 10 MB": loading("x" * 10_000_000),
        "deep": loading(deep),
        "unknown class": {"1": {"class_type": "os.system", "inputs": {}}},
        "nothing": {},
        "a list": [],
        "no output": {"1": {"class_type": "Loader", "inputs": {"ckpt_name": "m"}}},
        "editor's format": {"nodes": [], "links": []},
    }


async def test_hostile_workflows_are_refused_and_nothing_reaches_an_upstream(tmp_path):
    box = Box(["m"], "Sharpen", "ExecuteAnything")
    async with serving(tmp_path, box, NODES_DENY="ExecuteAnything") as (gateway, client):
        wanted = hostile() | {"denied class": graph("m", "ExecuteAnything")}
        for name, workflow in wanted.items():
            answer = await client.post(
                JOBS, content=json.dumps({"workflow": workflow}), headers={"content-type": "application/json"}
            )
            assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY, (name, answer.text[:300])
            error = answer.json()["error"]
            assert error["code"] in {"invalid_workflow", "workflow_format_ui", "missing_asset"}, (name, error)
            assert str(gateway.folder) not in answer.text, name
        assert box.touched == []
        assert gateway.rows("SELECT count(*) FROM jobs") == [(0,)]
        fine = await client.post(JOBS, json={"workflow": graph("m", prefix="../../etc/cron.d/x")})
        job = await ended(client, fine.json()["id"])
        assert job["status"] == "succeeded"
        prefix = box.graphs[0]["9"]["inputs"]["filename_prefix"]
        assert prefix.startswith("gateway/")
        assert ".." not in prefix
        assert "/" not in job["outputs"][0]["name"]
