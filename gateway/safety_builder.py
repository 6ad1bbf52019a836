"""Makes the safety check that the settings name; beside ``main.py`` the one place that knows the concrete classes."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from gateway.data_dir import StartError
from gateway.engine.screening import Screening
from gateway.interfaces import Blobs, Media, SafetyCheck
from gateway.moderation.service import ServiceCheck
from gateway.screening import Policy, Rules
from gateway.settings import Settings

log = structlog.get_logger(__name__)


async def open_screening(
    stack: AsyncExitStack, settings: Settings, tls: ssl.SSLContext, media: Media, blobs: Blobs, scratch: Path
) -> Screening:
    """What looks at inputs, and a line in the log that says whether anything does. Raises StartError."""
    check = await asyncio.to_thread(safety_check, settings, tls)
    if check is not None:
        stack.push_async_callback(check.close)
    rules = Rules(Policy(settings.safety_policy), settings.safety_threshold, settings.safety_frames)
    screening = Screening(check, rules, media, blobs, scratch)
    state = screening.state()
    log.info("safety", policy=state.policy.value, check=state.check or "none: nothing that is sent in is looked at")
    return screening


def safety_check(settings: Settings, tls: ssl.SSLContext) -> SafetyCheck | None:
    """The check, ready; None where nothing is looked at. Blocks for as long as loading a model takes.

    Raises:
        StartError: a model cannot be used; with the sentence for the operator.
    """
    if settings.safety_policy == "off":
        return None
    if settings.safety_model is not None:
        from gateway.moderation.model import ModelCheck, ModelError

        try:
            return ModelCheck.open(settings.safety_model, timeout_seconds=settings.safety_timeout)
        except ModelError as error:
            raise StartError(f"GATEWAY_SAFETY_MODEL={settings.safety_model} cannot be used. {error}") from error
    if settings.safety_url is None:
        raise StartError("GATEWAY_SAFETY has nobody who checks: set GATEWAY_SAFETY_MODEL or GATEWAY_SAFETY_URL.")
    token = settings.safety_token.get_secret_value() if settings.safety_token else None
    return ServiceCheck(settings.safety_url, token=token, tls=tls, timeout_seconds=settings.safety_timeout)
