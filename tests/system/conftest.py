"""Material and gateways that the tests of whole processes share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.tools import clips
from tests.tools.gateway_process import GatewayProcess

LONG_FRAMES = 96
SHORT_FRAMES = 12


@dataclass(frozen=True)
class Material:
    """Files to submit, in a folder of their own."""

    folder: Path
    #: Half a second of a portrait in motion: a quarter of a second's work.
    clip: Path
    #: So long that whoever looks finds it running: two seconds' work.
    long: Path
    still: Path
    faceless: Path

    def face(self, variant: int = 0) -> Path:
        """A portrait; each variant is another file to an upstream's cache."""
        path = self.folder / f"face {variant}.png"
        return path if path.exists() else clips.face(path, variant)


@pytest.fixture(scope="session")
def material(tmp_path_factory) -> Material:
    folder = tmp_path_factory.mktemp("material")
    return Material(
        folder,
        clip=clips.clip(folder / "Some One - walking.mp4", SHORT_FRAMES, sound=True),
        long=clips.clip(folder / "long.mp4", LONG_FRAMES),
        still=clips.still(folder / "still.png"),
        faceless=clips.faceless(folder / "nobody.png"),
    )


@pytest.fixture(scope="session")
def pool(tmp_path_factory):
    """A gateway in open mode with two workers, for tests that leave it as it was."""
    with GatewayProcess(tmp_path_factory.mktemp("pool"), workers=2) as gateway:
        yield gateway


#: Of a gateway's log, shown when a test of it failed.
LOG_LINES, MAX_LINE = 80, 1000


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """With the ends of the logs of the gateways that a failed test used: often nothing else says why."""
    report = yield
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, GatewayProcess) and value.log.exists():
                lines = value.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
                report.sections.append((f"end of the log of {name!r}", "\n".join(line[:MAX_LINE] for line in lines)))
    return report
