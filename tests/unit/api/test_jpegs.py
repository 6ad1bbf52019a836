from __future__ import annotations

import asyncio
import base64
import io

import pytest
from PIL import Image

from gateway.api import jpegs
from gateway.api.jpegs import MAX_JPEG_BYTES, JpegPreviews, as_jpeg
from gateway.events import PreviewImage


def picture(kind: str, size: tuple[int, int] = (64, 32), mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.new(mode, size).save(out, kind)
    return out.getvalue()


def opened(data: bytes | None) -> Image.Image:
    assert data is not None
    shown = Image.open(io.BytesIO(data))
    assert shown.format == "JPEG"
    return shown


def test_a_jpeg_goes_through_as_it_is():
    data = picture("JPEG")
    assert as_jpeg(data) is data


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "1", "LA", "I;16"])
def test_a_png_of_any_mode_becomes_a_jpeg(mode: str):
    assert opened(as_jpeg(picture("PNG", mode=mode))).size == (64, 32)


def test_a_webp_becomes_a_jpeg():
    assert opened(as_jpeg(picture("WEBP"))).size == (64, 32)


def test_what_is_large_becomes_small():
    assert opened(as_jpeg(picture("PNG", (3000, 1500)))).size == (1024, 512)


def test_a_jpeg_that_is_too_large_is_written_anew():
    padded = picture("JPEG", (2048, 2048)) + bytes(MAX_JPEG_BYTES)
    assert opened(as_jpeg(padded)).size == (1024, 1024)


def test_a_picture_of_too_many_pixels_is_not_looked_at():
    assert as_jpeg(picture("PNG", (8200, 2100), "1")) is None


@pytest.mark.parametrize("data", [b"", b"text", picture("GIF"), picture("PNG")[:60], b"\x89PNG\r\n\x1a\n" * 9])
def test_what_is_no_such_picture_is_none(data: bytes):
    assert as_jpeg(data) is None


async def test_each_picture_is_made_once_however_many_ask(monkeypatch: pytest.MonkeyPatch):
    made: list[bytes] = []
    monkeypatch.setattr(jpegs, "as_jpeg", lambda data: made.append(data) or b"\xff\xd8\xff")
    frames, shown = JpegPreviews(), PreviewImage("job", "image/png", picture("PNG"), "7")

    first, second = await asyncio.gather(frames.of(shown), frames.of(shown))

    assert first is second is await frames.of(shown)
    assert len(made) == 1
    assert first is not None
    assert first.data == {
        "node_id": "7",
        "content_type": "image/jpeg",
        "data_base64": base64.b64encode(b"\xff\xd8\xff").decode(),
    }


async def test_one_who_leaves_does_not_take_it_from_the_others():
    frames, shown = JpegPreviews(), PreviewImage("job", "image/png", picture("PNG"))
    leaver = asyncio.create_task(frames.of(shown))
    await asyncio.sleep(0)
    leaver.cancel()

    frame = await frames.of(shown)

    assert frame is not None
    assert frame.data["node_id"] == ""


async def test_what_cannot_be_read_is_no_frame():
    assert await JpegPreviews().of(PreviewImage("job", "image/png", b"text")) is None
