"""What receivers check: the published vector, and the official library of receivers."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from gateway.outbox import Delivery
from gateway.webhooks.signature import headers_of, secret_bytes, secret_text, sign

#: Source: the reference vector of the Standard Webhooks libraries.
SECRET = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
VECTOR = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
SIGNED = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def delivery(body, *secrets, at=None):
    return Delivery("https://hooks.example.net/", "msg_1", int(time.time()) if at is None else at, body, secrets)


def test_published_vector():
    assert sign(secret_bytes(SECRET), *VECTOR) == SIGNED
    assert sign(secret_bytes("whsec_" + SECRET), *VECTOR) == SIGNED


@given(st.binary(min_size=24, max_size=64), st.text())
def test_official_library_takes_what_is_signed(secret, words):
    body = json.dumps(words).encode()
    assert Webhook(secret_text(secret)).verify(body, headers_of(delivery(body, secret))) == words


def test_official_library_takes_either_secret_while_one_is_rotated():
    old, new = b"o" * 32, b"n" * 32
    headers = headers_of(delivery(b"{}", new, old))
    assert headers["webhook-signature"].count("v1,") == 2
    for secret in (old, new):
        Webhook(secret_text(secret)).verify(b"{}", headers)


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "msg_2"},
        {"webhook-timestamp": str(int(time.time()) - 1)},
    ],
)
def test_official_library_refuses_what_was_changed(change):
    headers = headers_of(delivery(b"{}", b"s" * 32, at=int(time.time()) - 5)) | change
    with pytest.raises(WebhookVerificationError):
        Webhook(secret_text(b"s" * 32)).verify(b"{}", headers)


def test_time_is_that_of_the_attempt():
    first, second = (headers_of(delivery(b"{}", b"s" * 32, at=at)) for at in (100, 105))
    assert (first["webhook-timestamp"], second["webhook-timestamp"]) == ("100", "105")
    assert first["webhook-id"] == second["webhook-id"]
    assert first["webhook-signature"] != second["webhook-signature"]


def test_an_id_with_a_dot_is_not_signed():
    with pytest.raises(ValueError, match="dot"):
        sign(b"s" * 32, "msg.1", 1, b"{}")


def test_what_is_no_secret_is_refused():
    with pytest.raises(ValueError, match="whsec_"):
        secret_bytes("whsec_!")
