"""What can be wrong with the safety check: its package, its model and card, its service."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from PIL import Image

from gateway.blobs.fetch import tls_context
from gateway.cli.findings import Finding, fail, ok, warn
from gateway.data_dir import StartError
from gateway.interfaces import SafetyCheck
from gateway.safety_builder import safety_check
from gateway.screening import CheckFailedError, Opinion
from gateway.settings import Settings

_SUBJECT = "safety"
_SIDE = 64


async def check_safety(settings: Settings) -> AsyncIterator[Finding]:
    """Whether anything is looked at, and by whom: the check is made as at a start, and shown a grey picture."""
    if settings.safety_policy == "off":
        configured = settings.safety_model or settings.safety_url
        said = "nothing that is sent in is looked at"
        yield (
            warn(_SUBJECT, f"{said}: GATEWAY_SAFETY is off", "take GATEWAY_SAFETY away, and what is flagged is refused")
            if configured
            else ok(_SUBJECT, f"{said}; docs/safety.md tells how it would be")
        )
        return
    try:
        check = await asyncio.to_thread(lambda: safety_check(settings, tls_context(settings.ca_file)))
    except StartError as error:
        yield fail(_SUBJECT, str(error), "mend the model or its card as docs/safety.md tells")
        return
    except OSError:
        return  # of GATEWAY_CA_FILE, which has a finding of its own
    if check is None:
        return
    try:
        yield await _try(check, settings)
    finally:
        await check.close()


async def _try(check: SafetyCheck, settings: Settings) -> Finding:
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "grey.png"
        await asyncio.to_thread(Image.new("RGB", (_SIDE, _SIDE), (128, 128, 128)).save, picture)
        try:
            told = await check.look(picture, reference="doctor-0")
        except CheckFailedError as error:
            return fail(_SUBJECT, f"the check does not work ({error}): every job is refused", "see to it")
    said = f"score {told.score:.2f}" if isinstance(told, Opinion) else "that it has not made up its mind"
    return ok(_SUBJECT, f"policy {settings.safety_policy}; the {check.name} was shown a grey picture and said: {said}")
