"""The embedded worker as the gateway meets it: a process, a token, HTTP, a WebSocket, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest
import websockets
from PIL import Image

from gateway.embedded.video import Audio, add_audio, encode_h264
from tests.tools.plain_http import NO_TLS

pytestmark = pytest.mark.system

TOKEN = "a-token-of-this-test"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
NTSC = Fraction(30000, 1001)
FRAMES = 12
PATIENCE_SECONDS = 20


@dataclass
class Process:
    """A started worker."""

    process: subprocess.Popen[str]
    directory: Path
    port: int
    pid: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **settings: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.url, headers=HEADERS, timeout=PATIENCE_SECONDS, verify=NO_TLS, **settings
        )

    def socket(self, client_id: str) -> Any:
        address = f"ws://127.0.0.1:{self.port}/ws?clientId={client_id}"
        return websockets.connect(address, additional_headers=HEADERS, max_size=None)

    def is_listening(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def command(directory: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "gateway.embedded", "--directory", str(directory), "--parent-watch", *arguments]


@contextlib.contextmanager
def started(directory: Path, *arguments: str):
    environment = {**os.environ, "COMFYGATE_WORKER_TOKEN": TOKEN}
    process = subprocess.Popen(
        command(directory, *arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        ready = json.loads(process.stdout.readline())
        yield Process(process, directory, ready["port"], ready["pid"])
    finally:
        process.kill()
        process.wait(PATIENCE_SECONDS)
        process.stdin.close()
        process.stdout.close()


def make_inputs(folder: Path) -> None:
    """A portrait, another one, a clip that pans over the first with a tone beside, a picture without a face."""
    from matplotlib import cbook
    from skimage import data

    face = Image.fromarray(data.astronaut()).crop((100, 0, 420, 240))
    face.save(folder / "face.png")
    with cbook.get_sample_data("grace_hopper.jpg") as file, Image.open(file) as portrait:
        portrait.convert("RGB").resize((256, 300)).save(folder / "other.png")
    Image.new("RGB", (64, 48), "teal").save(folder / "plain.png")
    pixels = np.asarray(face)
    shots = [pixels[:, 2 * index : 2 * index + 280] for index in range(FRAMES)]
    size = {"fps": NTSC, "size": (280, 240)}
    encode_h264(folder / "mute.mp4", shots, **size, pix_fmt="yuv420p", crf=12, metadata={})
    tone = np.sin(np.arange(44100, dtype=np.float32) * 0.06)[None] / 2
    add_audio(folder / "mute.mp4", folder / "clip.mp4", Audio(tone, 44100), frames=FRAMES, fps=NTSC, trim=False)


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    with started(tmp_path_factory.mktemp("worker")) as process:
        make_inputs(process.directory / "input")
        yield process


def image_graph(prefix: str, **change: Any) -> dict[str, Any]:
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": "plain.png", **change}},
        "3": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": prefix}},
    }


def swap_inputs(target: str, source: str) -> dict[str, Any]:
    return {
        "enabled": True,
        "input_image": [target, 0],
        "source_image": [source, 0],
        "swap_model": "cpu-preview",
        "facedetection": "retinaface_resnet50",
        "face_restore_model": "none",
        "face_restore_visibility": 1,
        "codeformer_weight": 0.5,
        "detect_gender_input": "no",
        "detect_gender_source": "no",
        "input_faces_index": "0",
        "source_faces_index": "0",
        "console_log_level": 1,
    }


def video_graph(prefix: str, video: str = "clip.mp4", **load: Any) -> dict[str, Any]:
    sizes = {"custom_width": 0, "custom_height": 0, "frame_load_cap": 0, "skip_first_frames": 0, "select_every_nth": 1}
    combine = {
        "images": ["3", 0],
        "audio": ["8", 2],
        "frame_rate": ["12", 5],
        "loop_count": 0,
        "filename_prefix": prefix,
        "format": "video/h264-mp4",
        "pix_fmt": "yuv420p",
        "crf": 19,
        "save_metadata": False,
        "trim_to_audio": False,
        "pingpong": False,
        "save_output": True,
    }
    return {
        "8": {"class_type": "VHS_LoadVideo", "inputs": {"video": video, "force_rate": 0, **sizes, **load}},
        "10": {"class_type": "LoadImage", "inputs": {"image": "other.png"}},
        "12": {"class_type": "VHS_VideoInfo", "inputs": {"video_info": ["8", 3]}},
        "3": {"class_type": "ReActorFaceSwap", "inputs": swap_inputs("8", "10")},
        "9": {"class_type": "VHS_VideoCombine", "inputs": combine},
    }


@dataclass
class Outcome:
    """What one prompt gave."""

    frames: list[dict[str, Any]] = field(default_factory=list)
    history: dict[str, Any] = field(default_factory=dict)
    file: bytes = b""

    def kinds(self) -> list[str]:
        return [frame["type"] for frame in self.frames]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [frame["data"] for frame in self.frames if frame["type"] == kind]


async def receive(connection: Any) -> dict[str, Any]:
    return json.loads(await asyncio.wait_for(connection.recv(), PATIENCE_SECONDS))


async def run(worker: Process, graph: dict[str, Any], client_id: str) -> Outcome:
    outcome = Outcome()
    async with worker.client() as http, worker.socket(client_id) as connection:
        outcome.frames.append(await receive(connection))
        await http.patch("/internal/logs/subscribe", json={"clientId": client_id, "enabled": True})
        reply = await http.post("/prompt", json={"prompt": graph, "client_id": client_id})
        assert reply.status_code == 200, reply.text
        prompt_id = reply.json()["prompt_id"]
        while outcome.frames[-1] != {"type": "executing", "data": {"node": None, "prompt_id": prompt_id}}:
            outcome.frames.append(await receive(connection))
        outcome.history = (await http.get(f"/history/{prompt_id}")).json()[prompt_id]
        for output in outcome.history["outputs"].values():
            for item in [*output.get("images", []), *output.get("gifs", [])]:
                query = {name: item[name] for name in ("filename", "subfolder", "type")}
                outcome.file = (await http.get("/view", params=query)).content
    return outcome


async def test_nothing_is_answered_without_the_token(worker):
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
        async with httpx.AsyncClient(base_url=worker.url, headers=headers, verify=NO_TLS) as http:
            for path in ("/prompt", "/system_stats", "/view?filename=plain.png&type=input", "/nosuch"):
                assert (await http.get(path)).status_code == 401
        with pytest.raises(websockets.InvalidStatus) as refusal:
            await websockets.connect(worker.url.replace("http", "ws") + "/ws", additional_headers=headers)
        assert refusal.value.response.status_code == 401


async def test_page_of_another_origin_is_refused(worker):
    async with worker.client() as http:
        assert (await http.get("/prompt", headers={"Origin": "http://evil.example"})).status_code == 403
        assert (await http.get("/prompt", headers={"Origin": worker.url})).status_code == 200


async def test_it_says_what_it_is(worker):
    async with worker.client() as http:
        system = (await http.get("/api/system_stats")).json()["system"]
        assert system["comfyui_version"] == "0.3.64"
        assert system["embedded_worker"].startswith("comfygate ")
        assert (await http.get("/api/jobs")).status_code == 404


async def test_image_prompt_end_to_end(worker):
    outcome = await run(worker, image_graph("e2e/still"), "still")
    assert [kind for kind in outcome.kinds() if kind != "logs"] == [
        "status",
        "status",
        "status",
        "execution_start",
        "execution_cached",
        *["progress_state", "executing", "progress_state"] * 2,
        "progress_state",
        "executing",
        "executed",
        "progress_state",
        "execution_success",
        "status",
        "executing",
    ]
    assert outcome.frames[0]["data"]["sid"] == "still"
    path = worker.directory / "output/e2e/still_00001_.png"
    assert outcome.file == path.read_bytes()
    with Image.open(path) as saved:
        assert saved.getpixel((0, 0)) == (255, 127, 127)


async def test_face_swap_in_a_video_keeps_frames_rate_size_and_sound(worker, tmp_path):
    outcome = await run(worker, video_graph("e2e/clip"), "clip")
    assert outcome.history["status"]["status_str"] == "success"
    (report,) = outcome.history["outputs"]["9"]["gifs"]
    assert report["filename"] == "clip_00001-audio.mp4"
    assert report["frame_rate"] == pytest.approx(29.97003)
    result = tmp_path / "result.mp4"
    result.write_bytes(outcome.file)
    with av.open(str(result)) as after, av.open(str(worker.directory / "input/clip.mp4")) as before:
        video = after.streams.video[0]
        assert (video.average_rate, video.width, video.height) == (NTSC, 280, 240)
        sound = after.streams.audio[0]
        assert float(sound.duration * sound.time_base) == pytest.approx(FRAMES / 29.97, abs=0.002)
        old, new = (
            np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(int)
            for container in (before, after)
        )
    assert len(new) == len(old) == FRAMES
    assert np.abs(new - old).max(axis=(1, 2, 3)).min() > 40, "every frame has another face"
    ticks = [(data["node"], data["value"]) for data in outcome.of("progress")]
    assert [value for node, value in ticks if node == "8"] == list(range(1, FRAMES + 1))
    assert [value for node, value in ticks if node == "9"] == list(range(1, FRAMES + 1))
    swap = [value for node, value in ticks if node == "3"]
    assert swap.count(FRAMES) >= 2, "ReActor makes several passes"
    assert 0 in swap


async def test_picture_without_a_face_succeeds_unchanged_and_says_so_in_the_log(worker):
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "plain.png"}},
        "2": {"class_type": "LoadImage", "inputs": {"image": "other.png"}},
        "3": {"class_type": "ReActorFaceSwap", "inputs": swap_inputs("1", "2")},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "noface"}},
    }
    outcome = await run(worker, graph, "noface")
    assert outcome.history["status"]["status_str"] == "success"
    lines = [entry["m"] for data in outcome.of("logs") for entry in data["entries"]]
    assert any("Cannot detect any Target" in line for line in lines), lines


async def test_face_detection_gives_boxes_as_text_output(worker):
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "face.png"}},
        "2": {"class_type": "GatewayFaceDetect", "inputs": {"image": ["1", 0], "detector": "opencv"}},
    }
    outcome = await run(worker, graph, "detect")
    (text,) = outcome.history["outputs"]["2"]["text"]
    report = json.loads(text)
    assert (report["detector"], report["width"], report["height"]) == ("opencv", 320, 240)
    assert 40 < report["faces"][0]["width"] < 200


async def test_running_prompt_is_interrupted_and_pending_one_deleted(worker):
    async with worker.client() as http, worker.socket("stop") as connection:
        running, pending = [
            (
                await http.post(
                    "/prompt", json={"prompt": video_graph(f"stop/{name}", force_rate=60), "client_id": "stop"}
                )
            ).json()["prompt_id"]
            for name in ("a", "b")
        ]
        while (await receive(connection))["type"] != "progress":
            pass
        queue = (await http.get("/queue")).json()
        assert [item[1] for item in queue["queue_running"]] == [running]
        assert [item[1] for item in queue["queue_pending"]] == [pending]
        assert (await http.post("/interrupt", json={"prompt_id": pending})).status_code == 200
        assert (await http.post("/queue", json={"delete": [pending]})).status_code == 200
        assert (await http.post("/interrupt", json={"prompt_id": running})).status_code == 200
        while (frame := await receive(connection))["type"] != "execution_interrupted":
            assert frame["type"] not in ("execution_success", "execution_error")
        while (frame := await receive(connection))["type"] != "executing":
            pass
        history = (await http.get("/history")).json()
        assert history[running]["status"]["status_str"] == "error"
        assert pending not in history


async def test_uploads_are_named_and_downloads_ranged_as_comfyui_does(worker):
    async with worker.client() as http:

        async def upload(data: bytes, name: str, **fields: str) -> httpx.Response:
            return await http.post("/upload/image", files={"image": (name, data)}, data=fields)

        assert (await upload(b"0123456789", "up.bin")).json() == {"name": "up.bin", "subfolder": "", "type": "input"}
        assert (await upload(b"other", "up.bin")).json()["name"] == "up (1).bin"
        assert (await upload(b"x", "up.bin", subfolder="../..")).status_code == 400
        assert (await upload(b"x", "up.bin", type="nosuch")).text.startswith("500 Internal Server Error")
        assert (await http.post("/upload/image", content=b"abc")).status_code == 400
        view = "/view?filename=up.bin&type=input"
        part = await http.get(view, headers={"Range": "bytes=2-4"})
        assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
        assert (await http.get(view, headers={"Range": "bytes=0-1,3-4"})).status_code == 416
        whole = await http.get(view)
        assert whole.headers["content-disposition"] == 'filename="up.bin"'
        assert (await http.get(view, headers={"If-None-Match": whole.headers["etag"]})).status_code == 304
        assert (await http.head(view)).headers["content-length"] == "10"
        assert (await http.get("/view?filename=../x")).status_code == 400
        assert (await http.post("/prompt", content=b"{")).status_code == 500


async def test_old_server_orphans_a_reused_client_id_and_broadcasts_clientless_progress(tmp_path):
    with started(tmp_path / "w", "--quirks", "0.3.64") as quirky:
        Image.new("RGB", (8, 8)).save(quirky.directory / "input/plain.png")
        async with quirky.client() as http, quirky.socket("other") as watcher:
            await receive(watcher)
            await http.post("/prompt", json={"prompt": image_graph("x")})
            kinds = [(await receive(watcher))["type"] for _ in range(9)]
            assert kinds == ["status"] * 2 + ["progress_state"] * 6 + ["status"]
            first = await quirky.socket("same")
            await receive(first)
            async with quirky.socket("same") as second:
                await receive(second)
                await first.close()
                await second.send(json.dumps({"type": "feature_flags", "data": {}}))
                await http.post("/queue", json={"clear": True})
                assert (await receive(watcher))["type"] == "status"
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(second.recv(), 0.2)


async def test_well_behaved_worker_keeps_a_reused_client_id_alive(worker):
    first = await worker.socket("same")
    await receive(first)
    async with worker.socket("same") as second:
        await receive(second)
        await first.close()
        await second.send(json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}}))
        reply = await receive(second)
        assert reply["type"] == "feature_flags"
        assert reply["data"]["max_upload_size"] == 1100 * 2**20


async def test_newer_server_checks_ids_and_lists_jobs(tmp_path):
    with started(tmp_path / "w", "--quirks", "newer") as newer:
        Image.new("RGB", (8, 8)).save(newer.directory / "input/plain.png")
        async with newer.client() as http:
            refused = await http.post("/prompt", json={"prompt": image_graph("x"), "prompt_id": "42"})
            assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_prompt_id")
            unknown = await http.post("/prompt", json={"prompt": {"1": {"class_type": "Nope", "inputs": {}}}})
            assert unknown.json()["error"]["type"] == "missing_node_type"
        outcome = await run(newer, image_graph("x"), "jobs")
        job_id = outcome.history["prompt"][1]
        assert outcome.history["prompt"][3]["create_time"] > 0
        assert outcome.history["outputs"]["9"]["images"][0]["id"]
        async with newer.client() as http:
            (job,) = (await http.get("/api/jobs?status=completed")).json()["jobs"]
            assert (job["id"], job["status"], job["outputs_count"]) == (job_id, "completed", 1)
            assert (await http.get(f"/api/jobs/{job_id}")).json()["outputs"] == outcome.history["outputs"]
            missing = await http.get("/api/jobs/0")
            assert (missing.status_code, missing.json()) == (404, {"error": "Job not found"})
            assert (await http.post(f"/api/jobs/{job_id}/cancel")).json() == {"cancelled": False}


async def test_body_over_the_limit_is_refused_announced_or_not(tmp_path):
    async def unannounced():
        for _ in range(3):
            yield b" " * 2**19

    with started(tmp_path / "w", "--max-upload-mib", "1") as small:
        async with small.client() as http:
            announced = await http.post("/prompt", content=b" " * (2**20 + 1))
            counted = await http.post("/prompt", content=unannounced())
    assert (announced.status_code, announced.text) == (413, "Maximum request body size 1048576 exceeded.")
    assert (counted.status_code, counted.text) == (413, "Maximum request body size 1048576 exceeded.")


async def test_faults_go_wrong_on_demand(tmp_path):
    faults = "silent-socket:after=4,http-500:n=1:path=/queue,crash:node=VHS_LoadVideo:frame=3"
    with started(tmp_path / "w", "--faults", faults) as faulty:
        make_inputs(faulty.directory / "input")
        async with faulty.client() as http, faulty.socket("f") as connection:
            assert [(await http.get("/queue")).status_code for _ in range(2)] == [500, 200]
            assert (await http.post("/prompt", json={"prompt": video_graph("x"), "client_id": "f"})).status_code == 200
            frames = []
            with contextlib.suppress(websockets.ConnectionClosedError):
                while True:
                    frames.append(await receive(connection))
        assert [frame["type"] for frame in frames] == ["status", "status", "status", "execution_start"]
        assert faulty.process.wait(PATIENCE_SECONDS) == 70


def test_worker_ends_with_its_standard_input(tmp_path):
    with started(tmp_path / "w") as process:
        process.process.stdin.close()
        assert process.process.wait(PATIENCE_SECONDS) == 0


def test_worker_ends_on_sigterm(tmp_path):
    with started(tmp_path / "w") as process:
        process.process.terminate()
        # The server stops in order, then raises the signal again.
        assert process.process.wait(PATIENCE_SECONDS) == -signal.SIGTERM


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells of a parent's death on Linux only")
def test_worker_ends_with_its_parent_though_its_input_stays_open(tmp_path):
    # The parent in between hands its own stdin on, which this test holds open: only the kernel's signal is left.
    parent = "import subprocess, sys, time; subprocess.Popen(sys.argv[1:]); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", parent, *command(tmp_path / "w")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "COMFYGATE_WORKER_TOKEN": TOKEN},
    )
    ready = json.loads(process.stdout.readline())
    orphan = Process(process, tmp_path, ready["port"], ready["pid"])
    assert orphan.is_listening()
    process.send_signal(signal.SIGKILL)
    process.wait(PATIENCE_SECONDS)
    # Its stdout is the last thing that holds this pipe open.
    assert process.stdout.read() == ""
    assert not orphan.is_listening()
    process.stdin.close()
    process.stdout.close()


@pytest.mark.parametrize(
    ("program", "token", "sentence"),
    [
        ("import sys; sys.modules['cv2'] = None", TOKEN, "comfygate[embedded]"),
        ("", "", "COMFYGATE_WORKER_TOKEN"),
    ],
)
def test_start_that_cannot_work_ends_with_one_sentence(tmp_path, program, token, sentence):
    program += (
        f"\nimport sys; from gateway.embedded.__main__ import main; sys.exit(main(['--directory', {str(tmp_path)!r}]))"
    )
    environment = {**os.environ, "COMFYGATE_WORKER_TOKEN": token}
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=30, check=False
    )
    assert ended.returncode != 0
    assert ended.stdout == ""
    assert sentence in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
