import importlib.util

import pytest

from gateway.data_dir import StartError
from gateway.object_url import parse_object_url
from gateway.storage_builder import open_bucket
from tests.tools.object_servers import know_us

PLACE = parse_object_url("s3://faces/p?endpoint=http://127.0.0.1:1", setting="X")


async def test_a_bucket_is_made_and_nobody_is_asked(monkeypatch):
    know_us(monkeypatch)
    bucket = await open_bucket(PLACE, setting="GATEWAY_STORAGE_URL")
    assert bucket.location("k") == "s3://faces/p/k"
    await bucket.close()


async def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(StartError, match=r"GATEWAY_STORAGE_URL needs boto3: pip install 'comfygate\[s3\]'"):
        await open_bucket(PLACE, setting="GATEWAY_STORAGE_URL")


async def test_missing_credentials_are_told_with_the_names_to_set(monkeypatch):
    know_us(monkeypatch)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(
        StartError, match="GATEWAY_STORAGE_URL is set, and there are no credentials: set AWS_ACCESS_KEY_ID"
    ):
        await open_bucket(PLACE, setting="GATEWAY_STORAGE_URL")
