"""nginx and Caddy as children on loopback, with the configurations that ``docs/deploy.md`` tells people to use.

What differs from the page is what differs from machine to machine: host, certificate, ports, limits on size (so that a
test need not send a gigabyte) and where logs go. Each such place must be found, else the page has changed and the test
says so. nginx's outermost file, which a distribution brings, is our own here.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.tools.gateway_process import free_port
from tests.tools.waiting import PATIENCE_SECONDS, wait_until_now

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "deploy.md"
CERTIFICATES = ROOT / "tests" / "unit" / "blobs" / "tls"
#: The name in the test's certificate, and that of the page.
HOST, HOST_ON_PAGE = "files.example.com", "faces.example.org"
PREFIX_ON_PAGE = "/swap"
#: What the proxy lets through: a mebibyte over what the gateway of the tests takes.
LARGEST_BODY_MIB = 41

_NGINX_AROUND = """
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log info;
events {}
http {
    client_body_temp_path body;
    proxy_temp_path proxied;
    fastcgi_temp_path unused1;
    uwsgi_temp_path unused2;
    scgi_temp_path unused3;
    include comfygate.conf;
}
"""
_CADDY_GLOBALS = "{\n\tadmin off\n\tauto_https off\n"


@dataclass(frozen=True)
class Front:
    """A proxy that runs."""

    folder: Path
    port: int
    prefix: str

    @property
    def origin(self) -> str:
        return f"https://{HOST}:{self.port}"

    @property
    def public_url(self) -> str:
        return self.origin + self.prefix

    def client(self, local_address: str = "127.0.0.2") -> httpx.AsyncClient:
        """A client that takes the proxy for the host of its certificate, and comes from an address of its own."""
        return named_client(self.public_url, self.port, local_address)

    def socket_options(self, local_address: str = "127.0.0.2") -> dict[str, Any]:
        """For ``websockets.connect`` to a URL of the public host."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "ssl": trusting(),
            "local_addr": (local_address, 0),
            "proxy": None,
        }


def trusting() -> ssl.SSLContext:
    """TLS that believes the test's authority, and checks the name."""
    return ssl.create_default_context(cafile=CERTIFICATES / "ca.pem")


def named_client(base_url: str, port: int, local_address: str) -> httpx.AsyncClient:
    """A client that dials loopback and asks for ``HOST``, whose certificate it checks."""

    async def name(request: httpx.Request) -> None:
        request.headers["Host"] = f"{HOST}:{port}"
        request.extensions["sni_hostname"] = HOST

    return httpx.AsyncClient(
        base_url=base_url.replace(HOST, "127.0.0.1"),
        transport=httpx.AsyncHTTPTransport(verify=trusting(), local_address=local_address),
        timeout=PATIENCE_SECONDS,
        event_hooks={"request": [name]},
    )


def blocks(language: str) -> list[str]:
    """The code of the page in this language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def replace(text: str, pattern: str, by: str) -> str:
    """Replace what must be there, once or more."""
    changed, count = re.subn(pattern, lambda _: by, text)
    assert count, f"the page does not hold {pattern!r} any more"
    return changed


def nginx_configuration(folder: Path, *, port: int, gateway_port: int, prefix: str) -> str:
    root, under_path = blocks("nginx")
    text = root
    if prefix:
        text = replace(text, r"    location / \{\n.*\n    \}\n", replace(under_path, PREFIX_ON_PAGE, prefix))
    text = replace(text, re.escape(HOST_ON_PAGE), HOST)
    text = replace(text, "listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    text = replace(text, r"server 127\.0\.0\.1:8000", f"server 127.0.0.1:{gateway_port}")
    text = replace(text, r"/etc/ssl/comfygate/fullchain\.pem", str(folder / "server.pem"))
    text = replace(text, r"/etc/ssl/comfygate/privkey\.pem", str(folder / "server.key"))
    text = replace(text, r"/var/log/nginx/comfygate\.log", str(folder / "access.log"))
    return replace(text, "client_max_body_size 1101m", f"client_max_body_size {LARGEST_BODY_MIB}m")


def caddy_configuration(folder: Path, *, port: int, gateway_port: int, prefix: str) -> str:
    [text] = blocks("caddy")
    if prefix:
        assert f"`handle_path {PREFIX_ON_PAGE}/* {{`" in PAGE.read_text(encoding="utf-8")
        text = replace(text, r"handle \{", f"handle_path {prefix}/* {{")
    text = replace(text, r"\A\{\n", _CADDY_GLOBALS)
    certificate = f"\tbind 127.0.0.1\n\ttls {folder / 'server.pem'} {folder / 'server.key'}\n"
    text = replace(text, rf"https://{re.escape(HOST_ON_PAGE)} \{{\n", f"https://{HOST}:{port} {{\n{certificate}")
    return replace(text, r"127\.0\.0\.1:8000", f"127.0.0.1:{gateway_port}")


def find(name: str) -> str | None:
    """Where the program is; Debian keeps nginx where users do not look."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


@contextmanager
def nginx(*, port: int, gateway_port: int, prefix: str = "", patch: tuple[str, str] = ("", "")) -> Iterator[Front]:
    """nginx in front of a gateway. ``patch``: (text, what to put in its place), for what must then go wrong."""
    with _folder() as folder:
        text = nginx_configuration(folder, port=port, gateway_port=gateway_port, prefix=prefix)
        if patch[0]:
            text = replace(text, re.escape(patch[0]), patch[1])
        (folder / "comfygate.conf").write_text(text)
        (folder / "nginx.conf").write_text(_NGINX_AROUND)
        command = [find("nginx") or "", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "error.log"]
        with _running(command, folder, port):
            yield Front(folder, port, prefix)


@contextmanager
def caddy(*, port: int, gateway_port: int, prefix: str = "") -> Iterator[Front]:
    """Caddy in front of a gateway."""
    with _folder() as folder:
        text = caddy_configuration(folder, port=port, gateway_port=gateway_port, prefix=prefix)
        (folder / "Caddyfile").write_text(text)
        command = [find("caddy") or "", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
        with _running(command, folder, port):
            yield Front(folder, port, prefix)


@contextmanager
def _folder() -> Iterator[Path]:
    """One that an unprivileged child can use: pytest's own are closed to other users."""
    with tempfile.TemporaryDirectory(prefix="comfygate-proxy-") as name:
        folder = Path(name)
        for file in ("server.pem", "server.key"):
            shutil.copyfile(CERTIFICATES / file, folder / file)
            (folder / file).chmod(0o644)
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody", "nogroup")
        yield folder


@contextmanager
def _running(command: list[str], folder: Path, port: int) -> Iterator[None]:
    unprivileged: dict[str, Any] = {}
    if os.geteuid() == 0:
        unprivileged = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    output = (folder / "output.txt").open("wb")
    with (
        output,
        subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **unprivileged
        ) as process,
    ):
        try:
            wait_until_now(lambda: _listens(process, folder, port), what=command[0])
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _listens(process: subprocess.Popen[bytes], folder: Path, port: int) -> bool:
    assert process.poll() is None, "\n".join(
        path.read_text() for path in (folder / "output.txt", folder / "error.log") if path.exists()
    )
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


__all__ = ["HOST", "Front", "caddy", "find", "free_port", "named_client", "nginx", "trusting"]
