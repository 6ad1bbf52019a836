import socket
import ssl
from pathlib import Path

import httpx
import pytest

from gateway import httpclient
from gateway.cli.client import ClientError, GatewayClient, require_success

CA = Path(__file__).resolve().parents[1] / "blobs" / "tls" / "ca.pem"


@pytest.mark.parametrize("url", ["http://[", "no url", "http://127.0.0.1:{free}"])
async def test_address_that_leads_nowhere_is_a_sentence(url):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # and does not listen; as long as it is bound nobody else does
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


GATEWAY, BUCKET = "http://gateway.test", "https://bucket.test/k?X-Amz-Signature=secret"


@pytest.fixture
def answers(monkeypatch):
    """URL -> what is answered there; an exception is raised instead. And the requests that came."""
    by_url, asked = {}, []

    def answer(request):
        asked.append(request)
        said = by_url[str(request.url)]
        if isinstance(said, Exception):
            raise said
        return said

    def make_client(*, base_url, headers, timeout, verify):
        return httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url=base_url, headers=headers)

    monkeypatch.setattr(httpclient, "make_client", make_client)
    return by_url, asked


async def test_download_is_fetched_from_where_the_gateway_sends_us_and_without_the_token(answers, tmp_path):
    by_url, asked = answers
    by_url[f"{GATEWAY}/download/one.mp4"] = httpx.Response(302, headers={"Location": BUCKET})
    by_url[BUCKET] = httpx.Response(200, content=b"the video")
    await GatewayClient(GATEWAY, "token").download("/download/one.mp4", tmp_path / "one.mp4")
    assert (tmp_path / "one.mp4").read_bytes() == b"the video"
    assert ["authorization" in request.headers for request in asked] == [True, False]


@pytest.mark.parametrize(
    ("first", "then", "sentence"),
    [
        (httpx.Response(404, json={"detail": "it is gone"}), None, "^it is gone$"),
        (
            httpx.Response(302, headers={"Location": BUCKET}),
            httpx.Response(403),
            r"^For the file bucket\.test answered 403\.$",
        ),
        (
            httpx.Response(302, headers={"Location": BUCKET}),
            httpx.ConnectError("no"),
            r"^The gateway sends downloads on to bucket\.test, ",
        ),
        (httpx.Response(302), None, r"^For the file gateway\.test answered 302\.$"),
        (httpx.ConnectError("no"), None, "^No gateway answers at"),
    ],
)
async def test_download_that_does_not_come_is_a_sentence_and_touches_no_file(answers, tmp_path, first, then, sentence):
    by_url, _ = answers
    by_url |= {f"{GATEWAY}/one": first, BUCKET: then}
    (tmp_path / "mine").write_bytes(b"mine")
    with pytest.raises(ClientError, match=sentence) as told:
        await GatewayClient(GATEWAY).download("/one", tmp_path / "mine")
    assert "secret" not in str(told.value)
    assert (tmp_path / "mine").read_bytes() == b"mine"
