"""``comfygate consent`` on a data directory that no gateway holds."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway import logs
from gateway.cli import consents
from gateway.cli.client import ClientError
from gateway.cli.keeping import purge
from gateway.cli.reaching import Held
from gateway.consent import Attestation
from gateway.interfaces import NewJob
from gateway.job import JobState
from gateway.store.sql_store import SqlStore

OWNERS = ("local", "k-ann", "k-ann")
DAY = 86_400.0


def name(number):
    return f"019a0000-0000-7000-8000-{number:012}"


async def fill(folder):
    store = await SqlStore.open(folder / "gateway.db", result_retention_seconds=1.0, asset_retention_seconds=1.0)
    try:
        for number, owner in enumerate(OWNERS, 1):
            new = NewJob(
                id=name(number),
                task_id=f"task-{number}",
                owner=owner,
                submitter=owner,
                dialect="swaps_v1",
                task="face_swap",
                template="faceswap_image",
                template_version="v1",
                priority=0,
                parameters={},
                inputs={},
                output_name="out",
                queue_deadline=1.0,
                requirement="needs",
                cost_seconds=1.0,
                consent=Attestation.HEADER,
            )
            await store.create_job(new, max_queue=9, now=number * DAY)
            await store.request_cancel(new.id, frozenset({JobState.QUEUED}), now=number * DAY)
    finally:
        await store.close()


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "configure", lambda *_: None)  # it would be that of all tests that follow
    (tmp_path / "data").mkdir(mode=0o700)
    asyncio.run(fill(tmp_path / "data"))
    return tmp_path / "data"


def exported(capsys, **wanted):
    capsys.readouterr()
    consents.export(**wanted)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_record_is_shown(data_dir, capsys):
    consents.show(name(2), data_dir=data_dir)
    told = json.loads(capsys.readouterr().out)
    assert (told["job"], told["owner"], told["attested_by"], told["state"]) == (name(2), "k-ann", "header", "canceled")
    assert told["attested_at"] == "1970-01-03T00:00:00.000Z"
    with pytest.raises(ClientError, match="no record of consent"):
        consents.show(name(9), data_dir=data_dir)


def test_all_are_exported_a_line_each_page_by_page(data_dir, capsys, monkeypatch):
    monkeypatch.setattr(consents, "PAGE", 1)
    assert [one["job"] for one in exported(capsys, data_dir=data_dir)] == [name(1), name(2), name(3)]
    assert [one["job"] for one in exported(capsys, data_dir=data_dir, owner="k-ann")] == [name(2), name(3)]
    assert [one["job"] for one in exported(capsys, data_dir=data_dir, since="1970-01-04")] == [name(3)]
    with pytest.raises(ClientError, match=r"(?i)since is a day"):
        exported(capsys, data_dir=data_dir, since="soon")


def test_a_purge_of_the_directory_takes_them_when_that_is_asked(data_dir, capsys):
    asyncio.run(purge(Held(data_dir), job=None, owner="k-ann"))
    assert len(exported(capsys, data_dir=data_dir)) == len(OWNERS)
    told = asyncio.run(purge(Held(data_dir), job=None, owner="k-ann", consents=True))
    assert "Records of consent: 2." in told
    assert [one["job"] for one in exported(capsys, data_dir=data_dir)] == [name(1)]
