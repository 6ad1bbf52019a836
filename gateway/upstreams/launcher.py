"""``python -m gateway.upstreams.launcher``: runs one ComfyUI for the gateway, and ends it with the gateway.

It behaves as the embedded worker does: one line of JSON on stdout when ComfyUI answers, the end when stdin ends. A ComfyUI
knows neither, so this process stands between: it gives the instance a port, folders and a database of its own, keeps its
log, and ends its whole process group. Should it be killed itself, the kernel ends ComfyUI (Linux only). It imports nothing
of the gateway but the log, so that it costs little beside each instance.

Source of ComfyUI's arguments: ComfyUI a125cd84, ``comfy/cli_args.py``, ``folder_paths.py`` and ``main.py``. Two instances
that share a checkout and no more than that need: a user directory each, which must be there before the start; a database
each, whose default lies in the checkout whatever the other folders are, and is locked by later versions, which exit when it
is taken; a temp folder each, as each wipes it when it starts.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import http.client
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.upstreams.rotating import RotatedLog

TOKEN_VARIABLE = "COMFYGATE_WORKER_TOKEN"  # noqa: S105 - the name of the variable, not a token
HOST = "127.0.0.1"
LOG = Path("log") / "comfyui.log"
CPU = "cpu"
_PR_SET_PDEATHSIG = 1
#: What ends us. A thread waits for them. A handler would not do: the kernel tells us of the gateway's death once for each of
#: its threads that we are handed on to, and a handler that interrupts itself waits for its own lock.
ENDINGS = frozenset({signal.SIGTERM, signal.SIGHUP})
#: ComfyUI handles no SIGTERM and is gone at once; what its nodes started may take longer. Less than the gateway waits for us.
END_SECONDS = 3.0
ASK_SECONDS = 0.2
ANSWER_SECONDS = 5.0
#: Inputs and outputs older than this are deleted: no call of ComfyUI's does.
KEEP_HOURS = 24.0
SWEEP_SECONDS = 600.0
CHUNK_BYTES = 65_536
HTTP_OK = 200


# ------------------------------------------------------------------------------------------------------ what is decided


def comfyui_arguments(directory: Path, device: str, port: int, max_upload_mib: int, more: Sequence[str]) -> list[str]:
    """Arguments of ComfyUI's main.py. Ours that keep instances apart come last, where they win."""
    return [
        *("--preview-method", "auto", "--max-upload-size", str(max_upload_mib)),
        *more,
        *(["--cpu"] if device == CPU else []),
        *("--listen", HOST, "--port", str(port)),
        *("--user-directory", str(directory / "user"), "--database-url", f"sqlite:///{directory / 'comfyui.db'}"),
        *("--input-directory", str(directory / "input"), "--output-directory", str(directory / "output")),
        # It makes a folder "temp" in there.
        *("--temp-directory", str(directory)),
    ]


