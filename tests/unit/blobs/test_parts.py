import errno
import os
import shutil
from pathlib import Path

import pytest
from blake3 import blake3

from gateway.blobs import parts
from gateway.blobs.local import LocalBlobs
from gateway.errors import StorageFullError
from gateway.interfaces import Blob


@pytest.fixture
async def blobs(tmp_path):
    store = LocalBlobs(tmp_path / "blobs", floor_bytes=1000, free=lambda _folder: 10**12)
    await store.prepare()
    yield store
    await store.close()


@pytest.fixture
def finished(tmp_path):
    path = tmp_path / "finished"
    path.write_bytes(b"whole")
    path.chmod(0o644)
    return path


def everything(tmp_path):
    return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir())


def place(data):
    name = blake3(data).hexdigest()
    return f"blobs/{name[:2]}/{name}"


def on_another_disk(monkeypatch, path):
    real = Path.rename

    def rename(self, target):
        if self == path:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)


async def test_a_file_on_the_same_disk_is_moved_and_not_copied(blobs, finished, tmp_path):
    inode = finished.stat().st_ino
    blob = await blobs.adopt(finished)
    found = blobs.path(blob.hash).stat()
    assert (found.st_ino, found.st_mode & 0o777) == (inode, 0o600)
    assert everything(tmp_path) == [place(b"whole")]


async def test_a_file_on_another_disk_is_copied(blobs, finished, tmp_path, monkeypatch):
    on_another_disk(monkeypatch, finished)
    blob = await blobs.adopt(finished)
    assert blob == Blob(blake3(b"whole").hexdigest(), 5)
    assert blobs.path(blob.hash).stat().st_mode & 0o777 == 0o600
    assert everything(tmp_path) == [place(b"whole")]


@pytest.mark.parametrize("size_bytes", [0, 1, parts._HASHED_PIECE_BYTES, 2 * parts._HASHED_PIECE_BYTES + 3])
async def test_hash_and_size_are_those_of_the_whole_file(blobs, finished, size_bytes):
    data = bytes(range(256)) * (size_bytes // 256) + b"x" * (size_bytes % 256)
    finished.write_bytes(data)
    assert await blobs.adopt(finished) == Blob(blake3(data).hexdigest(), size_bytes)


async def test_bytes_are_on_the_disk_before_they_get_their_name_and_the_name_before_the_answer(
    blobs, finished, tmp_path, monkeypatch
):
    steps = []
    real_sync, real_rename = os.fsync, Path.rename

    def sync(descriptor):
        kind = "folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file"  # noqa: PTH112 - a link of proc
        steps.append(f"sync {kind}")
        real_sync(descriptor)

    def rename(self, target):
        steps.append(f"rename into {target.parent.name}")
        return real_rename(self, target)

    folder = (tmp_path / place(b"whole")).parent
    folder.mkdir()
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "rename", rename)
    await blobs.adopt(finished)
    assert steps == ["rename into parts", "sync file", f"rename into {folder.name}", "sync folder"]


@pytest.mark.parametrize("is_elsewhere", [False, True])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
async def test_a_file_that_cannot_be_taken_leaves_nothing(blobs, finished, tmp_path, monkeypatch, number, is_elsewhere):
    def broken(*_):
        raise OSError(number, "broken")

    if is_elsewhere:
        on_another_disk(monkeypatch, finished)
        monkeypatch.setattr(shutil, "copyfile", broken)
    else:
        monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError if number == errno.EIO else StorageFullError):
        await blobs.adopt(finished)
    assert everything(tmp_path) == []


@pytest.mark.parametrize(
    ("free", "is_elsewhere", "fits"),
    [(999, False, False), (1000, False, True), (1000, True, False), (5000, True, True)],
)
async def test_room_is_asked_for_and_for_a_copy_as_much_as_it_takes(
    tmp_path, finished, monkeypatch, free, is_elsewhere, fits
):
    finished.write_bytes(b"x" * 5000)
    if is_elsewhere:
        on_another_disk(monkeypatch, finished)
    blobs = LocalBlobs(tmp_path / "blobs", floor_bytes=1000, free=lambda _folder: free)
    await blobs.prepare()
    if fits:
        assert (await blobs.adopt(finished)).size_bytes == 5000
    else:
        with pytest.raises(StorageFullError):
            await blobs.adopt(finished)
        assert everything(tmp_path) == []
    await blobs.close()


async def test_a_link_is_not_followed(blobs, tmp_path):
    secret, link = tmp_path / "secret", tmp_path / "link"
    secret.write_bytes(b"not yours")
    link.symlink_to(secret)
    with pytest.raises(OSError, match="symbolic link"):
        await blobs.adopt(link)
    assert everything(tmp_path) == ["secret"]
