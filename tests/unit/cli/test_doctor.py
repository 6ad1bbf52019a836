"""Each thing that can be wrong, made wrong: the doctor names it and says what to do."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import threading
from collections import namedtuple
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gateway.cli import checks_here, checks_pool, checks_safety
from gateway.cli.doctor import examine
from gateway.cli.findings import Level
from gateway.data_dir import hold_data_dir, leave_address, prepare_data_dir
from gateway.settings import from_mapping
from gateway.store.sql_store import SqlStore
from tests.tools import safety_service, tiny_onnx

ROOT = Path(__file__).resolve().parents[3]
REAL_NODES = json.loads((ROOT / "tests" / "data" / "object_info" / "real.json").read_text(encoding="utf-8"))


def told(findings, level):
    """Sentences of a level; every one that is not ok says what to do."""
    for finding in findings:
        assert finding.level is Level.OK or finding.remedy, finding
    return [f"{finding.sentence} -> {finding.remedy}" for finding in findings if finding.level is level]


# ---- machine


def test_this_machine_is_well(tmp_path):
    settings = from_mapping({"data_dir": tmp_path})
    findings = [
        *checks_here.check_packages(settings),
        *checks_here.check_addresses(settings),
        *checks_here.check_clock(tmp_path),
    ]
    assert told(findings, Level.FAIL) == []


def test_old_python_and_missing_packages_are_named(monkeypatch):
    version = namedtuple("version", "major minor")(3, 10)  # noqa: PYI024 - compared as a tuple only
    monkeypatch.setattr(checks_here.sys, "version_info", version)
    monkeypatch.setattr(checks_here.importlib.util, "find_spec", lambda _: None)
    assert any("3.11" in line for line in told(list(checks_here.check_platform()), Level.FAIL))
    assert any("uvloop" in line for line in told(list(checks_here.check_platform()), Level.WARN))
    assert len(told(list(checks_here.check_packages(from_mapping({}))), Level.FAIL)) == 2
    remote = from_mapping({"upstreams": "http://10.0.0.5:8188"})
    assert len(told(list(checks_here.check_packages(remote)), Level.FAIL)) == 1


def test_clock_that_was_never_set_and_one_set_back_are_named(tmp_path, monkeypatch):
    (tmp_path / "gateway.db").touch()
    now = checks_here.time.time()
    os.utime(tmp_path / "gateway.db", (now + 3600, now + 3600))
    assert len(told(list(checks_here.check_clock(tmp_path)), Level.WARN)) == 1
    monkeypatch.setattr(checks_here.time, "time", lambda: 1000.0)
    assert "NTP" in told(list(checks_here.check_clock(tmp_path)), Level.FAIL)[0]


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"url_allowlist": "10.0.0.0/99"}, "GATEWAY_URL_ALLOWLIST"),
        ({"resolve": "nonsense"}, "GATEWAY_RESOLVE"),
        ({"ca_file": "/nowhere/ca.pem"}, "GATEWAY_CA_FILE"),
    ],
)
def test_settings_that_only_show_when_used_are_tried(values, name):
    assert name in told(list(checks_here.check_addresses(from_mapping(values))), Level.FAIL)[0]


# ---- data directory


def test_directory_that_cannot_be_made_is_named_and_nothing_is_made(tmp_path):
    (tmp_path / "file").touch()
    assert "GATEWAY_DATA_DIR" in told(list(checks_here.check_data_dir(tmp_path / "file" / "data")), Level.FAIL)[0]
    assert told(list(checks_here.check_data_dir(tmp_path / "new" / "data")), Level.FAIL) == []
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_directory_and_files_open_to_others_are_named(tmp_path):
    folder = prepare_data_dir(tmp_path / "data")
    assert told(list(checks_here.check_data_dir(folder)), Level.WARN) == []
    folder.chmod(0o755)
    assert "chmod 700" in told(list(checks_here.check_data_dir(folder)), Level.WARN)[0]
    (folder / "admin-token").write_text("x")
    (folder / "admin-token").chmod(0o644)
    assert "admin-token" in told(list(checks_here.check_data_dir(folder)), Level.WARN)[0]


@pytest.mark.parametrize(("free", "level"), [(10 * 1024**3, Level.OK), (1024**3, Level.WARN), (1024**2, Level.FAIL)])
def test_room_on_the_disk_is_judged(tmp_path, monkeypatch, free, level):
    monkeypatch.setattr(checks_here, "free_bytes", lambda _: free)
    disk = [finding for finding in checks_here.check_data_dir(tmp_path) if finding.subject == "disk"]
    assert [finding.level for finding in disk] == [level]


def test_network_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checks_here, "_disk_kind", lambda _: "nfs4")
    assert "nfs4" in told(list(checks_here.check_data_dir(tmp_path)), Level.FAIL)[0]


def test_holder_and_its_port_are_known(tmp_path):
    folder = prepare_data_dir(tmp_path / "data")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = from_mapping({"data_dir": folder, "port": port})
        with hold_data_dir(folder), leave_address(folder, f"http://127.0.0.1:{port}"):
            assert any("holds" in line for line in told(list(checks_here.check_data_dir(folder)), Level.OK))
            assert told(list(checks_here.check_port(settings)), Level.FAIL) == []
        assert "GATEWAY_PORT" in told(list(checks_here.check_port(settings)), Level.FAIL)[0]
    assert told(list(checks_here.check_port(settings)), Level.FAIL) == []


# ---- database


async def test_database_is_read_and_left_as_it_is(tmp_path):
    path = tmp_path / "gateway.db"
    await (await SqlStore.open(path, result_retention_seconds=1, asset_retention_seconds=1)).close()
    before = path.read_bytes()
    assert told(list(checks_here.check_database(tmp_path)), Level.FAIL) == []
    assert path.read_bytes() == before
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE alembic_version SET version_num = 'v9999'")
        database.commit()
    assert "newer gateway" in told(list(checks_here.check_database(tmp_path)), Level.FAIL)[0]
    path.write_bytes(b"no database" * 500)
    assert "restore a backup" in told(list(checks_here.check_database(tmp_path)), Level.FAIL)[0]


# ---- templates and upstreams


def test_bad_template_is_named_and_none_at_all_is_worse(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "template.toml").write_text("nonsense")
    found, templates = checks_pool.check_templates(from_mapping({"workflows_dir": tmp_path}))
    assert "mine" in told(found, Level.FAIL)[0]
    assert templates == []
    found, templates = checks_pool.check_templates(from_mapping({"workflows_dir": ROOT / "workflows"}))
    assert told(found, Level.OK)
    assert len(templates) >= 2


@pytest.fixture
def comfyui():
    """A server that says of itself what a test puts into ``answers``: path -> (status, value)."""
    answers = {
        "/system_stats": (200, {"system": {"comfyui_version": "0.3.64"}}),
        "/object_info": (200, REAL_NODES),
        "/comfygate/files": (200, {"files": [], "has_more": False}),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, value = answers[self.path]
            body = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - a name that the base class looks for

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_port, answers
    server.shutdown()
    thread.join()
    server.server_close()


TOKEN = "t0ken of the box"


async def upstream_findings(port, tmp_path, token=TOKEN):
    settings = from_mapping(
        {"upstreams": f"http://ann:s3cret@127.0.0.1:{port}", "data_dir": tmp_path, "upstream_token": token}
    )
    _, templates = checks_pool.check_templates(from_mapping({"workflows_dir": ROOT / "workflows"}))
    found = [finding async for finding in checks_pool.check_upstreams(settings, templates)]
    assert "s3cret" not in str(found)
    assert "t0ken" not in str(found)
    return found


async def test_real_comfyui_with_its_packs_fits(comfyui, tmp_path):
    found = await upstream_findings(comfyui[0], tmp_path)
    assert told(found, Level.FAIL) == told(found, Level.WARN) == []
    assert "ComfyUI 0.3.64" in told(found, Level.OK)[0]


@pytest.mark.parametrize(("start", "pack"), [("VHS_", "VideoHelperSuite"), ("ReActor", "ReActor")])
async def test_missing_pack_is_named_with_where_to_get_it(comfyui, tmp_path, start, pack):
    port, answers = comfyui
    answers["/object_info"] = (200, {name: entry for name, entry in REAL_NODES.items() if not name.startswith(start)})
    found = await upstream_findings(port, tmp_path)
    assert any(f"install ComfyUI-{pack}" in line for line in told(found, Level.WARN))
    assert any("fits no upstream" in line for line in told(found, Level.FAIL))


async def test_optional_template_that_runs_nowhere_is_no_fault(comfyui, tmp_path):
    port, answers = comfyui
    answers["/object_info"] = (200, {name: entry for name, entry in REAL_NODES.items() if name != "KSampler"})
    found = await upstream_findings(port, tmp_path)
    assert told(found, Level.FAIL) == told(found, Level.WARN) == []
    assert any("does without image_creation, which is optional" in line for line in told(found, Level.OK))


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((405, b"405: Method Not Allowed"), "no node pack"),
        ((404, b""), "comfygate nodes install"),
        ((403, {"error": "..."}), "refuses the token"),
    ],
)
async def test_one_that_deletes_nothing_is_named_with_what_to_do(comfyui, tmp_path, answer, sentence):
    port, answers = comfyui
    answers["/comfygate/files"] = answer
    (warning,) = told(await upstream_findings(port, tmp_path), Level.WARN)
    assert sentence in warning


async def test_without_a_token_it_is_said_which_to_set(comfyui, tmp_path):
    (warning,) = told(await upstream_findings(comfyui[0], tmp_path, token=None), Level.WARN)
    assert "COMFYGATE_WORKER_TOKEN" in warning
    assert "GATEWAY_UPSTREAM_TOKEN" in warning


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((401, {}), "user and password"),
        ((200, b"<html>"), "no ComfyUI"),
        ((404, {}), "no ComfyUI"),
    ],
)
async def test_what_is_no_comfyui_of_ours_is_named(comfyui, tmp_path, answer, sentence):
    port, answers = comfyui
    answers["/object_info"] = answers["/system_stats"] = answer
    assert sentence in told(await upstream_findings(port, tmp_path), Level.FAIL)[0]


async def test_unreachable_upstream_is_named_those_added_while_running_too(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # and does not listen; as long as it is bound nobody else does
        port = probe.getsockname()[1]
        store = await SqlStore.open(tmp_path / "gateway.db", result_retention_seconds=1, asset_retention_seconds=1)
        await store.upstream("added", url=f"http://127.0.0.1:{port}", now=1.0)
        await store.close()
        lines = told(await upstream_findings(port, tmp_path), Level.FAIL)
    assert len(lines) == 2
    assert all("cannot be reached" in line for line in lines)
    assert lines[0].startswith("added")


# ---- the safety check


async def examined(**values):
    return [finding async for finding in checks_safety.check_safety(from_mapping(values))]


async def test_that_nothing_is_looked_at_is_said_and_is_no_fault_unless_a_check_is_there(tmp_path):
    assert "nothing that is sent in is looked at" in told(await examined(), Level.OK)[0]
    idle = await examined(safety="off", safety_url="http://127.0.0.1:9/check")
    assert "GATEWAY_SAFETY is off" in told(idle, Level.WARN)[0]


async def test_model_is_tried_with_its_card(tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not here (the extra safety)")
    model = tiny_onnx.write(tmp_path)
    assert "policy reject; the model was shown a grey picture" in told(await examined(safety_model=model), Level.OK)[0]
    model.with_suffix(".toml").write_text(tiny_onnx.CARD.replace("mean", "means"))
    assert "input.mean" in told(await examined(safety_model=model), Level.FAIL)[0]
    model.unlink()
    assert "cannot be used" in told(await examined(safety_model=model), Level.FAIL)[0]


async def test_service_is_tried_with_its_token():
    with safety_service.serving() as service:
        values = {"safety_url": service.url, "safety_token": "secret"}
        assert "score 0.01" in told(await examined(**values), Level.OK)[0]
        assert service.came[0][0]["authorization"] == "Bearer secret"
        service.status = 202
        assert "made up its mind" in told(await examined(**values), Level.OK)[0]
        service.status = 500
        assert "every job is refused" in told(await examined(**values), Level.FAIL)[0]


# ---- the whole


async def test_invalid_setting_ends_the_examination_with_its_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    findings = [finding async for finding in examine({"port": 70_000}, {"GATEWAY_PROT": "1"})]
    assert "GATEWAY_PORT" in told(findings, Level.FAIL)[0]
    assert any("GATEWAY_PROT" in line for line in told(findings, Level.WARN))
    assert {finding.subject for finding in findings} <= {"python", "platform", "settings"}
