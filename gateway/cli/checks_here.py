"""What can be wrong on this machine: platform, packages, settings, data directory, database, port, clock."""

from __future__ import annotations

import importlib.util
import os
import platform
import socket
import sqlite3
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from gateway.blobs.dialing import resolve_overrides
from gateway.blobs.fetch import tls_context
from gateway.blobs.local import DEFAULT_FLOOR_BYTES, free_bytes
from gateway.cli.findings import Finding, fail, ok, warn
from gateway.cli.reaching import DATABASE, address_of_holder
from gateway.data_dir import StartError
from gateway.errors import InvalidInputError
from gateway.portability import Platform, lacks
from gateway.safety import UrlMode, UrlPolicy
from gateway.settings import Settings
from gateway.store import migrations

OLDEST_PYTHON = (3, 11)
#: Below this it runs, and one large video more may fill the disk.
TIGHT_BYTES = 4 * 1024**3
GIB = 1024**3
#: No clock of a machine that is set shows an earlier time: the year in which this was written had begun.
EARLIEST = datetime(2025, 1, 1, tzinfo=UTC).timestamp()
SLACK_SECONDS = 60.0
#: File systems on which SQLite's log beside the database is not safe. Source: SQLite, "Write-Ahead Logging", section 1.
NETWORK_DISKS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs"})
#: A database up to this size is read through; a larger one would take minutes.
READ_THROUGH_BYTES = 512 * 1024**2


# ---------------------------------------------------------------------------------------------------- machine, packages


def check_platform() -> Iterator[Finding]:
    """Python, system, what the system lacks."""
    found = platform.python_version()
    if sys.version_info < OLDEST_PYTHON:
        yield fail("python", f"Python {found} is too old", "install Python 3.11 or newer, and comfygate into it")
    else:
        yield ok("python", f"Python {found} on {platform.system()} {platform.machine()}")
    this = Platform(
        system=sys.platform,
        kernel=platform.release(),
        has_tcp_user_timeout=hasattr(socket, "TCP_USER_TIMEOUT"),
        has_uvloop=importlib.util.find_spec("uvloop") is not None,
    )
    sentences = lacks(this)
    for sentence in sentences:
        yield warn("platform", sentence, "nothing has to be done; Linux has it all")
    if not sentences:
        yield ok("platform", "the system has all that the gateway uses, TCP_USER_TIMEOUT and uvloop included")


def check_packages(settings: Settings) -> Iterator[Finding]:
    """Packages that are wanted for what the settings say."""
    if importlib.util.find_spec("av") is None:
        yield fail("packages", "PyAV is missing: no video can be read", "pip install 'av>=18.1,<19'")
    else:
        yield ok("packages", "PyAV is there: videos can be read")
    if importlib.util.find_spec("cv2") is not None:
        yield ok("packages", "OpenCV is there: embedded CPU workers can run")
    elif settings.embedded_worker_count:
        remedy = "pip install 'comfygate[embedded]', or set GATEWAY_UPSTREAMS to your ComfyUI instances"
        yield fail("packages", "OpenCV is missing: the embedded CPU worker cannot run", remedy)
    else:
        yield ok("packages", "OpenCV is not there; only embedded CPU workers would need it")


def check_clock(folder: Path) -> Iterator[Finding]:
    """Retention, deadlines and certificates go by it."""
    now = time.time()
    written = [path.stat().st_mtime for path in folder.glob(f"{DATABASE}*")]
    said = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    remedy = "set it, and let it be kept by NTP (timedatectl set-ntp true)"
    if now < EARLIEST:
        yield fail("clock", f"the clock says {said}", remedy)
    elif written and max(written) > now + SLACK_SECONDS:
        yield warn("clock", f"the clock says {said}, and the database was written later than that", remedy)
    else:
        yield ok("clock", said)


# -------------------------------------------------------------------------------------------------------------- settings


def check_addresses(settings: Settings) -> Iterator[Finding]:
    """What settings say of addresses and certificates, beyond what their own types can tell."""
    faults = []
    try:
        UrlPolicy.from_settings(UrlMode(settings.url_inputs), settings.url_allowlist, ())
    except InvalidInputError as error:
        faults.append(fail("settings", f"GATEWAY_{(error.field or '').upper()}: {error.message}", "mend that entry"))
    try:
        resolve_overrides(settings.resolve)
    except ValueError as error:
        faults.append(fail("settings", f"GATEWAY_RESOLVE: {error}", "give name=address pairs, separated by commas"))
    try:
        tls_context(settings.ca_file)
    except OSError:
        sentence = "GATEWAY_CA_FILE cannot be read or holds no certificate"
        faults.append(fail("settings", sentence, "name a PEM bundle that you may read"))
    if settings.tls_cert is not None and settings.tls_key is not None:
        from gateway.tls import server_context

        try:
            server_context(settings.tls_cert, settings.tls_key)
        except StartError as error:
            faults.append(fail("settings", str(error), "name the two PEM files that belong together"))
    yield from faults
    if not faults:
        yield ok("settings", "all settings are valid")


