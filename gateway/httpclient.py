"""The one module that knows httpx, so that moving to its continuation is one import.

Nothing is decided here but what holds for every outgoing call: no proxy from the environment, no redirect followed
unasked, every wait with an end. What a failure means is for each caller to say.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping

import httpx
from httpx import AsyncClient, InvalidURL, Limits, Response, Timeout, TooManyRedirects, TransportError, codes

__all__ = [
    "AsyncClient",
    "InvalidURL",
    "Response",
    "Timeout",
    "TooManyRedirects",
    "TransportError",
    "codes",
    "make_client",
]


def make_client(
    *,
    base_url: str = "",
    headers: Mapping[str, str] | None = None,
    timeout: Timeout,
    verify: ssl.SSLContext | bool = True,
) -> AsyncClient:
    """A client; keep one per target, since building one costs tens of milliseconds (TLS context)."""
    return httpx.AsyncClient(
        base_url=base_url,
        headers={"User-Agent": "comfygate", **(headers or {})},
        timeout=timeout,
        limits=Limits(max_connections=20, max_keepalive_connections=5),
        verify=verify,
        trust_env=False,
        follow_redirects=False,
    )
