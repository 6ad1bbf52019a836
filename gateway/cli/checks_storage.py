"""What can be wrong with object storage: its package, its credentials, the way there, the rights. A small object is written."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path

from gateway.blobs.claim import Claim
from gateway.cli.findings import Finding, Level, fail, ok, warn
from gateway.data_dir import StartError
from gateway.direct import ARRIVALS
from gateway.errors import StorageUnreachableError
from gateway.interfaces import Bucket
from gateway.object_url import ObjectUrl
from gateway.settings import Settings
from gateway.storage_builder import claim_of, open_bucket
from gateway.template import Template

_SUBJECT = "storage"
_DELIVERY = "delivery"
_BYTES = b"comfygate doctor"
#: Somebody sits there and waits.
GIVE_UP_SECONDS = 5.0
#: What is allowed by what, as Amazon calls it; others took the names over.
_RIGHTS = {
    "list": "s3:ListBucket on the bucket",
    "write": "s3:PutObject on the prefix",
    "read": "s3:GetObject on the prefix",
    "copy": "s3:GetObject and s3:PutObject on the prefix",
    "see unfinished uploads": "s3:ListBucketMultipartUploads on the bucket",
    "delete": "s3:DeleteObject on the prefix",
}


async def check_storage(settings: Settings) -> AsyncIterator[Finding]:
    """Whether what a gateway does with its bucket can be done; nothing where there is none."""
    place = settings.storage_place
    if place is None:
        return
    try:
        bucket = await _open(settings, place, "GATEWAY_STORAGE_URL")
    except StartError as error:
        sentence, _, remedy = str(error).partition(": ")
        yield fail(_SUBJECT, sentence, remedy)
        return
    try:
        yield await _try(bucket, claim_of(bucket, settings.data_dir))
    finally:
        await bucket.close()


async def _open(settings: Settings, place: ObjectUrl, setting: str) -> Bucket:
    return await open_bucket(place, setting=setting, ca_file=settings.ca_file, give_up_seconds=GIVE_UP_SECONDS)


async def check_targets(settings: Settings, templates: Sequence[Template]) -> AsyncIterator[Finding]:
    """Whether results can be put to each target, and whether those that templates name are there."""
    for name, place in settings.target_places.items():
        setting = f"GATEWAY_DELIVERY_TARGETS ({name})"
        try:
            bucket = await _open(settings, place, setting)
        except StartError as error:
            sentence, _, remedy = str(error).partition(": ")
            yield fail(_DELIVERY, sentence, remedy)
            continue
        try:
            found = await _try_target(bucket, name, setting)
            yield found
            if name in settings.delivery_direct and found.level is Level.OK:
                yield await _try_direct(bucket, name, setting)
        finally:
            await bucket.close()
    for template in templates:
        if template.deliver_to not in {None, *settings.target_places}:
            sentence = f"template {template.name} delivers to {template.deliver_to}, and there is no such target"
            yield fail(_DELIVERY, sentence, "name it in GATEWAY_DELIVERY_TARGETS, or mend deliver_to in template.toml")


async def _try_target(bucket: Bucket, name: str, setting: str) -> Finding:
    """A small object is put there and looked at, as with each delivery, and taken away; that it may be is not needed."""
    key = f"doctor/{secrets.token_hex(8)}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe"
        path.write_bytes(_BYTES)
        wrong = await _step("write", bucket.put(key, path), setting)
        left = None if wrong else await _step("delete", bucket.delete(key), setting)
    location = bucket.location("")
    if wrong:
        return fail(_DELIVERY, f"{name}, {location}: {wrong[0]}", wrong[1])
    more = f"; it may not delete, so {key} stays there" if left else ""
    return ok(_DELIVERY, f"{name}, {location} can be written to{more}")


async def _try_direct(bucket: Bucket, name: str, setting: str) -> Finding:
    """All that is done with what an upstream puts there; without a right of these its files are fetched, as ever."""
    arrival, key = f"{ARRIVALS}doctor/{secrets.token_hex(8)}", f"doctor/{secrets.token_hex(8)}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe"
        path.write_bytes(_BYTES)
        steps = (
            ("write", bucket.put(arrival, path)),
            ("copy", bucket.copy(arrival, key, content_type="text/plain", filename="doctor.txt", sha256="0" * 64)),
            ("read", _read(bucket, key)),
            ("list", _list(bucket)),
            ("delete", bucket.delete(key)),
            ("delete", bucket.delete(arrival)),
        )
        wrong = [found for step, work in steps if (found := await _step(step, work, setting)) is not None]
    if wrong:
        return warn(_DELIVERY, f"{name}: upstreams put nothing there themselves: {wrong[0][0]}", wrong[0][1])
    return ok(_DELIVERY, f"{name}: what upstreams put there can be copied to its place")


async def _try(bucket: Bucket, claim: Claim) -> Finding:
    key = f"doctor/{secrets.token_hex(8)}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe"
        path.write_bytes(_BYTES)
        wrong = await _first_wrong(bucket, key, path) or await _whose(claim)
    location = bucket.location("")
    if wrong is not None:
        return fail(_SUBJECT, f"{location}: {wrong[0]}", wrong[1])
    return ok(_SUBJECT, f"{location} can be written to, read, listed and deleted from")


async def _whose(claim: Claim) -> tuple[str, str] | None:
    try:
        await claim.look()
    except StorageUnreachableError as error:
        return (
            error.reason,
            "let GATEWAY_STORAGE_URL name another prefix; or see whether GATEWAY_DATA_DIR is the right one, and there",
        )
    return None


async def _first_wrong(bucket: Bucket, key: str, path: Path) -> tuple[str, str] | None:
    """(what is wrong, what to do) of the first step that fails; what was written is deleted all the same."""
    wrong = await _step("list", _list(bucket)) or await _step("write", bucket.put(key, path))
    if wrong is not None:
        return wrong
    wrong = await _step("read", _read(bucket, key)) or await _step(
        "see unfinished uploads", bucket.abort_unfinished(older_than=0.0, under="doctor/")
    )
    left = await _step("delete", bucket.delete(key))
    return wrong or left


async def _step(name: str, step: Awaitable[object], setting: str = "GATEWAY_STORAGE_URL") -> tuple[str, str] | None:
    """(what is wrong, what to do), or None."""
    try:
        await step
    except StorageUnreachableError as error:
        return f"it is not possible to {name} ({error.reason})", _remedy(name, error, setting)
    except FileNotFoundError:
        return f"it is not possible to {name} (nothing is there)", "see whether the bucket keeps what is written"
    return None


def _remedy(name: str, error: StorageUnreachableError, setting: str) -> str:
    if "SSLError" in error.reason:
        return (
            "see whether the endpoint speaks TLS; name the authority of its certificate in GATEWAY_CA_FILE, and the host "
            f"that stands in it in {setting}"
        )
    if not error.is_refusal:
        return f"see whether the endpoint in {setting} is right, runs, and can be reached from here"
    for said, remedy in (
        ("NoSuchBucket", f"make the bucket, or mend its name in {setting}"),
        ("SignatureDoesNotMatch", "mend AWS_SECRET_ACCESS_KEY; a region that is wrong does it too"),
        ("InvalidAccessKeyId", "mend AWS_ACCESS_KEY_ID"),
        ("RequestTimeTooSkewed", "set this machine's clock"),
        ("Redirect", f"name the region of the bucket in {setting}"),
    ):
        if said in error.reason:
            return remedy
    return f"allow {_RIGHTS[name]}; docs/storage.md lists all rights that are needed"


async def _list(bucket: Bucket) -> None:
    async for _ in bucket.listed("doctor/"):
        return


async def _read(bucket: Bucket, key: str) -> None:
    data = b"".join([chunk async for chunk in bucket.stream(key, 1, 5)])
    if data != _BYTES[1:5]:
        raise StorageUnreachableError("", reason="a range of it is not what was written", is_refusal=True)
