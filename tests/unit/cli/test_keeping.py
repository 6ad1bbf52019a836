"""What an operator is told of a purge."""

from __future__ import annotations

import pytest

from gateway.cli.client import GatewayClient
from gateway.cli.keeping import purge


class Gateway(GatewayClient):
    """One that has purged so much."""

    def __init__(self, jobs: int, files: int) -> None:
        super().__init__("http://127.0.0.1:9")
        self.answer = {"jobs": jobs, "files": files, "deleted_files": files}

    async def admin(self, method, path, body=None):
        return self.answer


@pytest.mark.parametrize(("jobs", "files"), [(1, 0), (0, 2)])
async def test_what_went_is_told(jobs, files):
    assert f"Purged: jobs {jobs}, files {files}" in await purge(Gateway(jobs, files), job=None, owner="k-ann")


async def test_an_owner_of_whom_nothing_is_known_is_told_to_be_one():
    told = await purge(Gateway(0, 0), job=None, owner="ann")
    assert "No job or file belongs to the owner 'ann'" in told
    assert "keys list" in told
    assert "Purged" not in told


async def test_records_of_consent_are_spoken_of_where_they_were_asked_for():
    gateway = Gateway(0, 0)
    gateway.answer["consents"] = 3
    assert "Records of consent: 3." in await purge(gateway, job=None, owner="k-ann", consents=True)
    assert "consent" not in await purge(Gateway(1, 1), job=None, owner="k-ann")
