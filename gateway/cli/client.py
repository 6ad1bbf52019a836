"""A client of a running gateway, as the commands need it: JSON in and out, event streams, uploads, downloads.

Every failure is a ``ClientError`` with one sentence.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiofiles
import orjson

from gateway import httpclient
from gateway.blobs.fetch import tls_context

#: A stream may be silent for three of the gateway's 15 s pings before it is taken for dead.
READ_SECONDS = 45.0
CONNECT_SECONDS = 5.0


class ClientError(Exception):
    """The gateway could not be asked, or said no."""


class GatewayClient:
    """Speaks to the gateway at ``url``, with a Bearer token when there is one.

    Args:
        verify: what an https gateway's certificate is checked with.
    """

    def __init__(self, url: str, token: str | None = None, *, verify: ssl.SSLContext | bool = True) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._verify = verify

    @property
    def url(self) -> str:
        """Base URL, without a slash at its end."""
        return self._url

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """The JSON at a path."""
        return await self._json("GET", path, query=query)

    async def admin(self, method: str, path: str, body: object = None) -> Any:
        """A request with another method than GET, or with a body."""
        return await self._json(method, path, body=body)

    async def _json(
        self, method: str, path: str, *, body: object = None, query: Mapping[str, str] | None = None
    ) -> Any:
        async with self.open() as http:
            content = _written(body) if body else None
            headers = {"Content-Type": "application/json"} if body else None
            try:
                response = await http.request(method, path, params=query, content=content, headers=headers)
            except (httpclient.TransportError, httpclient.InvalidURL) as error:
                raise self.unreachable(error) from error
            require_success(response.status_code, response.content)
            try:
                return orjson.loads(response.content) if response.content else None
            except orjson.JSONDecodeError as error:
                raise ClientError(f"What answers at {self._url} is no gateway: give --url its base URL.") from error

    def _authorities(self, *, leaves: bool = False) -> ssl.SSLContext | bool:
        named = os.environ.get("GATEWAY_CA_FILE")
        if self._verify is not True or not named or not (leaves or self._url.startswith("https:")):
            return self._verify
        try:
            return tls_context(Path(named))
        except OSError as error:
            raise ClientError(f"GATEWAY_CA_FILE: {named} cannot be read or holds no certificate.") from error

    @asynccontextmanager
    async def open(self, *, leaves: bool = False) -> AsyncIterator[httpclient.AsyncClient]:
        """An HTTP client on the gateway's base URL; ``leaves`` when it may be sent on to others."""
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        timeout = httpclient.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
        try:
            made = httpclient.make_client(
                base_url=self._url, headers=headers, timeout=timeout, verify=self._authorities(leaves=leaves)
            )
        except httpclient.InvalidURL as error:
            raise self.unreachable(error) from error
        async with made as http:
            yield http

    async def admin_stream(self, path: str, *, read_seconds: float) -> AsyncIterator[bytes]:
        """The body at a path that wants the admin token, piece by piece.

        Raises:
            ClientError: it was refused, or broke off.
        """
        timeout = httpclient.Timeout(read_seconds, connect=CONNECT_SECONDS)
        begun = False
        async with self.open() as http:
            try:
                async with http.stream("GET", path, timeout=timeout) as response:
                    if response.status_code != httpclient.codes.OK:
                        require_success(response.status_code, await response.aread())
                        raise ClientError(f"What answers at {self._url} is no gateway: give --url its base URL.")
                    async for chunk in response.aiter_bytes(1024 * 1024):
                        begun = True
                        yield chunk
            except (httpclient.TransportError, httpclient.InvalidURL) as error:
                if not begun:
                    raise self.unreachable(error) from error
                raise ClientError(
                    f"The connection to {self._url} was lost ({type(error).__name__}): see its log, and try again."
                ) from error

    async def download(self, path: str, into: Path) -> None:
        """Save a file, from where the gateway sends us for it. Nothing is written unless it comes; the token goes nowhere else."""
        async with self.open(leaves=True) as http:
            try:
                async with http.stream("GET", path, follow_redirects=True) as response:
                    if response.status_code != httpclient.codes.OK:
                        if not response.history:
                            require_success(response.status_code, await response.aread())
                        raise ClientError(f"For the file {response.url.host} answered {response.status_code}.")
                    async with aiofiles.open(into, "wb") as out:
                        async for chunk in response.aiter_bytes(1024 * 1024):
                            await out.write(chunk)
            except (httpclient.TransportError, httpclient.TooManyRedirects) as error:
                if str(error.request.url).startswith(f"{self._url}/"):
                    raise self.unreachable(error) from error
                # The rest of that URL is a secret.
                raise ClientError(
                    f"The gateway sends downloads on to {error.request.url.host}, and they cannot be had from there "
                    f"({type(error).__name__})."
                ) from error

    def unreachable(self, error: Exception) -> ClientError:
        """The sentence for a gateway that does not answer."""
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return ClientError(
                f"The certificate shown at {self._url} is not trusted: give --url the host name that stands in it, and "
                "GATEWAY_CA_FILE its authority; on the gateway's own machine leave --url away."
            )
        return ClientError(
            f"No gateway answers at {self._url} ({type(error).__name__}): start one with 'comfygate serve', or give --url."
        )


def _written(body: object) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError as error:  # of more than 64 bits, or bytes of the command line that are no UTF-8
        raise ClientError("A number is too large, or a text is no Unicode: the gateway cannot be told it.") from error


def require_success(status: int, body: bytes) -> None:
    """Raise ClientError with the gateway's own sentence for an error status."""
    if status < 400:  # noqa: PLR2004 - where errors begin
        return
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        said = {}
    said = said if isinstance(said, dict) else {}
    sentence = said.get("detail") or said.get("title") or f"the gateway answered {status}"
    if status == httpclient.codes.UNAUTHORIZED:
        sentence += " (give --token, or set GATEWAY_ADMIN_TOKEN)"
    raise ClientError(str(sentence))
