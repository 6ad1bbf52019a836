"""One file put to one URL, streamed out of the blob store through the guard (``sending.py``).

Only https goes: what is sent is the client's, and the URL mostly a secret. The deadline of an attempt grows with the file.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from gateway.delivering import Answer, Reason, Upload
from gateway.errors import SourceUnreachableError
from gateway.interfaces import Blobs, Outgoing, Sender

#: For everything but the bytes: the look-up, the handshake, and what the other side does when it has them all.
PATIENCE_SECONDS: Final = 60.0
#: A way out that is slower than this is none: a file of 1 GiB has 2 h 17 min.
LEAST_BYTES_PER_SECOND: Final = 128 * 1024


class UrlPutter:
    """``interfaces.UrlUploader``.

    Args:
        blobs: where the bytes are.
        sender: carries them, guarded.
        patience_seconds: see above.
    """

    def __init__(self, blobs: Blobs, sender: Sender, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._blobs = blobs
        self._sender = sender
        self._patience_seconds = patience_seconds

    async def put(self, upload: Upload) -> Answer:
        """One PUT; what came of it. A refused place and one that does not answer are told alike."""
        outgoing = Outgoing(
            "PUT",
            upload.url,
            upload.content_type,
            upload.size_bytes,
            _Whole(self._blobs.stream(upload.blob), upload.size_bytes),
            patience_seconds=self._patience_seconds,
            deadline_seconds=self._patience_seconds + upload.size_bytes / LEAST_BYTES_PER_SECOND,
            https_only=True,
        )
        try:
            heard = await self._sender.send(outgoing)
        except TimeoutError:
            return Answer(Reason.TIMED_OUT)
        except FileNotFoundError:
            return Answer(Reason.EXPIRED)
        except SourceUnreachableError:
            return Answer(Reason.UNREACHABLE)
        return Answer(Reason.ANSWERED, heard.status, heard.retry_after_seconds)


class _Whole:
    """A file's chunks; fewer bytes than announced are an error of ours, not an end."""

    def __init__(self, chunks: AsyncIterator[bytes], size_bytes: int) -> None:
        self._chunks = chunks
        self._left = size_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            self._left -= len(chunk)
            yield chunk
        if self._left:
            raise FileNotFoundError
