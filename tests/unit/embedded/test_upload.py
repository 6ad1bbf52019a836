"""GatewayUploadOutput in the embedded worker: what a video node made arrives where the graph says, once for each prompt."""

from __future__ import annotations

import hashlib

import pytest

from comfy_nodes.uploading import HOSTS_VARIABLE, LOOPBACK_VARIABLE
from tests.fakes.put_receiver import Receiver


@pytest.fixture
def receiver(monkeypatch):
    with Receiver() as made:
        monkeypatch.setenv(HOSTS_VARIABLE, f"127.0.0.1:{made.port}")
        monkeypatch.setenv(LOOPBACK_VARIABLE, "1")
        yield made


def graph(picture, url):
    combine = {
        "images": ["1", 0], "frame_rate": 8, "loop_count": 0, "filename_prefix": "gateway/id/p/out", "format": "image/gif",
        "pingpong": False, "save_output": True,
    }  # fmt: skip
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": picture}},
        "2": {"class_type": "VHS_VideoCombine", "inputs": combine},
        "3": {"class_type": "GatewayUploadOutput", "inputs": {"url": url, "filenames": ["2", 0]}},
        "4": {
            "class_type": "GatewayUploadOutput",
            "inputs": {"url": url, "images": ["1", 0], "filename_prefix": "p/x"},
        },
    }


def test_a_video_and_a_picture_arrive_as_they_were_made(make_bench, picture, folders, receiver):
    bench = make_bench()
    entry = bench.run(graph(picture, f"http://127.0.0.1:{receiver.port}/bucket/key?X-Sig=1"), ["2", "3", "4"])
    assert entry["status"]["completed"], entry["status"]
    reports = [entry["outputs"][node]["gateway_upload"][0] for node in ("3", "4")]
    assert [report["status"] for report in reports] == ["uploaded", "uploaded"], reports
    for report in reports:
        made = folders.view(report["filename"], report["type"], report["subfolder"]).read_bytes()
        assert report["sha256"] == hashlib.sha256(made).hexdigest()
        assert report["size_bytes"] == len(made)
    assert sorted(got[4] for got in receiver.got) == sorted(report["sha256"] for report in reports)
    assert {got[1] for got in receiver.got} == {"/bucket/key?X-Sig=1"}


def test_another_url_sends_again_what_is_cached(make_bench, picture, receiver):
    bench = make_bench()
    for number in (1, 2):
        bench.run(graph(picture, f"http://127.0.0.1:{receiver.port}/key-{number}"), ["2", "3", "4"])
    assert [got[1] for got in receiver.got] == ["/key-1", "/key-1", "/key-2", "/key-2"]


def test_without_a_url_and_where_it_fails_the_prompt_succeeds(make_bench, picture, receiver):
    bench = make_bench()
    asked = bench.run(graph(picture, ""), ["2", "3", "4"])
    refused = bench.run(graph(picture, "https://elsewhere.example.com/k"), ["2", "3", "4"])
    assert asked["outputs"]["3"]["gateway_upload"][0]["status"] == "not_asked"
    assert refused["outputs"]["3"]["gateway_upload"][0]["status"] == "failed"
    assert asked["status"]["completed"]
    assert refused["status"]["completed"]
    assert receiver.got == []
