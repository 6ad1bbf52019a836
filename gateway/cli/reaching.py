"""Which gateway a command means: the one at ``--url``; else the one that holds the data directory; else the directory.

The address that a gateway left is believed only while something holds the directory: then its writer is alive, and the
port is its own. So the admin token is never sent to whoever came after it.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from gateway.cli.client import ClientError, GatewayClient
from gateway.cli.configuration import read_settings
from gateway.data_dir import DataDirHeldError, StartError, hold_data_dir, prepare_data_dir, read_address
from gateway.settings import Settings

DEFAULT_URL = "http://127.0.0.1:8000"
DATABASE = "gateway.db"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def client_for(url: str | None, token: str | None, data_dir: Path | None = None) -> GatewayClient:
    """A client of a running gateway: at ``url``, else at the address left in the data directory, else at port 8000."""
    if url:
        return GatewayClient(url, token or _token_for(url, data_dir))
    settings = read_settings({"data_dir": data_dir})
    address = address_of_holder(settings.data_dir)
    if address is None:
        return GatewayClient(DEFAULT_URL, token)  # whoever listens there is not the one whose token lies here
    return _client_at(address, token or own_token(settings))


@dataclass(frozen=True, slots=True)
class Held:
    """A data directory that this process holds."""

    folder: Path


@contextmanager
def gateway_or_directory(
    url: str | None, token: str | None, data_dir: Path | None, *, may_make: bool = False
) -> Iterator[GatewayClient | Held]:
    """A client of a running gateway, or the data directory, held, when none is running.

    Args:
        url: of the gateway that is meant; None: the one of the data directory.
        token: Bearer token; None: this machine's.
        data_dir: the directory; None: that of the settings.
        may_make: a directory in which no gateway ever was will do.

    Raises:
        ClientError: there is neither.
        StartError: the settings or the directory cannot be used.
    """
    if url:
        yield client_for(url, token, data_dir)
        return
    settings = read_settings({"data_dir": data_dir})
    folder = settings.data_dir
    if not may_make and not (folder / DATABASE).is_file():
        raise ClientError(
            f"There is no gateway's data in {folder}: name the folder with --data-dir, or a running gateway with --url."
        )
    folder = prepare_data_dir(folder)
    holding = hold_data_dir(folder)
    try:
        holding.__enter__()
    except DataDirHeldError as error:
        address = read_address(folder)
        if address is None:
            raise ClientError(
                f"Something else is at work in {folder}, or a gateway is just starting there: try again in a moment."
            ) from error
        yield _client_at(address, token or own_token(settings))
        return
    try:
        yield Held(folder)
    finally:
        holding.__exit__(None, None, None)


def address_of_holder(folder: Path) -> str | None:
    """Where the gateway that holds a data directory is; None when none does."""
    if not (folder / "lock").is_file():
        return None
    try:
        with hold_data_dir(folder):
            return None
    except DataDirHeldError:
        return read_address(folder)


def own_token(settings: Settings) -> str | None:
    """The admin token of this machine's gateway: the setting, else the file in the data directory."""
    if settings.admin_token is not None:
        return settings.admin_token.get_secret_value()
    try:
        return (settings.data_dir / "admin-token").read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _token_for(url: str, data_dir: Path | None) -> str | None:
    """The admin token that lies here, where it is the gateway of this machine that was named; a stranger is sent none."""
    try:
        settings = read_settings({"data_dir": data_dir})
        address = address_of_holder(settings.data_dir)
    except StartError:
        return None  # what is wrong with a gateway here is nothing to one elsewhere
    is_own = address is not None and _place(address) is not None and _place(address) == _place(url)
    return own_token(settings) if is_own else None


def _place(url: str) -> tuple[str, str, int | None] | None:
    """Scheme, host and port; one host for all names of this machine. None where it cannot be read."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    return parts.scheme, "localhost" if host in LOOPBACK else host, port


def _client_at(address: str, token: str | None) -> GatewayClient:
    return GatewayClient(address, token, verify=_no_names() if address.startswith("https:") else True)


def _no_names() -> ssl.SSLContext:
    """For a gateway of this machine that shows a certificate: it names the public host, and not this address."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
