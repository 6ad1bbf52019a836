"""The one module that knows httpx, so that moving to its continuation is one import.

Nothing is decided here but what holds for every outgoing call: no proxy from the environment, no redirect followed
unasked, every wait with an end. What a failure means is for each caller to say.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping

import httpx
from httpx import (
    AsyncBaseTransport,
    AsyncClient,
    InvalidURL,
    Limits,
    Response,
    StreamError,
    Timeout,
    TransportError,
    codes,
)

__all__ = [
    "AsyncBaseTransport",
    "AsyncClient",
    "InvalidURL",
    "Limits",
    "Response",
    "StreamError",
    "Timeout",
    "TransportError",
    "codes",
    "httpx",
    "make_client",
]


def make_client(
    *,
    base_url: str = "",
    headers: Mapping[str, str] | None = None,
    timeout: Timeout,
    limits: Limits | None = None,
    verify: ssl.SSLContext | bool = True,
    transport: AsyncBaseTransport | None = None,
) -> AsyncClient:
    """A client; keep one per target, since building one costs tens of milliseconds (TLS context)."""
    return httpx.AsyncClient(
        base_url=base_url,
        headers={"User-Agent": "comfygate", **(headers or {})},
        timeout=timeout,
        limits=limits or Limits(max_connections=20, max_keepalive_connections=5),
        verify=verify,
        transport=transport,
        trust_env=False,
        follow_redirects=False,
    )
