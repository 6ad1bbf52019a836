"""Servers that speak S3, each started when it is first asked for, once for all files."""

from contextlib import ExitStack

import pytest

from tests.tools.object_servers import SERVERS, know_us


@pytest.fixture(scope="session")
def running_servers(tmp_path_factory):
    with ExitStack() as stack:
        running = {}

        def server(name):
            if name not in running:
                running[name] = stack.enter_context(SERVERS[name](tmp_path_factory.mktemp(name)))
            return running[name]

        yield server


@pytest.fixture(scope="module")
def servers(running_servers):
    """name -> server, with an environment in which boto3 knows their keys."""
    with pytest.MonkeyPatch.context() as patch:
        know_us(patch)
        yield running_servers
