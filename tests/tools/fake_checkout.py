"""A folder that a gateway takes for a ComfyUI checkout: its main.py takes ComfyUI's arguments and runs the embedded worker.

It says that it is a ComfyUI, and, as ComfyUI does, with which arguments it was started. Unlike ComfyUI it wants the token.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_MAIN = """
import argparse, os, sys
sys.path.insert(0, {root!r})
print("faking a ComfyUI", " ".join(sys.argv[1:]), "CUDA_VISIBLE_DEVICES=" + os.environ["CUDA_VISIBLE_DEVICES"])

def directory(text):
    if not os.path.isdir(text):
        raise argparse.ArgumentTypeError(text + " does not exist")
    return text

parser = argparse.ArgumentParser()
parser.add_argument("--user-directory", type=directory, required=True)
parser.add_argument("--port", required=True)
parser.add_argument("--max-upload-size", required=True)
parser.add_argument("--listen", choices=["127.0.0.1"], required=True)
given, _ = parser.parse_known_args()

from gateway.embedded import __main__ as program, server
told_of_itself = server._system_stats

def system_stats(version):
    told = told_of_itself(version)
    del told["system"]["embedded_worker"]
    told["system"]["argv"] = sys.argv
    return told

server._system_stats = system_stats
sys.exit(program.main([
    "--port", given.port, "--max-upload-mib", given.max_upload_size, "--directory", os.path.dirname(given.user_directory),
]))
"""


def fake_checkout(folder: Path) -> Path:
    """Make it."""
    folder.mkdir(parents=True)
    (folder / "main.py").write_text(_MAIN.format(root=str(ROOT)))
    return folder


def settings_for(checkout: Path, gpus: str) -> dict[str, str]:
    """What a gateway is told to run it."""
    return {"COMFYUI_DIR": str(checkout), "COMFYUI_PYTHON": sys.executable, "COMFYUI_GPUS": gpus}
