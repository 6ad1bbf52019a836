import pytest
from botocore import exceptions
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from gateway.objects.failures import Kind, as_ours, kind_of, told


def answered(code, status):
    return ClientError(
        {"Error": {"Code": code, "Message": "Key AKIASECRET"}, "ResponseMetadata": {"HTTPStatusCode": status}},
        "PutObject",
    )


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (answered("NoSuchKey", 404), Kind.MISSING),
        (answered("404", 404), Kind.MISSING),
        (answered("NoSuchBucket", 404), Kind.REFUSAL),
        (answered("NoSuchUpload", 404), Kind.UPLOAD_GONE),
        (answered("InvalidRange", 416), Kind.PAST_THE_END),
        (answered("AccessDenied", 403), Kind.REFUSAL),
        (answered("SignatureDoesNotMatch", 403), Kind.REFUSAL),
        (answered("PermanentRedirect", 301), Kind.REFUSAL),
        (answered("BadDigest", 400), Kind.PASSING),
        (answered("RequestTimeout", 400), Kind.PASSING),
        (answered("SlowDown", 503), Kind.PASSING),
        (answered("TooMany", 429), Kind.PASSING),
        (answered("InternalError", 500), Kind.PASSING),
        (exceptions.EndpointConnectionError(endpoint_url="http://x"), Kind.PASSING),
        (exceptions.ConnectTimeoutError(endpoint_url="http://x"), Kind.PASSING),
        (exceptions.ReadTimeoutError(endpoint_url="http://x"), Kind.PASSING),
        (exceptions.ConnectionClosedError(endpoint_url="http://x"), Kind.PASSING),
        (exceptions.ResponseStreamingError(error="x"), Kind.PASSING),
        (exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2), Kind.PASSING),
        (exceptions.NoCredentialsError(), Kind.REFUSAL),
        (exceptions.ParamValidationError(report="x"), Kind.REFUSAL),
        (exceptions.SSLError(endpoint_url="http://x", error="x"), Kind.PASSING),
        (KeyError("ETag"), Kind.PASSING),
        (ValueError("no date"), Kind.PASSING),
        (ResponseParserError("half"), Kind.PASSING),
    ],
)
def test_failures_are_told_apart(error, kind):
    assert kind_of(error) is kind
    assert as_ours(error).is_refusal is (kind is Kind.REFUSAL)


def test_what_is_told_has_no_words_of_the_server():
    assert told(answered("AccessDenied", 403)) == "PutObject: AccessDenied (HTTP 403)"
    assert told(exceptions.EndpointConnectionError(endpoint_url="http://10.0.0.1")) == "EndpointConnectionError"
    assert "AKIASECRET" not in str(as_ours(answered("AccessDenied", 403)))


def test_clients_are_told_when_to_come_back():
    assert as_ours(answered("SlowDown", 503)).retry_after_seconds == 10
