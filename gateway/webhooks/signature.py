"""How a message is signed: Standard Webhooks, symmetric (``v1``).

Pure. What is signed is the id, the time of the attempt and the body, joined by dots: exactly the bytes that are sent. A
message carries one signature for each secret that is valid, so that a receiver can change its secret at its leisure.

Source: the Standard Webhooks specification 1.0.0, sections "Webhook headers" and "Signature scheme".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

from gateway.outbox import Delivery

PREFIX: Final = "whsec_"
_VERSION: Final = "v1"


def secret_text(secret: bytes) -> str:
    """A secret as its owner is told it."""
    return PREFIX + base64.b64encode(secret).decode()


def secret_bytes(text: str) -> bytes:
    """The secret that a text stands for, with or without its prefix.

    Raises:
        ValueError: it is none.
    """
    try:
        return base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("a secret is base64 behind whsec_") from error


def sign(secret: bytes, message_id: str, unix_seconds: int, body: bytes) -> str:
    """One signature.

    Raises:
        ValueError: the id holds a dot, so that another message could have the same signed text.
    """
    if "." in message_id:
        raise ValueError("the id of a message holds no dot")
    signed = f"{message_id}.{unix_seconds}.".encode() + body
    return f"{_VERSION},{base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()}"


def headers_of(delivery: Delivery) -> dict[str, str]:
    """The three fields of an attempt."""
    signatures = [
        sign(secret, delivery.message_id, delivery.unix_seconds, delivery.body) for secret in delivery.secrets
    ]
    return {
        "webhook-id": delivery.message_id,
        "webhook-timestamp": str(delivery.unix_seconds),
        "webhook-signature": " ".join(signatures),
    }
