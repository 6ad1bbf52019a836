"""``comfygate doctor``: looks at all that can be wrong before or while a gateway runs, and says the remedy.

It changes nothing, and each check stands for itself: what one cannot find out stops none of the others.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from gateway.cli import checks_comfyui, checks_here, checks_pool, checks_safety, checks_storage
from gateway.cli.configuration import read_settings, unknown_names
from gateway.cli.findings import Finding, Level, fail, warn
from gateway.data_dir import StartError
from gateway.settings import Settings
from gateway.template import Template


async def examine(flags: Mapping[str, Any], environment: Mapping[str, str]) -> AsyncIterator[Finding]:
    """Findings in the order in which they matter. Without valid settings nothing else can be looked at."""
    for finding in checks_here.check_platform():
        yield finding
    for sentence in unknown_names(environment):
        yield warn("settings", sentence, "take it away, or spell it as docs/settings.md does")
    try:
        settings = read_settings(flags)
    except StartError as error:
        for line in str(error).splitlines():
            yield fail("settings", line, "mend it; comfygate config shows where each value comes from")
        return
    for check in (
        checks_here.check_addresses(settings),
        checks_here.check_packages(settings),
        checks_here.check_data_dir(settings.data_dir),
        checks_here.check_database(settings.data_dir),
        checks_here.check_clock(settings.data_dir),
        checks_here.check_port(settings),
    ):
        try:
            for finding in check:
                yield finding
        except (OSError, StartError) as error:
            reason = getattr(error, "strerror", None) or error
            yield fail(
                "data", f"{settings.data_dir} cannot be looked into ({reason})", "run this as the gateway's user"
            )
    async for finding in _examine_pool(settings):
        yield finding


async def _examine_pool(settings: Settings) -> AsyncIterator[Finding]:
    async for finding in checks_comfyui.check_comfyui(settings):
        yield finding
    found, templates = checks_pool.check_templates(settings)
    for finding in found:
        yield finding
    async for finding in _asked(settings, templates):
        yield finding


async def _asked(settings: Settings, templates: Sequence[Template]) -> AsyncIterator[Finding]:
    """What others have to be asked for."""
    async for finding in checks_storage.check_storage(settings):
        yield finding
    async for finding in checks_storage.check_targets(settings, templates):
        yield finding
    async for finding in checks_safety.check_safety(settings):
        yield finding
    async for finding in checks_pool.check_upstreams(settings, templates):
        yield finding


async def show(flags: Mapping[str, Any]) -> bool:
    """Print the findings as they come; whether nothing failed."""
    counts = dict.fromkeys(Level, 0)
    async for finding in examine(flags, os.environ):
        counts[finding.level] += 1
        print(finding, flush=True)
    print(f"{counts[Level.FAIL]} to mend, {counts[Level.WARN]} to know, {counts[Level.OK]} fine")
    return counts[Level.FAIL] == 0
