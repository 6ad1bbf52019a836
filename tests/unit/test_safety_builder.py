from __future__ import annotations

import ssl
from contextlib import AsyncExitStack

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from gateway.data_dir import StartError
from gateway.safety_builder import open_screening, safety_check
from gateway.screening import Policy
from gateway.settings import from_mapping
from tests.tools import tiny_onnx

TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
URL = "http://127.0.0.1:9/check"


async def opened(tmp_path, **values):
    async with AsyncExitStack() as stack:
        with capture_logs() as logged:
            screening = await open_screening(stack, from_mapping(values), TLS, None, None, tmp_path)
        [line] = [entry for entry in logged if entry["event"] == "safety"]
        return screening.state(), line


async def test_without_a_check_nothing_is_looked_at_and_the_log_says_so(tmp_path) -> None:
    state, line = await opened(tmp_path)
    assert (state.policy, state.check) == (Policy.OFF, None)
    assert line["policy"] == "off"
    assert "nothing that is sent in is looked at" in line["check"]


@pytest.mark.parametrize(("how", "policy"), [({}, Policy.REJECT), ({"safety": "flag"}, Policy.FLAG)])
async def test_who_configures_a_check_has_flagged_inputs_refused_unless_told_otherwise(tmp_path, how, policy) -> None:
    state, line = await opened(tmp_path, safety_url=URL, **how)
    assert (state.policy, state.check) == (policy, "service")
    assert (line["policy"], line["check"]) == (policy.value, "service")


async def test_check_that_is_switched_off_is_not_even_loaded(tmp_path) -> None:
    state, line = await opened(tmp_path, safety_model=tmp_path / "none.onnx", safety="off")
    assert (state.policy, state.check) == (Policy.OFF, None)
    assert "nothing that is sent in is looked at" in line["check"]


async def test_model_is_loaded_with_its_card(tmp_path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not here (the extra safety)")
    state, _ = await opened(tmp_path, safety_model=tiny_onnx.write(tmp_path))
    assert (state.policy, state.check) == (Policy.REJECT, "model")


def test_model_that_cannot_be_used_stops_the_start_with_what_to_mend(tmp_path) -> None:
    settings = from_mapping({"safety_model": tmp_path / "none.onnx"})
    with pytest.raises(StartError, match=r"GATEWAY_SAFETY_MODEL=.*none\.onnx cannot be used\. There is no card"):
        safety_check(settings, TLS)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"safety": "reject"}, "nobody who checks"),
        ({"safety": "flag"}, "nobody who checks"),
        ({"safety_model": "a.onnx", "safety_url": URL}, "set one of them"),
        ({"safety_url": "ftp://a"}, "absolute http"),
        ({"safety_url": "http://me:secret@a/check"}, "SAFETY_TOKEN"),
        ({"safety_url": URL, "safety_threshold": 0}, "greater than 0"),
        ({"safety_url": URL, "safety_threshold": 1.1}, "less than or equal to 1"),
        ({"safety_url": URL, "safety_frames": 0}, "greater than or equal to 1"),
        ({"safety_url": URL, "safety_timeout": 0}, "greater than 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(values, words) -> None:
    with pytest.raises(ValidationError, match=words) as refused:
        from_mapping(values)
    assert "secret" not in str(refused.value.errors()[0]["msg"])
