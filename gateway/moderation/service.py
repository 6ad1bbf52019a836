"""A service of the operator's that is sent pictures by HTTP and says what it thinks of them.

``docs/safety.md`` tells the protocol: ``POST`` with the bytes of a PNG, a JSON object back. The address is the operator's
own, so it may be on loopback; redirects are not followed, and an answer is read up to a bound.
"""

from __future__ import annotations

import asyncio
import math
import re
import ssl
from pathlib import Path
from typing import Final

from gateway.errors import InvalidInputError
from gateway.httpclient import Response, Timeout, codes, make_client
from gateway.screening import MOST_RETRY_SECONDS, RETRY_PENDING_SECONDS, CheckFailedError, Opinion, Pending
from gateway.strictjson import loads_object

_CONNECT_SECONDS: Final = 5.0
MAX_ANSWER_BYTES: Final = 64 * 1024


class ServiceCheck:
    """``gateway.interfaces.SafetyCheck`` by a service.

    Args:
        url: where pictures are posted.
        token: sent as Bearer.
        tls: what its certificate is checked against.
        timeout_seconds: for one picture, from the first byte out to the last one in.
    """

    name = "service"

    def __init__(self, url: str, *, token: str | None, tls: ssl.SSLContext, timeout_seconds: float) -> None:
        self._url = url
        self._timeout_seconds = timeout_seconds
        headers = {"Content-Type": "image/png", "Accept": "application/json", "Accept-Encoding": "identity"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        timeout = Timeout(timeout_seconds, connect=min(_CONNECT_SECONDS, timeout_seconds))
        self._client = make_client(headers=headers, timeout=timeout, verify=tls)

    async def look(self, picture: Path, *, reference: str) -> Opinion | Pending:
        """What the service says of a PNG file. Raises CheckFailedError."""
        data = await asyncio.to_thread(picture.read_bytes)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._post(data, reference)
        except TimeoutError:
            raise CheckFailedError(f"the service did not answer within {self._timeout_seconds:g} s") from None
        except CheckFailedError:
            raise
        # Whatever the HTTP library and those below it raise, and it is more than they document, there is no answer. Its
        # text may name the address.
        except Exception as error:
            raise CheckFailedError(f"the service cannot be asked ({type(error).__name__})") from error

    async def _post(self, data: bytes, reference: str) -> Opinion | Pending:
        headers = {"X-Picture-Reference": reference}
        async with self._client.stream("POST", self._url, content=data, headers=headers) as response:
            body = await _bounded(response)
        return read_answer(response.status_code, response.headers.get("retry-after"), body)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


async def _bounded(response: Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise CheckFailedError("the service's answer is too long")
    return bytes(body)


def read_answer(status: int, retry_after: str | None, body: bytes) -> Opinion | Pending:
    """What an answer means.

    Raises:
        CheckFailedError: it is none: another status than 200 and 202, no JSON object, members of other kinds.
    """
    if status == codes.ACCEPTED:
        return Pending(_wait(retry_after))
    if status != codes.OK:
        raise CheckFailedError(f"the service answered {status}")
    try:
        told = loads_object(body)
    except InvalidInputError as error:
        raise CheckFailedError("the service's answer is no JSON object") from error
    pending, flagged, score = told.get("pending", False), told.get("flagged"), told.get("score", 0.0)
    if pending is True:
        return Pending(_wait(retry_after))
    if pending is not False or not isinstance(flagged, bool):
        raise CheckFailedError("the service's answer does not say whether the picture is flagged")
    if isinstance(score, bool) or not isinstance(score, int | float) or not (math.isfinite(score) and 0 <= score <= 1):
        raise CheckFailedError("the service's score is no number from 0 to 1")
    return Opinion(float(score), is_flagged=flagged)


def _wait(retry_after: str | None) -> int:
    """Seconds; a date is not read."""
    if retry_after is None or not re.fullmatch(r"[0-9]{1,6}", retry_after):
        return RETRY_PENDING_SECONDS
    return min(MOST_RETRY_SECONDS, max(1, int(retry_after)))
