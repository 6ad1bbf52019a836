from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.settings import Settings, from_mapping, parse_duration


def test_defaults_start_one_embedded_worker_on_loopback() -> None:
    settings = from_mapping({})
    assert (settings.host, settings.port, settings.auth) == ("127.0.0.1", 8000, "open")
    assert settings.embedded_worker_count == 1


def test_real_upstreams_start_no_embedded_worker_unless_asked() -> None:
    assert from_mapping({"upstreams": "http://a:8188, http://b:8188"}).embedded_worker_count == 0
    assert from_mapping({"upstreams": "http://a:8188", "embedded_workers": 2}).embedded_worker_count == 2
    assert from_mapping({"upstreams": "http://a:8188, http://b:8188"}).upstreams == ("http://a:8188", "http://b:8188")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15 min", 900), ("24h", 86400), ("30 d", 2592000)]
)
def test_durations_have_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert from_mapping({"queue_ttl": text}).queue_ttl == seconds


def test_sizes_have_units() -> None:
    assert from_mapping({"max_upload": "4GiB"}).max_upload == 4 * 1024**3


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": "0.0.0.0"},
        {"upstreams": "10.0.0.5:8188"},
        {"queue_ttl": "soon"},
        {"port": 70000},
        {"auth": "none"},
        {"public_url": "faces.example.org"},
        {"no_such_setting": 1},
        {"trusted_proxies": "nginx"},
        {"trusted_proxies": "10.0.0.0/33"},
        {"cors_origins": "*"},
        {"cors_origins": "https://*.example.org"},
        {"cors_origins": "app.example.org"},
        {"cors_origins": "https://app.example.org/page"},
        {"tls_cert": "a.pem"},
        {"tls_key": "a.pem"},
    ],
)
def test_wrong_values_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        from_mapping(wrong)


def test_open_mode_refusal_says_the_remedy() -> None:
    with pytest.raises(ValidationError, match="GATEWAY_AUTH=keys"):
        from_mapping({"host": "0.0.0.0"})
    assert from_mapping({"host": "0.0.0.0", "auth": "keys"}).host == "0.0.0.0"


def test_certificate_without_key_says_the_remedy() -> None:
    with pytest.raises(ValidationError, match=r"GATEWAY_TLS_CERT and GATEWAY_TLS_KEY go together"):
        from_mapping({"tls_cert": "a.pem"})
    assert from_mapping({"tls_cert": "a.pem", "tls_key": "b.pem"}).tls_key == Path("b.pem")


def test_environment_stands_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gateway.toml").write_text('port = 9001\nmax_queue = 7\nupstreams = ["http://a:8188"]\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_PORT", "9002")
    settings = Settings()
    assert (settings.port, settings.max_queue, settings.upstreams) == (9002, 7, ("http://a:8188",))


def test_a_typo_in_the_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gateway.toml").write_text("prot = 9001\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValidationError, match="prot"):
        Settings()


def test_admin_token_does_not_show_itself() -> None:
    assert "hunter2" not in repr(from_mapping({"admin_token": "hunter2"}))


def test_a_checkout_is_run_on_gpu_0_unless_others_are_named_and_no_worker_stands_in() -> None:
    settings = from_mapping({"comfyui_dir": "/opt/ComfyUI"})
    assert (settings.comfyui_devices, settings.embedded_worker_count) == (("0",), 0)
    several = from_mapping({"comfyui_dir": "/opt/ComfyUI", "comfyui_gpus": "0, GPU-8f3c0e0a-1b2c,cpu"})
    assert several.comfyui_devices == ("0", "GPU-8f3c0e0a-1b2c", "cpu")
    assert from_mapping({}).comfyui_devices == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"comfyui_gpus": "0"},
        {"comfyui_args": "--fast"},
        {"comfyui_dir": "c", "comfyui_gpus": "first"},
        {"comfyui_dir": "c", "comfyui_gpus": "-1"},
        {"comfyui_dir": "c", "comfyui_gpus": ",".join(["0"] * 17)},
        {"comfyui_dir": "c", "comfyui_args": "--port 80"},
        {"comfyui_dir": "c", "comfyui_args": "--listen=0.0.0.0"},
        {"comfyui_dir": "c", "comfyui_args": "--fast '"},
    ],
)
def test_what_no_comfyui_could_be_started_with_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        from_mapping(wrong)


def test_targets_are_places_by_name():
    settings = from_mapping(
        {"delivery_targets": "archive=s3://bucket/results?endpoint=http://10.0.0.9:9000, eu=s3://other"}
    )
    places = settings.target_places
    assert [(name, place.bucket, place.prefix) for name, place in places.items()] == [
        ("archive", "bucket", "results"),
        ("eu", "other", ""),
    ]
    assert places["archive"].endpoint == "http://10.0.0.9:9000"


@pytest.mark.parametrize(
    "value",
    [
        "s3://bucket/x",
        "Archive=s3://bucket",
        "a b=s3://bucket",
        "a=https://bucket",
        "a=s3://k:secret@bucket",
        "a=s3://b1b,a=s3://b2b",
    ],
)
def test_a_target_that_cannot_be_is_refused_without_repeating_credentials(value):
    with pytest.raises(ValidationError) as refused:
        from_mapping({"delivery_targets": value})
    assert "DELIVERY_TARGETS" in str(refused.value.errors(include_input=False))
    assert "secret" not in str([error["msg"] for error in refused.value.errors()])


def test_upstreams_put_files_to_targets_that_there_are():
    targets = {"delivery_targets": "archive=s3://bucket/results"}
    assert from_mapping({**targets, "delivery_direct": "archive"}).delivery_direct == ("archive",)
    with pytest.raises(ValidationError, match="GATEWAY_DELIVERY_DIRECT names 'lan'"):
        from_mapping({**targets, "delivery_direct": "archive,lan"})
