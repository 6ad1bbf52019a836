"""``interfaces.Bucket`` over boto3, in threads of its own: slow storage holds up neither the event loop nor the disk's threads.

What is large goes up in parts, four at a time, each read from the file as it is sent, so memory does not depend on sizes. An
upload in parts is invisible until it is completed, and completed only when every part was taken with its MD5. Its SHA-256
stands with the object, and size and SHA-256 are held against a HEAD afterwards.

A try that failed in passing is repeated, a part or a request at a time, until ``GIVE_UP_SECONDS`` have gone by. What the
storage refuses is not. Source: Amazon S3 API reference; limits: user guide, "Multipart upload limits".
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar, cast

import anyio
import structlog
from botocore.exceptions import ClientError
from botocore.response import StreamingBody

from gateway.errors import StorageUnreachableError
from gateway.interfaces import StoredObject, Trouble
from gateway.naming import content_disposition
from gateway.object_url import ObjectUrl
from gateway.objects.failures import FAILURES, SENTENCE, Kind, UploadGoneError, as_ours, kind_of, told
from gateway.objects.reading import chunks
from gateway.objects.session import open_client
from gateway.objects.spans import Span, measured, sha256_told
from gateway.objects.threads import ended, run_in
from gateway.objects.troubles import Troubles

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

#: From here on a file goes up in parts; a part is at least 5 MiB on Amazon's.
MULTIPART_FROM_BYTES: Final = 16 * 1024**2
PART_BYTES: Final = 16 * 1024**2
PARTS_AT_ONCE: Final = 4
#: Requests under way at once.
THREADS: Final = 16
#: Between two tries; the last holds for all further ones.
WAIT_SECONDS: Final = (0.3, 1.0, 2.0, 4.0, 8.0)
#: No try is begun later than this after the first.
GIVE_UP_SECONDS: Final = 30.0
#: With each object, as metadata of the user's: what it was when it was sent.
SHA256: Final = "sha256"

R = TypeVar("R")
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How large parts are and how long is tried; tests are in a hurry."""

    part_bytes: int = PART_BYTES
    multipart_from_bytes: int = MULTIPART_FROM_BYTES
    wait_seconds: tuple[float, ...] = WAIT_SECONDS
    give_up_seconds: float = GIVE_UP_SECONDS


