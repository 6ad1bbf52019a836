"""What ``comfygate status`` says of upstreams that keep the files of ended jobs."""

from __future__ import annotations

import pytest

from gateway.cli.leavings import KEEPS
from gateway.cli.status import lines_of
from gateway.interfaces import Cleaning


class Gateway:
    url = "http://127.0.0.1:8000"

    def __init__(self, cleaning):
        self._cleaning = cleaning

    async def get(self, path):
        upstream = {"name": "gpu-1", "address": "http://gpu:8188", "reachable": True, "draining": False, "job_id": None}
        return {
            "status": "healthy",
            "engine": "comfyui",
            "jobs": {},
            "upstreams": [{**upstream, "reason": "", "cleaning": self._cleaning}],
            "templates": [],
            "safety": {"message": "Nothing is looked at."},
            "storage": {"message": "Files lie in the data directory."},
            "warnings": [],
        }


@pytest.mark.parametrize("state", Cleaning)
async def test_those_that_keep_files_are_named_with_the_remedy_and_no_others(state):
    lines, is_ready = await lines_of(Gateway(state.value))
    told = [line for line in lines if "files of ended jobs stay there" in line]
    assert is_ready
    assert len(told) == (state in {Cleaning.NO_TOKEN, Cleaning.NO_ROUTE, Cleaning.REFUSED})
    assert all(KEEPS[state][1] in line for line in told)
