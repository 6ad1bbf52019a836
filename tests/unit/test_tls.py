"""The certificates are those of the tests of URL inputs."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from gateway.data_dir import StartError
from gateway.tls import server_context

FILES = Path(__file__).parent / "blobs" / "tls"
CERTIFICATE = FILES / "server.pem"
KEY = FILES / "server.key"
#: A P-256 key with the passphrase "secret", of no certificate.
ENCRYPTED = """\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAgohKgf4Mwh1AICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEKdoJoG8w73GNWLq15xGttUEgZBJ
dPb9SSfdnF4LyuR8waSgv4WTVyXQf/AVgnyQRklJS7vgQdhEAHqe7kkFsOlSdZHU
0Oii6Xgr7gECVNe/V23vufatZYRS618em2+1zlmwyEjQxwVSzFJ+x37axtmPE1MW
W30EAe0aH1hkaEboKQUW8/WJdBerAGTs2zh9NSdLC0788t6u+f/hI6Hcdxp7t0A=
-----END ENCRYPTED PRIVATE KEY-----
"""
OTHER = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgPvjjPT9yPDnwYPpe
rxRSvXQir9GlcZ0JJJUI1KQU/SyhRANCAAQs7HnvGvuYWfkbvQ2qxmXUJlXZfaoj
6DXoGF8maPA9pw+bWOL5QyKN19+igJJh0DmoqWZy6pF8eF9Fu/z72WcB
-----END PRIVATE KEY-----
"""


def refusal(certificate: Path, key: Path) -> str:
    with pytest.raises(StartError) as refused:
        server_context(certificate, key)
    sentence = str(refused.value)
    assert "\n" not in sentence
    return sentence


def test_pair_that_belongs_together_makes_a_context_of_modern_tls() -> None:
    context = server_context(CERTIFICATE, KEY)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize("name", ["TLS_CERT", "TLS_KEY"])
def test_file_that_is_not_there_is_named_with_its_setting(tmp_path, name) -> None:
    gone = tmp_path / "gone.pem"
    sentence = refusal(*((gone, KEY) if name == "TLS_CERT" else (CERTIFICATE, gone)))
    assert sentence.startswith(f"GATEWAY_{name}: {gone} cannot be read (No such file")


def test_folder_is_no_certificate(tmp_path) -> None:
    assert "cannot be read (Is a directory)" in refusal(tmp_path, KEY)


def test_key_of_another_certificate_is_told(tmp_path) -> None:
    other = tmp_path / "other.key"
    other.write_text(OTHER)
    assert "is not the key of the certificate" in refusal(CERTIFICATE, other)


def test_encrypted_key_is_told_and_nobody_is_asked_for_a_passphrase(tmp_path) -> None:
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_text(ENCRYPTED)
    assert refusal(CERTIFICATE, encrypted).startswith("GATEWAY_TLS_KEY is encrypted")


def test_files_that_are_no_pem_are_told(tmp_path) -> None:
    noise = tmp_path / "noise.pem"
    noise.write_bytes(b"\x30\x82 DER it may be")
    assert "must each be PEM" in refusal(noise, KEY)
    assert "must each be PEM" in refusal(CERTIFICATE, noise)
    assert "must each be PEM" in refusal(KEY, CERTIFICATE), "swapped"