def environment_for(device: str, inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of an instance: it sees its own GPU and no other, by the numbers that nvidia-smi shows."""
    visible = "" if device == CPU else device
    chosen = {"CUDA_VISIBLE_DEVICES": visible, "HIP_VISIBLE_DEVICES": visible}
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "PYTHONUNBUFFERED": "1", **inherited, **chosen}


def sweep(directory: Path, older_than: float) -> int:
    """Delete inputs and outputs last written before ``older_than`` (seconds since 1970), and folders left empty."""
    deleted = 0
    for kind in ("input", "output"):
        for path in sorted((directory / kind).rglob("*"), reverse=True):
            with contextlib.suppress(OSError):  # in use, not empty, or gone meanwhile
                if path.lstat().st_mtime >= older_than:
                    continue  # an empty folder, too: somebody is about to write into it
                if path.is_dir() and not path.is_symlink():
                    path.rmdir()
                else:
                    path.unlink()
                    deleted += 1
    return deleted


def is_ours(body: bytes, directory: Path) -> bool:
    """Whether an answer of /system_stats is that of the instance with this directory, not of one that took its port."""
    try:
        argv = json.loads(body)["system"]["argv"]
        return str(directory / "user") in argv
    except (ValueError, KeyError, TypeError):
        return False


# ----------------------------------------------------------------------------------------------------------- its process


def parental_signal(number: int) -> Callable[[], None]:
    """What a process calls to have the kernel send it a signal when the thread that started it ends. Linux only."""
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def die_with_parent(parent: int) -> Callable[[], None]:
    """For between fork and exec: the child is not to outlive us, and hears what only we wait for."""
    ask = parental_signal(signal.SIGKILL)

    def between() -> None:
        ask()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)
        if os.getppid() != parent:  # it died before the kernel was asked
            os._exit(1)

    return between


@dataclass(slots=True)
class Instance:
    """A ComfyUI that was started, and its process group."""

    process: subprocess.Popen[bytes]
    _lock: threading.Lock
    _reaped: bool = False

    @classmethod
    def start(cls, command: Sequence[str], checkout: Path, environment: Mapping[str, str]) -> Instance:
        """Start it, in a process group of its own. Call it before there are threads. Raises OSError."""
        process = subprocess.Popen(  # noqa: S603 - what the operator named
            command,
            cwd=checkout,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent(os.getpid()),  # noqa: PLW1509 - there are no threads yet
        )
        return cls(process, threading.Lock())

    def signal(self, number: int) -> None:
        """Send it and all that it started a signal, unless it has ended."""
        with self._lock:
            if not self._reaped:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.process.pid, number)

    def wait(self) -> int:
        """Its exit status, negative for a signal; nothing of its group is left then."""
        if hasattr(os, "waitid"):
            # Seen dead and not yet buried: until then nobody else can be given its number.
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        else:
            self.process.wait()
        self.signal(signal.SIGKILL)
        with self._lock:
            self._reaped = True
            return self.process.wait()


class Launch:
    """One life of one ComfyUI."""

    def __init__(self, instance: Instance, directory: Path, port: int, log: RotatedLog) -> None:
        self._instance = instance
        self._directory = directory
        self._port = port
        self._log = log
        #: Somebody wants it to end.
        self._told = threading.Event()
        self._ended = threading.Event()

    def run(self) -> int:
        """Look after it until it has ended; its exit status, 0 where it was told to end."""
        saying = threading.Thread(target=self._keep_log, name="log", daemon=True)
        saying.start()
        for work in (
            self._end_with_stdin,
            self._end_with_signal,
            self._end_when_told,
            self._tell_when_ready,
            self._sweep,
        ):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()
        status = self._instance.wait()
        self._ended.set()
        saying.join(1.0)  # a process that left the group may keep the other end open
        shutil.rmtree(self._directory / "temp", ignore_errors=True)
        if self._told.is_set():
            return 0
        sys.stderr.write(self._log.tail())
        sys.stderr.flush()
        return status

    def _keep_log(self) -> None:
        pipe = self._instance.process.stdout
        while pipe is not None and (said := os.read(pipe.fileno(), CHUNK_BYTES)):
            with contextlib.suppress(OSError):  # a full disk must not stop it: it would block on its next word
                self._log.write(said)

    def _end_with_stdin(self) -> None:
        while os.read(0, 4096):
            pass
        self._told.set()

    def _end_with_signal(self) -> None:
        signal.sigwait(ENDINGS)
        self._told.set()

    def _end_when_told(self) -> None:
        self._told.wait()
        self._instance.signal(signal.SIGTERM)
        if not self._ended.wait(END_SECONDS):
            self._instance.signal(signal.SIGKILL)

    def _tell_when_ready(self) -> None:
        while not self._answers():
            if self._ended.wait(ASK_SECONDS):
                return
        sys.stdout.write(json.dumps({"port": self._port, "pid": self._instance.process.pid}) + "\n")
        sys.stdout.flush()

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=ANSWER_SECONDS)
        try:
            connection.request(
                "GET", "/system_stats", headers={"Authorization": f"Bearer {os.environ.get(TOKEN_VARIABLE, '')}"}
            )
            answer = connection.getresponse()
            return answer.status == HTTP_OK and is_ours(answer.read(CHUNK_BYTES), self._directory)
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _sweep(self) -> None:
        while True:
            sweep(self._directory, time.time() - KEEP_HOURS * 3600)
            if self._ended.wait(SWEEP_SECONDS):
                return


def end_as(status: int) -> None:
    """End this process as the other one ended: who waits for us is to see how."""
    if status < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(-status, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-status})
        os.kill(os.getpid(), -status)
    # Not sys.exit: a thread sits in a read that nothing ends.
    os._exit(status)


# ------------------------------------------------------------------------------------------------------------ the program


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m gateway.upstreams.launcher", description="Runs one ComfyUI.")
    parser.add_argument("--python", type=Path, required=True, help="interpreter with ComfyUI's requirements")
    parser.add_argument("--checkout", type=Path, required=True, help="the folder with main.py")
    parser.add_argument("--device", required=True, help="index or UUID of a GPU, or cpu")
    parser.add_argument("--max-upload-mib", type=int, default=100, help="largest request body")
    parser.add_argument("--argument", action="append", default=[], help="another argument for ComfyUI")
    parser.add_argument("--directory", type=Path, required=True, help="its files; made if missing")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a ComfyUI until it ends or is to end; ends this process."""
    options = parse_arguments(arguments)
    os.umask(0o077)  # what is uploaded and made there is nobody else's on this machine
    directory = options.directory.resolve()
    # No SIG_IGN for the terminal's Ctrl-C, which the child would inherit: the gateway gets it too, and says when.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
    # Beside the end of stdin, which needs a pipe that no other child of the gateway's has.
    parental_signal(signal.SIGTERM)()
    try:
        for kind in ("user", "input", "output"):
            (directory / kind).mkdir(mode=0o700, parents=True, exist_ok=True)
        port = _free_port()
        log = RotatedLog(directory / LOG)
        command = [str(options.python), str(options.checkout / "main.py")]
        command += comfyui_arguments(directory, options.device, port, options.max_upload_mib, options.argument)
        log.write(f"\n--- {time.strftime('%Y-%m-%dT%H:%M:%S%z')} on port {port}\n".encode())
        instance = Instance.start(command, options.checkout, environment_for(options.device, os.environ))
    except OSError as error:
        sys.stderr.write(f"Cannot start: {error.strerror or type(error).__name__}.\n")
        os._exit(1)
    end_as(Launch(instance, directory, port, log).run())


def _free_port() -> int:
    """Free a moment ago: ComfyUI does not say which it took when it may choose. One that is taken meanwhile costs a start."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
