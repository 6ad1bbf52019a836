"""A gateway over https with two workers, and a server over https that has source and target, for the v1 API.

Both have certificates of an authority that is made here; it is trusted by the usual variables and settings, and checks are
on everywhere. Clients carry a key that the command line made.
"""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import trustme
from PIL import Image

from tests.tools.file_server import FileServer, serving
from tests.tools.gateway_process import GatewayProcess
from tests.tools.waiting import PATIENCE_SECONDS

#: What the user of the key begins with.
CREDITS = 10_000
MEDIA_HOST = "media.example.com"


@dataclass(frozen=True)
class House:
    """A gateway over https, the server with the media, and a client that trusts both."""

    gateway: GatewayProcess
    media: FileServer
    authority: Path
    folder: Path
    key: str

    @property
    def base(self) -> str:
        return f"https://localhost:{self.gateway.port}"

    def url(self, name: str) -> str:
        return f"{self.media.url}/{name}"

    def client(self, key: str | None = None) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {key or self.key}"}
        trusted = ssl.create_default_context(cafile=self.authority)
        return httpx.AsyncClient(
            base_url=self.base, headers=headers, verify=trusted, trust_env=False, timeout=PATIENCE_SECONDS
        )

    def hosted(self, sample: str) -> str:
        """A sample with our hosts in the place of the document's."""
        return sample.replace("HERE", self.base.partition("//")[2]).replace("MEDIA", self.media.url.partition("//")[2])

    def run(self, *words: str, given: str | None = None) -> str:
        """What a command prints that knows the key and trusts the authority by its usual variables, and nothing else."""
        trusting = dict.fromkeys(("CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE"), str(self.authority))
        environment = {
            **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
            **trusting,
            "AIFACESWAP_API_KEY": self.key,
            "PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}",
        }
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def opened(folder: Path, *, face: Path, target: Path, others: Mapping[str, Path], first: str = "") -> Iterator[House]:
    """One in a folder of its own, for as long as the context lasts.

    Args:
        folder: empty.
        face: what is served as face.jpg.
        target: what is served as target.jpg.
        others: what else is served, by name.
        first: as of ``GatewayProcess``.
    """
    authority, here = trustme.CA(), folder / "media"
    here.mkdir()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    own, theirs = authority.issue_cert("localhost"), authority.issue_cert(MEDIA_HOST)
    own.cert_chain_pems[0].write_to_path(folder / "own.pem")
    own.private_key_pem.write_to_path(folder / "own.key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.configure_cert(context)
    for name, source in (("face.jpg", face), ("target.jpg", target)):
        Image.open(source).convert("RGB").save(here / name, quality=95)
    for name, source in others.items():
        shutil.copyfile(source, here / name)
    _put_uuidgen(folder)
    settings = {
        "AUTH": "keys",
        "TLS_CERT": str(folder / "own.pem"),
        "TLS_KEY": str(folder / "own.key"),
        "CA_FILE": str(folder / "ca.pem"),
        "RESOLVE": f"{MEDIA_HOST}=127.0.0.1",
        "URL_ALLOWLIST": "127.0.0.1/32",
    }
    gateway = GatewayProcess(folder / "gateway", settings, workers=2, first=first)
    with serving(here, tls=context, name=MEDIA_HOST) as media:
        try:
            gateway.start(wait_for_workers=False)
            yield House(gateway, media, folder / "ca.pem", folder, make_key(gateway, folder, "tester", CREDITS))
        finally:
            gateway.end()


def _put_uuidgen(folder: Path) -> None:
    """Not every machine has it."""
    shim = folder / "uuidgen"
    shim.write_text(f"#!{sys.executable}\nimport uuid\nprint(uuid.uuid4())\n")
    shim.chmod(0o755)


def make_key(gateway: GatewayProcess, folder: Path, name: str, amount: int) -> str:
    """As an operator makes it on the machine of the gateway; printed alone on the last line."""
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "comfygate"),
            "keys",
            "create",
            *("--name", name, "--rate", "100000", "--concurrency", "100", "--credits", str(amount)),
        ],
        cwd=folder,
        env={**os.environ, "GATEWAY_DATA_DIR": str(gateway.data_dir), "GATEWAY_CA_FILE": str(folder / "ca.pem")},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=True,
    )
    return done.stdout.splitlines()[-1]
