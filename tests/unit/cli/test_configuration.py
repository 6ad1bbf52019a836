import pytest

from gateway.cli import configuration
from gateway.cli.configuration import Origin, read_settings, rows, unknown_names
from gateway.data_dir import StartError
from gateway.settings import Settings


@pytest.fixture(autouse=True)
def nobodys_settings(tmp_path, monkeypatch):
    """An empty folder and no variables of ours."""
    monkeypatch.chdir(tmp_path)
    for name in list(configuration.os.environ):
        if name.upper().startswith("GATEWAY_"):
            monkeypatch.delenv(name)


def shown(flags=None, environment=None):
    given = flags or {}
    return {row.name: row for row in rows(given, environment or {}, read_settings(given))}


def test_every_setting_is_shown_once_in_the_order_of_the_table():
    names = [row.name for row in rows({}, {}, Settings())]
    assert names == [f"GATEWAY_{name.upper()}" for name in Settings.model_fields]


def test_switches_are_spelled_as_they_are_set():
    assert {shown()[f"GATEWAY_{name}"].value for name in ("V1_ENABLED", "REQUIRE_CONSENT")} == {"true", "false"}


def test_origin_is_the_strongest_place_that_names_it(tmp_path, monkeypatch):
    (tmp_path / "gateway.toml").write_text('port = 1\nhost = "127.0.0.1"\nlog_level = "error"\n')
    environment = {"GATEWAY_PORT": "2", "gateway_log_level": "debug"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = shown({"port": 3, "auth": None}, environment)
    assert {name: (found[f"GATEWAY_{name}"].value, found[f"GATEWAY_{name}"].origin) for name in ("PORT", "AUTH")} == {
        "PORT": ("3", Origin.FLAG),
        "AUTH": ("open", Origin.DEFAULT),
    }
    assert (found["GATEWAY_LOG_LEVEL"].value, found["GATEWAY_LOG_LEVEL"].origin) == ("debug", Origin.ENVIRONMENT)
    assert found["GATEWAY_HOST"].origin is Origin.FILE


def test_secrets_and_credentials_are_never_shown(monkeypatch):
    environment = {
        "GATEWAY_ADMIN_TOKEN": "s3cret",
        "GATEWAY_UPSTREAMS": "http://ann:s3cret@10.0.0.5:8188,http://s3cret@10.0.0.6",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    valid = list(rows({}, environment, Settings()))
    invalid = list(rows({}, environment, None))
    for table in (valid, invalid):
        assert "s3cret" not in str(table)
        assert "10.0.0.6" in str(table)


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("result_retention", "36h", "36 h"),
        ("result_retention", "90", "90 s"),
        ("result_retention", "0", "0 s"),
        ("max_video", "2 GiB", "2 GiB"),
        ("max_video", "1000", "1000 bytes"),
        ("upstreams", "", "-"),
        ("allowed_hosts", "a, b", "a, b"),
        ("embedded_workers", 0, "0"),
    ],
)
def test_values_are_shown_as_one_would_write_them(name, given, value):
    assert shown({name: given})[f"GATEWAY_{name.upper()}"].value == value


def test_unknown_names_are_told_with_what_was_meant():
    environment = {"GATEWAY_PROT": "1", "gateway_host": "x", "GATEWAY_URL": "x", "GATEWAY_XYZZY": "1", "OTHER": "1"}
    assert unknown_names(environment) == [
        "GATEWAY_PROT is no setting and does nothing; perhaps GATEWAY_PORT is meant.",
        "GATEWAY_XYZZY is no setting and does nothing.",
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a b", r"gateway\.toml is no TOML .* mend it"),
        ("prot = 3", r"gateway\.toml: prot is no setting; perhaps port is meant"),
        ("port = 'x'", "GATEWAY_PORT: "),
    ],
)
def test_fault_in_the_file_is_told_in_a_sentence(tmp_path, text, sentence):
    (tmp_path / "gateway.toml").write_text(text)
    with pytest.raises(StartError, match=sentence):
        read_settings({})


def test_table_is_shown_even_when_a_value_is_wrong(capsys, monkeypatch):
    monkeypatch.setenv("GATEWAY_PORT", "70000")
    with pytest.raises(StartError, match="GATEWAY_PORT"):
        configuration.show({})
    assert "GATEWAY_PORT" in capsys.readouterr().out
