"""Nothing here asks anybody: a client is made, and looked at."""

import pytest
from botocore.credentials import InstanceMetadataProvider

from gateway.object_url import parse_object_url
from gateway.objects.session import NoCredentialsFoundError, open_client
from tests.tools.object_servers import ACCESS_KEY, know_us

OWN = "s3://faces/p?endpoint=http://127.0.0.1:1"
AMAZON = "s3://faces/p?region=eu-central-1"


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    know_us(monkeypatch)


def client(url):
    return open_client(parse_object_url(url, setting="X"), connections=3)


def test_a_client_speaks_to_its_endpoint_as_the_environment_says_who_we_are(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:2")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:3")
    made = client(OWN)
    assert made.meta.endpoint_url == "http://127.0.0.1:1"
    assert made._request_signer._credentials.access_key == ACCESS_KEY
    assert made.meta.region_name == "us-east-1"
    assert made._endpoint.http_session._proxy_config._proxies == {}


def test_without_an_endpoint_amazon_is_meant_whatever_the_environment_says(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:3")
    assert client(AMAZON).meta.endpoint_url == "https://s3.eu-central-1.amazonaws.com"


def test_the_region_of_the_environment_holds_where_the_url_names_none(monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-south-1")
    assert client(OWN).meta.region_name == "ap-south-1"


def test_a_link_is_signed_by_version_4_and_addressed_as_the_url_says():
    link = client(OWN).generate_presigned_url("get_object", Params={"Bucket": "faces", "Key": "k"})
    assert link.startswith("http://127.0.0.1:1/faces/k?X-Amz-Algorithm=AWS4-HMAC-SHA256")
    link = client(AMAZON).generate_presigned_url("get_object", Params={"Bucket": "faces", "Key": "k"})
    assert link.startswith("https://faces.s3.eu-central-1.amazonaws.com/k?X-Amz-Algorithm=AWS4-HMAC-SHA256")


def test_nobody_asks_the_metadata_service_for_a_server_that_is_not_amazons(monkeypatch):
    asked = []
    monkeypatch.setattr(InstanceMetadataProvider, "load", lambda _self: asked.append(True))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name)
    with pytest.raises(NoCredentialsFoundError, match="no credentials"):
        client(OWN)
    assert asked == []
    with pytest.raises(NoCredentialsFoundError):
        client(AMAZON)
    assert asked == [True]


def test_half_credentials_are_told(monkeypatch):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(NoCredentialsFoundError, match="PartialCredentialsError"):
        client(OWN)
