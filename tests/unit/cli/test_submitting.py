"""What ``comfygate submit`` shows, and where it puts what came of it."""

from __future__ import annotations

import pytest

from gateway.cli import submitting
from gateway.cli.client import ClientError, GatewayClient
from gateway.cli.submitting import submit_files
from tests.tools import clips

LINK = "/download/faceswap_1.png"


class Gateway(GatewayClient):
    """One that tells the end of each job, and whose file nobody has room for."""

    def __init__(self, failure: OSError | None = None) -> None:
        super().__init__("http://127.0.0.1:8731")
        self.failure = failure
        self.saved = []

    async def download(self, path, into):
        if self.failure:
            raise self.failure
        self.saved.append((path, into))


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "face.png").write_bytes(clips.pixel())
    return tmp_path / "face.png", tmp_path / "face.png"


@pytest.fixture
def told(monkeypatch):
    """What the gateway says of a job, up to its end."""
    events = []

    async def tell(_client, _target, _face, _field, watch):
        for event in events:
            yield event
        watch.ended = {"filename": "../../faceswap_1.png", "download_url": LINK}

    monkeypatch.setattr(submitting, "_events", tell)
    return events


@pytest.mark.parametrize("output", ["missing/out.png", "."])
async def test_a_result_without_a_place_is_told_before_anything_is_sent(files, tmp_path, output):
    with pytest.raises(ClientError, match=r"cannot be written .*: name another file with -o"):
        await submit_files(GatewayClient("http://127.0.0.1:9"), *files, tmp_path / output)


async def test_a_result_that_cannot_be_saved_is_named_with_its_address(files, told, tmp_path):
    gateway = Gateway(OSError(28, "No space left on device"))
    with pytest.raises(ClientError, match=rf"No space left on device.* at http://127\.0\.0\.1:8731{LINK}"):
        await submit_files(gateway, *files, tmp_path / "out.png")


async def test_a_name_from_the_gateway_never_leads_out_of_the_folder(files, told):
    gateway = Gateway()
    saved = await submit_files(gateway, *files, None)
    assert (str(saved), gateway.saved) == ("faceswap_1.png", [(LINK, saved)])


async def test_the_time_left_and_the_step_stand_beside_the_bar(files, told, monkeypatch):
    shown = []
    real = submitting.Progress.update

    def note(bar, line, **changes):
        real(bar, line, **changes)
        [task] = bar.tasks
        shown.append((task.description, task.percentage, task.fields["left"]))

    monkeypatch.setattr(submitting.Progress, "update", note)
    told += [
        ("executing", {"message": "Swap face: 3 of 9"}),
        ("progress", {"percentage": 40.0, "message": "Face swap progress: 40.00%", "eta_seconds": 61.4}),
        ("progress", {"percentage": 40.0, "message": "The worker was lost."}),
    ]
    await submit_files(Gateway(), *files, None)
    assert shown[1] == ("Swap face: 3 of 9", 40.0, "about 1 min 01 s left")
    assert shown[-1] == ("The worker was lost.", 40.0, "")