class S3Bucket:
    """One prefix of a bucket. Made by ``open``.

    Args:
        place: bucket and prefix.
        client: boto3's; closed with this.
        pace: sizes and times.
    """

    def __init__(self, place: ObjectUrl, client: S3Client, pace: Pace) -> None:
        self._place = place
        self._client = client
        self._pace = pace
        self._threads = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="s3")
        # (key, upload id) of the uploads in parts that this process is at.
        self._uploads: set[tuple[str, str]] = set()
        self._troubles = Troubles(place.location(""))

    @classmethod
    async def open(cls, place: ObjectUrl, *, ca_file: Path | None = None, pace: Pace | None = None) -> S3Bucket:
        """A bucket; nothing is asked of it yet. Raises NoCredentialsFoundError, and OSError for a CA file that is none."""
        client = await asyncio.to_thread(open_client, place, connections=2 * THREADS, ca_file=ca_file)
        return cls(place, client, pace or Pace())

    async def close(self) -> None:
        """Wait for what was begun, and let go of threads and connections."""
        await asyncio.to_thread(self._threads.shutdown)
        await asyncio.to_thread(self._client.close)

    def location(self, key: str) -> str:
        """``s3://bucket/prefix/key``."""
        return self._place.location(key)

    def trouble(self) -> Trouble | None:
        """The newest that is not over."""
        return self._troubles.newest()

    # ------------------------------------------------------------------------------------------------------------ going up

    async def put(
        self, key: str, path: Path, *, content_type: str = "application/octet-stream", filename: str | None = None
    ) -> StoredObject:
        """Have the bytes of a file stored; see ``interfaces.Bucket``.

        Raises:
            FileNotFoundError: there is no such file.
            StorageUnreachableError: it was not stored, or not as it was sent.
        """
        stopped = threading.Event()
        size_bytes, sha256 = await self._run(measured, path)
        headers: dict[str, Any] = {"ContentType": content_type, "Metadata": {SHA256: sha256}}
        if filename is not None:
            headers["ContentDisposition"] = content_disposition(filename, "attachment")
        span = Span(path, 0, size_bytes)
        if size_bytes < self._pace.multipart_from_bytes:
            await self._asked(self._put_whole, key, span, headers, stopped, stopped=stopped)
        else:
            try:
                await self._put_in_parts(key, span, headers, threading.Event(), sha256)
            except UploadGoneError:  # somebody aborted it; whoever does that twice means it
                await self._put_in_parts(key, span, headers, threading.Event(), sha256)
        found = await self.look(key)
        if found is None or found.size_bytes != size_bytes or found.sha256 not in {None, sha256}:
            raise StorageUnreachableError(SENTENCE, reason="what was stored is not what was sent")
        return replace(found, sha256=sha256)

    def _put_whole(self, key: str, span: Span, headers: Mapping[str, Any], stopped: threading.Event) -> None:
        with closing(span.opened(stopped)) as body:
            self._client.put_object(
                **self._at(key),
                Body=cast("IO[bytes]", body),
                ContentMD5=body.md5(),
                ContentLength=span.size_bytes,
                **headers,
            )

    async def _put_in_parts(
        self, key: str, whole: Span, headers: Mapping[str, Any], stopped: threading.Event, sha256: str
    ) -> None:
        begun = await self._asked(self._begin, key, headers)
        upload = (key, begun)
        self._uploads.add(upload)
        try:
            tags = await self._send_parts(upload, whole.parts(self._pace.part_bytes), stopped)
            await self._complete(upload, tags, whole.size_bytes, sha256)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._abort_after_failure(upload)
            raise
        finally:
            self._uploads.discard(upload)

    def _begin(self, key: str, headers: Mapping[str, Any]) -> str:
        return str(self._client.create_multipart_upload(**self._at(key), **headers)["UploadId"])

    async def _send_parts(self, upload: tuple[str, str], spans: list[Span], stopped: threading.Event) -> dict[int, str]:
        """Entity tags by the numbers of parts. No thread sends any more when this is over, however it ends."""
        numbers = iter(range(1, len(spans) + 1))
        tags: dict[int, str] = {}

        async def send() -> None:
            for number in numbers:
                tags[number] = await self._asked(
                    self._put_part, upload, number, spans[number - 1], stopped, stopped=stopped
                )

        senders = [
            asyncio.create_task(send(), name=f"parts of {upload[0][-12:]}")
            for _ in range(min(PARTS_AT_ONCE, len(spans)))
        ]
        try:
            await asyncio.gather(*senders)
        finally:
            stopped.set()
            for sender in senders:
                sender.cancel()
            for sender in senders:
                await ended(sender)
        return tags

    def _put_part(self, upload: tuple[str, str], number: int, span: Span, stopped: threading.Event) -> str:
        key, upload_id = upload
        with closing(span.opened(stopped)) as body:
            answer = self._client.upload_part(
                **self._at(key),
                UploadId=upload_id,
                PartNumber=number,
                Body=cast("IO[bytes]", body),
                ContentMD5=body.md5(),
                ContentLength=span.size_bytes,
            )
            return str(answer["ETag"])

    async def _complete(self, upload: tuple[str, str], tags: Mapping[int, str], size_bytes: int, sha256: str) -> None:
        key, upload_id = upload
        parts: Any = {"Parts": [{"PartNumber": number, "ETag": tags[number]} for number in sorted(tags)]}

        def complete() -> None:
            self._client.complete_multipart_upload(**self._at(key), UploadId=upload_id, MultipartUpload=parts)

        try:
            await self._asked(complete)
        except UploadGoneError as error:
            # An earlier try was heard, and its answer lost on the way.
            found = await self.look(key)
            if found is None or found.size_bytes != size_bytes or found.sha256 not in {None, sha256}:
                raise as_ours(error.cause) from error

    async def _abort_after_failure(self, upload: tuple[str, str]) -> None:
        try:
            await self._asked(self._abort, *upload)
        except StorageUnreachableError as error:
            # ``abort_unfinished`` does it when the storage can be reached again.
            log.warning("upload_not_aborted", reason=error.reason)

    def _abort(self, key: str, upload_id: str) -> None:
        try:
            self._client.abort_multipart_upload(**self._at(key), UploadId=upload_id)
        except ClientError as error:
            if kind_of(error) not in {Kind.UPLOAD_GONE, Kind.MISSING}:
                raise

    async def abort_unfinished(self, *, older_than: float, under: str = "") -> int:
        """Drop uploads in parts of runs that are dead; see ``interfaces.Bucket``."""
        left = [
            upload
            for upload, begun_at in await self._asked(self._unfinished, under)
            if begun_at < older_than and upload not in self._uploads
        ]
        for upload in left:
            await self._asked(self._abort, *upload)
        return len(left)

    def _unfinished(self, under: str) -> list[tuple[tuple[str, str], float]]:
        pages = self._client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self._place.bucket, Prefix=self._place.key(under)
        )
        skip = len(self._place.key(""))
        try:
            return [
                ((found["Key"][skip:], found["UploadId"]), found["Initiated"].timestamp())
                for page in pages
                for found in page.get("Uploads", ())
                if found["Key"].startswith(self._place.key(under))
            ]
        except ClientError as error:
            if kind_of(error) is Kind.UPLOAD_GONE:  # rclone's answer where there has been none yet
                return []
            raise

    # -------------------------------------------------------------------------------------------------------- looking, down

    async def look(self, key: str) -> StoredObject | None:
        """What is there; None when nothing is. Raises StorageUnreachableError."""
        try:
            return await self._asked(self._head, key)
        except FileNotFoundError:
            return None

    def _head(self, key: str) -> StoredObject:
        found = self._client.head_object(**self._at(key))
        return StoredObject(
            key, found["ContentLength"], found["LastModified"].timestamp(), found.get("Metadata", {}).get(SHA256)
        )

    async def copy(self, source: str, key: str, *, content_type: str, filename: str, sha256: str) -> None:
        """Have an object stored under another key, too; see ``interfaces.Bucket``.

        The storage is asked for a SHA-256 of the copy, which it works out of the bytes that it has; some do not do that.
        """
        there, where = self._at(source), self._at(key)

        def copy() -> None:
            self._client.copy_object(
                **where,
                CopySource={"Bucket": there["Bucket"], "Key": there["Key"]},
                MetadataDirective="REPLACE",
                ChecksumAlgorithm="SHA256",
                ContentType=content_type,
                ContentDisposition=content_disposition(filename, "attachment"),
                Metadata={SHA256: sha256},
            )

        # A thread that goes on when nobody wants its copy any more would bring back what is deleted then.
        stopped = threading.Event()
        await self._asked(copy, stopped=stopped)

    async def sha256_found(self, key: str) -> str | None:
        """What the storage has worked out itself; see ``interfaces.Bucket``. Raises FileNotFoundError."""
        return await self._asked(self._checksum, key)

    def _checksum(self, key: str) -> str | None:
        found = self._client.head_object(**self._at(key), ChecksumMode="ENABLED")
        return sha256_told(found.get("ChecksumSHA256", ""))

    async def stream(self, key: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes]:
        """Bytes from ``start`` up to but without ``end``, in chunks of at most half a MiB.

        A connection that breaks, or that the storage closes on a slow reader, is taken up where it ended, in the same object.

        Raises:
            FileNotFoundError: it is not there.
            StorageUnreachableError: it cannot be read, or another one has taken its place meanwhile.
        """
        at, tag, failures = start, None, 0
        while end is None or at < end:
            opened = await self._asked(self._open, key, at, end, tag)
            if opened is None:  # it begins behind the end
                return
            body, tag = opened
            try:
                async with aclosing(chunks(body, self._threads)) as pieces:
                    async for chunk in pieces:
                        at, failures = at + len(chunk), 0
                        yield chunk
            except StorageUnreachableError as error:
                failures += 1
                if failures > len(self._pace.wait_seconds):
                    raise
                log.info("download_taken_up", reason=error.reason)
            else:
                return

    def _open(self, key: str, start: int, end: int | None, tag: str | None) -> tuple[StreamingBody, str] | None:
        options: dict[str, Any] = {} if tag is None else {"IfMatch": tag}
        if start or end is not None:
            options["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        try:
            answer = self._client.get_object(**self._at(key), **options)
        except ClientError as error:
            if kind_of(error) is Kind.PAST_THE_END:
                return None
            raise
        # By the field and not by the status: ``rclone serve s3`` answers a span with 200.
        if "Range" in options and not str(answer.get("ContentRange", "")).startswith(f"bytes {start}-"):
            answer["Body"].close()
            raise StorageUnreachableError(SENTENCE, reason="GetObject: no span was answered", is_refusal=True)
        try:
            return answer["Body"], answer["ETag"]
        except KeyError:
            answer["Body"].close()
            raise

    async def listed(self, under: str = "") -> AsyncIterator[StoredObject]:
        """All objects whose key begins so, a page of them in memory at a time. Raises StorageUnreachableError."""
        token: str | None = None
        while True:
            page, token = await self._asked(self._page, under, token)
            for found in page:
                yield found
            if token is None:
                return

    def _page(self, under: str, token: str | None) -> tuple[list[StoredObject], str | None]:
        options: dict[str, Any] = {} if token is None else {"ContinuationToken": token}
        answer = self._client.list_objects_v2(Bucket=self._place.bucket, Prefix=self._place.key(under), **options)
        skip = len(self._place.key(""))
        page = [
            StoredObject(found["Key"][skip:], found["Size"], found["LastModified"].timestamp())
            for found in answer.get("Contents", ())
        ]
        # Every listing says it; a proxy's page, read as one, says nothing at all, and would count as an empty one.
        return page, answer.get("NextContinuationToken") if answer["IsTruncated"] else None

    async def delete(self, key: str) -> None:
        """Have it gone; it may be gone already. Raises StorageUnreachableError."""
        try:
            status = await self._asked(self._delete, key)
        except FileNotFoundError:
            return
        if status != HTTPStatus.NO_CONTENT and await self.look(key) is not None:
            raise StorageUnreachableError(SENTENCE, reason="DeleteObject: it is still there")

    def _delete(self, key: str) -> int:
        return self._client.delete_object(**self._at(key))["ResponseMetadata"]["HTTPStatusCode"]

    # ---------------------------------------------------------------------------------------------------------------- links

    async def presigned_get(
        self, key: str, *, seconds: int, filename: str, content_type: str, disposition: str = "attachment"
    ) -> str:
        """A link that anybody may GET for a while. Raises StorageUnreachableError when no credentials can be had."""
        wanted = {
            **self._at(key),
            "ResponseContentType": content_type,
            "ResponseContentDisposition": content_disposition(filename, disposition),
            "ResponseCacheControl": f"private, max-age={seconds}",
        }
        return await self._asked(
            lambda: str(self._client.generate_presigned_url("get_object", Params=wanted, ExpiresIn=seconds))
        )

    async def presigned_put(self, key: str, *, seconds: int, content_type: str | None = None) -> str:
        """A link that anybody may PUT bytes to for a while; with ``content_type`` under that header only."""
        wanted: dict[str, Any] = {**self._at(key), **({"ContentType": content_type} if content_type else {})}
        return await self._asked(
            lambda: str(self._client.generate_presigned_url("put_object", Params=wanted, ExpiresIn=seconds))
        )

    # --------------------------------------------------------------------------------------------------------------- asking

    def _at(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._place.bucket, "Key": self._place.key(key)}

    async def _asked(self, work: Callable[..., R], *arguments: object, stopped: threading.Event | None = None) -> R:
        """The answer to a request, tried again where that can help.

        Raises:
            FileNotFoundError: there is no such object.
            StorageUnreachableError: with what was said last.
        """
        begun_at = time.monotonic()
        tries = 0
        while True:
            try:
                answer = await self._run(work, *arguments, stopped=stopped)
            except FAILURES as error:
                kind = kind_of(error)
                if kind is Kind.MISSING:
                    self._troubles.over(work.__name__)
                    raise FileNotFoundError from error
                if kind is Kind.UPLOAD_GONE:
                    self._troubles.over(work.__name__)
                    raise UploadGoneError(error) from error
                wait = self._pace.wait_seconds[min(tries, len(self._pace.wait_seconds) - 1)]
                if kind is not Kind.PASSING or time.monotonic() - begun_at + wait > self._pace.give_up_seconds:
                    log.warning("storage_failed", reason=told(error), tries=tries + 1)
                    self._troubles.note(work.__name__, Trouble(told(error), is_refusal=kind is Kind.REFUSAL))
                    raise as_ours(error) from error
                tries += 1
                await asyncio.sleep(wait)
            else:
                self._troubles.over(work.__name__)
                return answer

    async def _run(self, work: Callable[..., R], *arguments: object, stopped: threading.Event | None = None) -> R:
        return await run_in(self._threads, work, *arguments, stopped=stopped)
