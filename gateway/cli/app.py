"""The commands and their flags; what they do is in the modules beside."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import cyclopts

from gateway import logs
from gateway.cli import accounts, consents, deliveries, operating, webhooks
from gateway.cli.client import ClientError
from gateway.cli.configuration import read_settings
from gateway.cli.loading import loading
from gateway.cli.operating import DataDir, Token, Url
from gateway.data_dir import StartError

app = cyclopts.App(
    name="comfygate",
    help="A gateway that makes a pool of ComfyUI instances one dependable service.",
    version=lambda: version("comfygate"),
)
upstreams = cyclopts.App(name="upstreams", help="The pool of a running gateway.")
app.command(upstreams)
templates = cyclopts.App(name="templates", help="Workflow templates; needs no gateway.")
app.command(templates)
nodes = cyclopts.App(name="nodes", help="The node pack that comes with the gateway; needs no gateway.")
app.command(nodes)

#: What a shell sees of a program that a closed pipe ended: 128 + SIGPIPE.
CLOSED_PIPE_STATUS = 141


@app.command
def serve(
    *,
    host: str | None = None,
    port: int | None = None,
    upstreams: str | None = None,
    embedded_workers: int | None = None,
    data_dir: Path | None = None,
    auth: str | None = None,
    log_level: str | None = None,
    wait: bool = True,
) -> None:
    """Run a gateway until it is told to stop. Every setting can also be an environment variable: 'comfygate config' lists them.

    The exit status is 75 when another gateway has taken over.

    Args:
        host: address to listen on, 127.0.0.1 unless set.
        port: port to listen on, 8000 unless set; 0 takes a free one.
        upstreams: comma-separated base URLs of ComfyUI instances.
        embedded_workers: CPU workers to start; 1 unless set where there are no upstreams.
        data_dir: where everything is kept; ./data unless set.
        auth: open (one owner, loopback only) or keys.
        log_level: debug, info, warning or error.
        wait: for another gateway on the data directory to end; else be refused.
    """
    with loading():
        from gateway import serving

    settings = read_settings(
        {
            "host": host,
            "port": port,
            "upstreams": upstreams,
            "embedded_workers": embedded_workers,
            "data_dir": data_dir,
            "auth": auth,
            "log_level": log_level,
        }
    )
    logs.configure(settings.log_level, settings.log_format)

    def tell(gateway: Any, url: str) -> None:
        print(f"comfygate listens on {url}", flush=True)
        if gateway.token_is_new and settings.auth == "keys":
            print(f"Admin token (shown once, kept in the data directory): {gateway.admin_token}", flush=True)

    if status := serving.run(settings, on_ready=tell, waits=wait):
        raise SystemExit(status)


@app.command
def demo(
    *,
    once: Annotated[bool, cyclopts.Parameter(negative=())] = False,
    port: int = 8000,
    directory: Path = Path("comfygate-demo"),
) -> None:
    """Swap a face in a short clip on the embedded CPU worker, through the HTTP API, and leave the server up.

    Args:
        once: exit when the swap is done.
        port: port to listen on.
        directory: where its files and data are kept; made if need be.
    """
    from gateway.cli import demo as demonstration

    logs.configure("warning", "text")
    demonstration.run(directory, port, once=once)


@app.command
def submit(
    target: Path,
    face: Path,
    *,
    output: Annotated[Path | None, cyclopts.Parameter(name=["--output", "-o"])] = None,
    consent: Annotated[bool, cyclopts.Parameter(negative=())] = False,
    url: Url = None,
    token: Token = None,
    data_dir: DataDir = None,
) -> None:
    """Put the face of a photo into a video or picture, with a progress bar, and save the result.

    Args:
        target: the video or picture that receives the face.
        face: a photo of the face.
        output: where to save the result; by default its own name in the current folder.
        consent: say that the people in the pictures agreed.
        url: base URL of the gateway.
        token: Bearer token for a gateway in keys mode.
        data_dir: data directory of this machine's gateway.
    """
    from gateway.cli.reaching import client_for
    from gateway.cli.submitting import submit_files

    saved = asyncio.run(submit_files(client_for(url, token, data_dir), target, face, output, consent=consent))
    print(f"Saved {saved}")


@app.command
def jobs(
    *,
    state: str | None = None,
    limit: int = 20,
    url: Url = None,
    token: Token = None,
    data_dir: DataDir = None,
) -> None:
    """List your jobs, newest first.

    Args:
        state: only those in it: queued, dispatched, running, succeeded, failed or canceled.
        limit: how many at most.
        url: base URL of the gateway.
        token: Bearer token.
        data_dir: data directory of this machine's gateway.
    """
    from gateway.cli.listing import show_jobs
    from gateway.cli.reaching import client_for

    query = {"limit": str(limit)} | ({"state": state} if state else {})
    show_jobs(asyncio.run(client_for(url, token, data_dir).get("/-/jobs", query)))


@upstreams.default
def list_upstreams(*, url: Url = None, token: Token = None, data_dir: DataDir = None) -> None:
    """Show the pool: who is there, who works, what is wrong."""
    from gateway.cli.listing import show_upstreams
    from gateway.cli.reaching import client_for

    show_upstreams(asyncio.run(client_for(url, token, data_dir).get("/-/upstreams")))


@upstreams.command
def add(
    address: str, *, name: str | None = None, url: Url = None, token: Token = None, data_dir: DataDir = None
) -> None:
    """Take a ComfyUI into the pool; remembered across restarts.

    Args:
        address: its base URL; or the name of a process of the gateway's own that was removed, such as embedded-1.
        name: what to call it.
        url: base URL of the gateway.
        token: admin token.
        data_dir: data directory of this machine's gateway.
    """
    from gateway.cli.reaching import client_for

    body = {"url": address} | ({"name": name} if name else {})
    added = asyncio.run(client_for(url, token, data_dir).admin("POST", "/-/upstreams", body))
    print(f"Added {added['name']}")


@upstreams.command
def remove(name: str, *, url: Url = None, token: Token = None, data_dir: DataDir = None) -> None:
    """Let an idle upstream go; remembered across restarts."""
    from gateway.cli.reaching import client_for

    asyncio.run(client_for(url, token, data_dir).admin("DELETE", f"/-/upstreams/{name}"))
    print(f"Removed {name}")


@upstreams.command
def drain(name: str, *, url: Url = None, token: Token = None, data_dir: DataDir = None) -> None:
    """Give an upstream no new work; what runs there runs to its end."""
    from gateway.cli.reaching import client_for

    asyncio.run(client_for(url, token, data_dir).admin("POST", f"/-/upstreams/{name}/drain"))
    print(f"Draining {name}")


@upstreams.command
def resume(name: str, *, url: Url = None, token: Token = None, data_dir: DataDir = None) -> None:
    """Give a drained upstream work again."""
    from gateway.cli.reaching import client_for

    asyncio.run(client_for(url, token, data_dir).admin("POST", f"/-/upstreams/{name}/resume"))
    print(f"Resumed {name}")


@upstreams.command
def restart(name: str, *, url: Url = None, token: Token = None, data_dir: DataDir = None) -> None:
    """Restart a process of the gateway's own, a ComfyUI or a worker, when what runs there has ended; waits for it."""
    from gateway.cli.reaching import client_for
    from gateway.cli.restarting import restart as restart_process

    asyncio.run(restart_process(client_for(url, token, data_dir), name, print))


