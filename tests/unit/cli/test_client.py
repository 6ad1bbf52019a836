import socket
import ssl
from pathlib import Path

import pytest

from gateway.cli.client import ClientError, GatewayClient, require_success

CA = Path(__file__).resolve().parents[1] / "blobs" / "tls" / "ca.pem"


@pytest.mark.parametrize("url", ["http://[", "no url", "http://127.0.0.1:{free}"])
async def test_address_that_leads_nowhere_is_a_sentence(url):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = url.format(free=probe.getsockname()[1])
    with pytest.raises(ClientError, match="No gateway answers at"):
        await GatewayClient(url).get("/health")


async def test_authority_of_the_settings_is_asked_about_https_gateways(monkeypatch):
    monkeypatch.setenv("GATEWAY_CA_FILE", str(CA))
    context = GatewayClient("https://files.example.com")._authorities()
    assert ssl.PEM_cert_to_DER_cert(CA.read_text(encoding="ascii")) in context.get_ca_certs(binary_form=True)
    assert GatewayClient("http://127.0.0.1:8000")._authorities() is True
    monkeypatch.setenv("GATEWAY_CA_FILE", "/nowhere/ca.pem")
    with pytest.raises(ClientError, match="GATEWAY_CA_FILE"):
        await GatewayClient("https://files.example.com").get("/health")


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (409, b'{"detail": "the job is running"}', "the job is running"),
        (401, b'{"title": "Unauthorized"}', r"Unauthorized \(give --token"),
        (502, b"<html>", "the gateway answered 502"),
        (500, b"[]", "the gateway answered 500"),
    ],
)
def test_refusal_is_the_gateways_own_sentence(status, body, sentence):
    with pytest.raises(ClientError, match=sentence):
        require_success(status, body)


@pytest.mark.parametrize("body", [{"credits": 2**64}, {"name": "\udcff"}])
async def test_what_cannot_be_sent_is_a_sentence(body):
    with pytest.raises(ClientError, match="too large, or a text is no Unicode"):
        await GatewayClient("http://127.0.0.1:9", "token").admin("POST", "/-/credits", body)
