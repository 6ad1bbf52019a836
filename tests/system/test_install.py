"""The project as a user gets it: a wheel in a fresh virtual environment, started in an empty directory.

Needs the package index, or what pip has cached of it. The steps are those of the image.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import httpx
import pytest

from gateway.cli.demo_media import FPS, SECONDS, write_inputs

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
STEPS = ROOT / "deploy" / "image-steps.sh"
INSTALL_SECONDS = 300
START_SECONDS = 60
STOP_SECONDS = 30


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without anything that could lead back into this checkout, or into somebody's settings."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "PYTHON", "VIRTUAL_ENV"))
    }
    return {**kept, "PYTHON": sys.executable, **more}


def run_step(*arguments: str | Path) -> None:
    command = ["sh", STEPS, *arguments]
    subprocess.run(
        command, env=clean_environment(), check=True, timeout=INSTALL_SECONDS, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    run_step("build", ROOT, folder)
    return folder


@pytest.fixture(scope="module")
def venv(tmp_path_factory, wheels) -> Path:
    folder = tmp_path_factory.mktemp("installed") / "venv"
    run_step("install", wheels, folder)
    return folder


@contextlib.contextmanager
def serving(venv: Path, folder: Path, **settings: str):
    """The image's last step in an empty directory; its base URL, its output, the process."""
    output = folder.parent / f"{folder.name}.out"
    with output.open("w") as out, (folder.parent / f"{folder.name}.err").open("w") as err:
        process = subprocess.Popen(
            ["sh", STEPS, "serve", venv, "--port", "0"],
            cwd=folder,
            env=clean_environment(**settings),
            stdout=out,
            stderr=err,
        )
    try:
        yield wait_for_url(process, output), output, process
    finally:
        process.kill()
        process.wait(STOP_SECONDS)


def wait_for_url(process: subprocess.Popen[bytes], output: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"listens on (http://\S+)", output.read_text()):
            return found[1]
        time.sleep(0.05)
    raise AssertionError(f"no gateway: {output.with_suffix('.err').read_text()}")


def wait_until_ready(client: httpx.Client) -> None:
    deadline = time.monotonic() + START_SECONDS
    while client.get("/health/ready").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_wheel_carries_templates_pages_and_node_pack_and_no_tests(wheels) -> None:
    [wheel] = wheels.glob("comfygate-*.whl")
    listing = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", wheel], capture_output=True, text=True, check=True
    ).stdout
    for name in (
        "gateway/workflows/faceswap_video/graph.json", "gateway/workflows/faceswap_image/template.toml",
        "gateway/api/ui/index.html", "gateway/py.typed", "comfy_nodes/__init__.py", "comfy_nodes/swap.py",
    ):  # fmt: skip
        assert name in listing
    assert "tests/" not in listing
    assert "LICENSE" in listing


@pytest.mark.long
def test_installed_in_an_empty_directory_everything_is_there(venv, tmp_path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with serving(venv, empty) as (url, _, process), httpx.Client(base_url=url, timeout=20) as client:
        wait_until_ready(client)
        health = client.get("/health").json()
        assert health["status"] == "healthy"
        assert health["engine"] == "preview"
        served = {row["name"]: row for row in client.get("/-/templates").json()["templates"]}
        assert set(served) == {path.name for path in (ROOT / "workflows").iterdir() if path.is_dir()}
        assert all(row["serving"] and row["problem"] is None for row in served.values())
        page = client.get("/", headers={"Accept": "text/html"})
        assert page.headers["content-type"].startswith("text/html")
        for name in re.findall(r'(?:src|href)="/?(-/ui/[\w.]+)"', page.text):
            assert client.get(f"/{name}").status_code == 200
        swap_a_face(venv, url, tmp_path)
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_SECONDS) == 0
    assert [path.name for path in empty.iterdir()] == ["data"]
    assert oct((empty / "data").stat().st_mode & 0o777) == "0o700"
    for path in (empty / "data").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def swap_a_face(venv: Path, url: str, folder: Path) -> None:
    """The main job through the installed command line."""
    target, face = write_inputs(folder)
    result = folder / "result.mp4"
    command = [venv / "bin" / "comfygate", "submit", target, face, "-o", result, "--url", url]
    subprocess.run(command, env=clean_environment(), check=True, timeout=START_SECONDS, capture_output=True)
    with av.open(str(result)) as file:
        assert file.streams.video[0].codec_context.name == "h264"
        assert sum(1 for _ in file.decode(video=0)) == FPS * SECONDS


@pytest.mark.long
def test_with_the_settings_of_the_image_nothing_is_open(venv, tmp_path) -> None:
    empty = tmp_path / "image"
    empty.mkdir()
    settings = dict(re.findall(r"(GATEWAY_\w+)=(\S+)", dockerfile("ENV")[0]))
    assert settings == {"GATEWAY_HOST": "0.0.0.0", "GATEWAY_AUTH": "keys", "GATEWAY_DATA_DIR": "/data"}
    settings["GATEWAY_DATA_DIR"] = str(empty / "data")
    with serving(venv, empty, **settings) as (url, output, _):
        local = url.replace("0.0.0.0", "127.0.0.1")
        with httpx.Client(base_url=local, timeout=20) as client:
            wait_until_ready(client)
            assert client.get("/-/jobs").status_code == 401
            assert set(client.get("/health").json()) == {"status"}
            token = re.search(r"Admin token.*: (\S+)", output.read_text())[1]
            assert client.get("/-/jobs", headers={"Authorization": f"Bearer {token}"}).json()["jobs"] == []


def dockerfile(instruction: str) -> list[str]:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    return [line.removeprefix(f"{instruction} ") for line in lines if line.startswith(f"{instruction} ")]


def test_the_image_is_made_by_the_same_steps() -> None:
    """What this file runs is what the Dockerfile says, but for the account, which wants root."""
    steps = [re.search(r"image-steps\.sh (\w+)", line) for line in dockerfile("RUN") if not line.startswith("useradd")]
    assert [step and step[1] for step in steps] == ["build", "install"]
    assert json.loads(dockerfile("CMD")[0])[1:3] == ["/opt/comfygate/image-steps.sh", "serve"]
    assert dockerfile("USER") == ["comfygate"]
    assert len(dockerfile("FROM")) == 2
