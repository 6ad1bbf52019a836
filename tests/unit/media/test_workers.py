"""The child processes themselves: few tests, since each child takes a third of a second to start."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gateway.audit import MediaKind, Survey
from gateway.errors import InternalJobError, InvalidInputError, QueueFullError, ResultInvalidError, ShuttingDownError
from gateway.media import workers as workers_module
from gateway.media.process import Child, ChildLostError, _environment
from gateway.media.workers import MediaWorkers
from tests.tools.gateway_process import is_alive
from tests.tools.waiting import PATIENCE_SECONDS

IMAGES = frozenset({MediaKind.IMAGE})
ALL = frozenset(MediaKind)


@asynccontextmanager
async def running(**options):
    media = MediaWorkers(**options)
    await media.start()
    try:
        yield media
    finally:
        await media.close()


def pids(media):
    return [child._process.pid for child in media._children]


async def stopped(media):
    """Its only child can be asked, and says no more."""
    [child] = media._children
    await child._ready()
    os.kill(child._process.pid, signal.SIGSTOP)
    return child._process.pid


async def test_a_day_at_the_desk(studio):
    """Probe, refuse, compare, clean and refuse again, all by one warm child that then dies with the desk."""
    still = studio.folder / "x.png"
    info = PngInfo()
    info.add_text("prompt", "private-name")
    Image.new("RGB", (30, 20)).save(still, pnginfo=info)
    clip = studio.video()
    async with running() as media:
        assert (await media.probe(clip, field="video", accept=ALL)).frames == 12
        with pytest.raises(InvalidInputError, match="damaged") as refused:
            await media.probe(studio.write("cut.png", still.read_bytes()[:60]), field="image", accept=IMAGES)
        assert refused.value.field == "image"
        compared = await media.compare(clip, clip, crf=20, all_frames=False)
        assert (compared.changed, compared.frames_compared) == (False, 12)
        assert (await media.survey(clip, source=None)).is_flat is False
        assert (await media.survey(still, source=still)) == Survey(
            is_flat=True, drift=0.0, source_is_flat=True, is_black=True
        )
        into = studio.folder / "into"
        into.mkdir()
        pictures = await media.sample(clip, into, field="video", most=3, longest_side=48)
        assert sorted(into.iterdir()) == list(pictures) == [into / f"{number:04}.png" for number in range(3)]
        with pytest.raises(InvalidInputError, match="damaged") as refused:
            await media.sample(studio.folder / "cut.png", into, field="image", most=3, longest_side=48)
        assert refused.value.field == "image"
        out = studio.folder / "out.png"
        assert (await media.clean(still, out)).facts.width == 30
        assert b"private-name" not in out.read_bytes()
        moving = studio.folder / "moving.webp"
        Image.new("RGB", (30, 20)).save(moving, save_all=True, append_images=[Image.new("RGB", (30, 20), "red")])
        before = still.read_bytes()
        found = [await media.measure(path) for path in (still, clip, moving)]
        assert [(facts.kind, facts.width, facts.frames) for facts in found] == [
            (MediaKind.IMAGE, 30, 1), (MediaKind.VIDEO, 96, 12), (MediaKind.IMAGE, 30, 2),
        ]  # fmt: skip
        assert still.read_bytes() == before
        assert await media.measure(studio.video("old.mov", codec="prores_ks", pix_fmt="yuv422p10le")) is None
        with pytest.raises(ResultInvalidError, match="damaged"):
            await media.measure(studio.folder / "cut.png")
        missing = studio.folder / "none.png"
        with pytest.raises(ResultInvalidError):
            await media.clean(studio.write("text", b"no picture"), missing)
        assert not missing.exists()
        [pid] = pids(media)
        assert is_alive(pid)
    assert not is_alive(pid)
    with pytest.raises(ShuttingDownError):
        await media.probe(still, field="image", accept=IMAGES)


async def test_a_child_that_was_killed_between_tasks_is_replaced_unseen(studio):
    still = studio.folder / "x.png"
    Image.new("RGB", (30, 20)).save(still)
    async with running() as media:
        await media.probe(still, field="image", accept=IMAGES)
        [pid] = pids(media)
        os.kill(pid, signal.SIGKILL)
        assert (await media.probe(still, field="image", accept=IMAGES)).width == 30
        assert pid not in pids(media)


async def test_a_child_that_keeps_much_memory_is_replaced_after_the_task(studio, monkeypatch):
    still = studio.folder / "x.png"
    Image.new("RGB", (30, 20)).save(still)
    async with running() as media:
        [pid] = pids(media)
        await media.probe(still, field="image", accept=IMAGES)
        assert pids(media) == [pid]
        [child] = media._children
        assert child.resident_bytes is not None
        assert 10 * 1024**2 < child.resident_bytes < workers_module._MOST_RESIDENT_BYTES
        monkeypatch.setattr(workers_module, "_MOST_RESIDENT_BYTES", 1024**2)
        await media.probe(still, field="image", accept=IMAGES)
        assert not any(child.is_alive for child in media._children)


@pytest.mark.parametrize(
    ("asked", "resident_bytes", "is_worn"),
    [
        (4999, 512 * 1024**2, False),
        (1, 512 * 1024**2 + 1, True),
        (5000, 1024, True),
        (199, None, False),
        (200, None, True),
    ],
)
async def test_a_child_is_worn_by_what_it_keeps_and_by_its_tasks_sooner_where_it_cannot_tell(
    asked, resident_bytes, is_worn
):
    child = Child(None)
    child.asked, child.resident_bytes = asked, resident_bytes
    assert workers_module._is_worn(child) is is_worn


async def test_a_client_that_leaves_stops_the_decoding(studio, monkeypatch):
    """A stopped child stands for one that decodes for ever."""
    still = studio.folder / "x.png"
    Image.new("RGB", (30, 20)).save(still)
    asked = asyncio.Event()
    exchange = Child._exchange

    async def announced(child, line):
        asked.set()
        return await exchange(child, line)

    monkeypatch.setattr(Child, "_exchange", announced)
    async with running() as media:
        pid = await stopped(media)
        asking = asyncio.create_task(media.probe(still, field="image", accept=IMAGES), name="asking")
        await asked.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert not next(iter(media._children)).is_alive
    assert not is_alive(pid)


async def test_a_file_that_takes_too_long_is_refused_and_its_child_killed(studio, monkeypatch):
    monkeypatch.setattr(workers_module, "_PROBE_SECONDS", 0.01)
    monkeypatch.setattr(workers_module, "_COMPARE_SECONDS", 0.0)
    still = studio.folder / "x.png"
    Image.new("RGB", (30, 20)).save(still)
    async with running() as media:
        await stopped(media)
        with pytest.raises(InvalidInputError, match="could not be decoded within"):
            await media.probe(still, field="image", accept=IMAGES)
        with pytest.raises(InternalJobError, match="in time"):
            await media.compare(still, still, crf=None, all_frames=True)
        assert not any(child.is_alive for child in media._children)


async def test_more_uploads_than_may_wait_are_turned_away(studio, monkeypatch):
    monkeypatch.setattr(workers_module, "_MOST_WAITING", 0)
    async with running() as media:
        with pytest.raises(QueueFullError):
            await media.probe(studio.write("x", b"x"), field="image", accept=IMAGES)


async def test_a_child_has_a_cap_on_memory_and_none_of_our_environment(monkeypatch):
    monkeypatch.setenv("GATEWAY_ADMIN_TOKEN", "secret")
    child = await Child.start()
    try:
        task = {"do": "probe", "path": "/x", "accept": [], "limits": {}, "cpu_seconds": 7}
        await child.ask(task, timeout_seconds=PATIENCE_SECONDS)
        proc = Path(f"/proc/{child._process.pid}")
        limits = {line[:26].strip(): line[26:].split() for line in (proc / "limits").read_text().splitlines()}
        assert limits["Max address space"][0] == str(3 * 1024**3)
        assert 7 <= int(limits["Max cpu time"][0]) <= 10
        assert limits["Max core file size"][0] == "0"
        assert b"secret" not in (proc / "environ").read_bytes()
    finally:
        child.kill()
        await child.ended()


async def test_a_child_ends_with_its_input():
    child = await Child.start()
    assert child._process.stdin is not None
    child._process.stdin.close()
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await child._process.wait() == 0


async def test_the_time_that_a_child_takes_to_start_is_not_of_its_first_task():
    """Else a good file is refused where the machine has much to do."""
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", "read go; echo ready; cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    child = Child(process)
    try:
        asking = asyncio.create_task(child.ask({"do": "probe"}, timeout_seconds=0.0), name="asking")
        for _ in range(20):
            await asyncio.sleep(0)
        assert not asking.done()
        process.stdin.write(b"go\n")
        with pytest.raises(TimeoutError):
            await asking
    finally:
        child.kill()
        await child.ended()


@pytest.mark.parametrize("said", ["", "hello"])
async def test_a_child_that_does_not_start_is_lost(said):
    process = await asyncio.create_subprocess_exec(
        "echo", said, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    child = Child(process)
    with pytest.raises(ChildLostError):
        await child.ask({"do": "probe"}, timeout_seconds=PATIENCE_SECONDS)
    await child.ended()


async def test_an_answer_to_another_question_is_no_answer():
    """`cat` in the child's place: it gives back the question, whose number we then change."""
    process = await asyncio.create_subprocess_exec(
        "sed", "-u", 's/$/ /;s/"id": 1/"id": 9/', stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    child = Child(process, is_ready=True)
    try:
        with pytest.raises(ChildLostError):
            await child.ask({"do": "probe"}, timeout_seconds=5)
    finally:
        child.kill()
        await child.ended()


async def test_a_child_dies_with_a_parent_that_was_killed(tmp_path):
    """kill -9 of the gateway leaves nobody behind, though the child's input is still held open by someone else."""
    code = (
        "import asyncio\n"
        "from gateway.media.process import Child\n"
        "async def main():\n"
        "    child = await Child.start()\n"
        "    await child.ask({'do': 'probe', 'path': '/x', 'accept': [], 'limits': {}, 'cpu_seconds': 5},"
        f" timeout_seconds={PATIENCE_SECONDS})\n"
        "    print(child._process.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, env=_environment()
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    held = os.open(f"/proc/{pid}/fd/0", os.O_RDONLY)
    watched = os.pidfd_open(pid)
    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(watched, gone.set)
    try:
        assert is_alive(pid)
        parent.kill()
        await parent.wait()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await gone.wait()
    finally:
        asyncio.get_running_loop().remove_reader(watched)
        os.close(watched)
        os.close(held)
