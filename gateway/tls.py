"""The certificate that the gateway itself shows, where no proxy in front does it.

Read once, at the start, so that a wrong file is told in a sentence before anything is served: a renewed certificate is
taken up by a restart.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from gateway.data_dir import StartError


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """What connections are encrypted with: TLS 1.2 and newer, no client certificates.

    Args:
        certificate: PEM, the server's certificate first and those that lead to its authority after it.
        key: PEM, its private key, without a passphrase.

    Raises:
        StartError: a file cannot be read, is not what it should be, or the two do not belong together.
    """
    _require_readable("TLS_CERT", certificate)
    _require_readable("TLS_KEY", key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    asked_for_passphrase = False

    def no_passphrase() -> str:
        # Without a callback OpenSSL would ask on the terminal, and a service would wait there for ever.
        nonlocal asked_for_passphrase
        asked_for_passphrase = True
        return ""

    try:
        context.load_cert_chain(certificate, key, password=no_passphrase)
    except ssl.SSLError as error:
        raise StartError(_sentence(error, is_encrypted=asked_for_passphrase)) from error
    return context


def _require_readable(name: str, path: Path) -> None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StartError(
            f"GATEWAY_{name}: {path} cannot be read ({reason}): name a PEM file that you may read."
        ) from error


def _sentence(error: ssl.SSLError, *, is_encrypted: bool) -> str:
    if is_encrypted:
        return "GATEWAY_TLS_KEY is encrypted: give a key without a passphrase, readable by the gateway's user only."
    if error.reason == "KEY_VALUES_MISMATCH":
        return (
            "GATEWAY_TLS_KEY is not the key of the certificate in GATEWAY_TLS_CERT: name the two that belong together."
        )
    return "GATEWAY_TLS_CERT and GATEWAY_TLS_KEY must each be PEM, a certificate chain and its private key: one is not."