# -------------------------------------------------------------------------------------------------------- data directory


def check_data_dir(folder: Path) -> Iterator[Finding]:
    """There, ours alone, with room, on a disk of this machine; nothing is made or changed."""
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    remedy = "set GATEWAY_DATA_DIR to a folder you may write to"
    if not nearest.is_dir():
        yield fail("data", f"{nearest} is a file, and {folder} cannot be made below it", remedy)
        return
    if not os.access(nearest, os.W_OK | os.X_OK):
        yield fail("data", f"{nearest} may not be written to", remedy)
        return
    if nearest != folder.absolute():
        yield ok("data", f"{folder} is not there yet; the first start makes it")
    else:
        yield _rights(folder)
        holder = address_of_holder(folder)
        yield ok("data", f"the gateway at {holder} holds {folder}" if holder else f"no gateway holds {folder}")
    yield _room(nearest)
    if (kind := _disk_kind(nearest)) in NETWORK_DISKS:
        sentence = f"{folder} is on a network disk ({kind}), where SQLite cannot keep its promises"
        yield fail("data", sentence, "set GATEWAY_DATA_DIR to a disk of this machine")


def _rights(folder: Path) -> Finding:
    mode = stat.S_IMODE(folder.stat().st_mode)
    private = [path for path in (folder / "admin-token", folder / DATABASE) if path.exists()]
    open_files = [path.name for path in private if stat.S_IMODE(path.stat().st_mode) & 0o077]
    if open_files:
        names = ", ".join(open_files)
        return warn("data", f"others may read {names} in {folder}", f"chmod 600 them, and chmod 700 {folder}")
    if mode & 0o077:
        return warn("data", f"others may enter {folder} (mode {mode:o})", f"chmod 700 {folder}; the next start does it")
    return ok("data", f"{folder} is for its owner alone")


def _room(folder: Path) -> Finding:
    free = free_bytes(folder)
    said = f"{free / GIB:.1f} GiB are free"
    remedy = "make room, shorten GATEWAY_RESULT_RETENTION, or set GATEWAY_DATA_DIR to a larger disk"
    if free < DEFAULT_FLOOR_BYTES:
        return fail("disk", f"{said}: uploads are refused below {DEFAULT_FLOOR_BYTES // 1024**2} MiB", remedy)
    if free < TIGHT_BYTES:
        return warn("disk", said, remedy)
    return ok("disk", said)


def _disk_kind(folder: Path) -> str:
    """File system of a folder; "" where there is no such list (it is Linux's)."""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    mounts = [(Path(parts[1].replace("\\040", " ")), parts[2]) for line in lines if len(parts := line.split()) > 2]  # noqa: PLR2004 - device, place, kind
    real = folder.resolve()
    above = [(place, kind) for place, kind in mounts if real.is_relative_to(place)]
    return max(above, key=lambda mount: len(mount[0].parts))[1] if above else ""


def check_database(folder: Path) -> Iterator[Finding]:
    """It opens, is whole, and was not written by a newer gateway. Read only; a gateway may have it open."""
    path = folder / DATABASE
    if not path.exists():
        yield ok("database", "none yet; the first start makes it")
        return
    restore = f"restore a backup into an empty {folder}"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as connection:
            (version,) = connection.execute("SELECT version_num FROM alembic_version").fetchone() or ("",)
            size_bytes = path.stat().st_size
            whole = ["ok"]
            if size_bytes <= READ_THROUGH_BYTES:
                whole = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
    except (sqlite3.Error, OSError) as error:
        remedy = f"see to its rights (chmod 600 {path}); if it is damaged, {restore}"
        yield fail("database", f"{path} cannot be read ({error})", remedy)
        return
    if version not in migrations.known():
        remedy = f"start that version, or {restore} made by this one"
        yield fail("database", f"a newer gateway wrote it (schema {version})", remedy)
    elif whole != ["ok"]:
        yield fail("database", f"it is damaged ({whole[0]})", restore)
    else:
        later = "" if version == migrations.newest() else "; the next start brings its tables up to date"
        yield ok("database", f"schema {version}, {size_bytes / 1024**2:.1f} MiB{later}")


def check_port(settings: Settings) -> Iterator[Finding]:
    """It can be listened on, or our own gateway does already."""
    from gateway.serving import listen

    where = f"{settings.host}:{settings.port}"
    holder = address_of_holder(settings.data_dir)
    if holder is not None and urlsplit(holder).port == settings.port:
        yield ok("port", f"this data directory's gateway listens on {where}")
        return
    try:
        listen(settings.host, settings.port).close()
    except StartError as error:
        sentence, _, remedy = str(error).partition(": ")
        yield fail("port", sentence, remedy)
    else:
        yield ok("port", f"{where} is free")