@templates.command
def check(*, upstream: Annotated[list[str] | None, cyclopts.Parameter(negative=())] = None) -> None:
    """Show what each template needs and which upstream lacks what; exit with 1 when anything is wrong.

    Args:
        upstream: base URL of a ComfyUI to check against, may be given again; by default those of GATEWAY_UPSTREAMS.
    """
    from gateway.cli import templates as checking

    if not checking.check(read_settings({}), upstream or ()):
        raise SystemExit(1)


@templates.command
def init(directory: Path) -> None:
    """Copy the templates that come with the gateway, to be edited.

    Args:
        directory: where to; made if need be. Nothing there is overwritten.
    """
    from gateway.cli.templates import copy_shipped

    names = copy_shipped(directory)
    print(f"Copied {', '.join(names)} to {directory}")
    print(f"Next: set GATEWAY_WORKFLOWS_DIR={directory.resolve()} and start the gateway; edits are live within 2 s.")


@nodes.command
def install(comfyui_directory: Path) -> None:
    """Copy the node pack into a ComfyUI on this machine, or bring an earlier copy up to date.

    Args:
        comfyui_directory: the folder that has ComfyUI's main.py.
    """
    from gateway.cli import nodes as packing

    done, place = packing.install(comfyui_directory)
    print(f"{done}: {place}")
    if done is not packing.Done.UNCHANGED:
        print("Next: restart that ComfyUI. Its Python needs OpenCV 4: pip install 'opencv-python-headless>=4.14,<5'")


operating.register(app)
accounts.register(app)
webhooks.register(app)
deliveries.register(app)
consents.register(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """The ``comfygate`` command."""
    try:
        try:
            app(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has seen enough, as ``head`` has. What is left in the buffer must not fail once more at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(CLOSED_PIPE_STATUS) from None
    except (StartError, ClientError) as error:
        print(f"comfygate: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
