from __future__ import annotations

import struct
import zlib
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from gateway.audit import MediaFacts, MediaKind
from gateway.media.limits import Limits

PICTURE = Image.fromarray(np.arange(40 * 60 * 3, dtype=np.uint32).reshape(40, 60, 3).astype(np.uint8))


def facts(answer):
    assert "done" in answer, answer
    return MediaFacts.from_json(answer["done"])


@pytest.mark.parametrize(("suffix", "kind"), [(".jpg", "image/jpeg"), (".png", "image/png"), (".webp", "image/webp")])
def test_facts_of_a_still(studio, probe, suffix, kind):
    path = studio.folder / f"anything{suffix}"
    PICTURE.save(path)
    assert facts(probe(path)) == MediaFacts(MediaKind.IMAGE, kind, suffix, 60, 40, 1, None, None, False, None)


def test_a_photo_laid_on_its_side_is_measured_upright(studio, probe):
    path = studio.folder / "phone.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    PICTURE.save(path, exif=exif)
    assert (facts(probe(path)).width, facts(probe(path)).height) == (40, 60)


def test_a_phone_photo_with_a_second_picture_is_a_still(studio, probe):
    path = studio.folder / "phone.jpg"
    PICTURE.save(path, format="MPO", save_all=True, append_images=[PICTURE])
    assert facts(probe(path)).frames == 1


def test_facts_of_a_gif_with_uneven_delays(studio, probe):
    path = studio.folder / "moving.gif"
    pages = [Image.new("RGB", (60, 40), (index * 40, 0, 0)) for index in range(5)]
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=[40, 120, 200, 20, 120])
    found = facts(probe(path))
    assert (found.kind, found.frames, found.fps) == (MediaKind.GIF, 5, Fraction(10))
    assert found.duration_seconds == 0.5


def test_a_gif_of_one_frame_has_no_rate(studio, probe):
    path = studio.folder / "still.gif"
    PICTURE.save(path)
    found = facts(probe(path))
    assert (found.kind, found.frames, found.fps) == (MediaKind.GIF, 1, None)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few kilobytes that says it is that large, and is: one bit a pixel, all the same."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("size", "named"), [((12_000, 12_000), "8192"), ((8192, 8192), "40 megapixels"), ((8193, 1), "8192")]
)
def test_a_small_file_with_a_huge_picture_is_refused(studio, probe, size, named):
    data = bomb(*size)
    assert len(data) < 20_000
    answer = probe(studio.write("bomb.png", data))
    assert answer["refused"] == "too_large"
    assert named in answer["message"]


def test_a_gif_with_more_pixels_than_it_may_decode_to_is_refused(studio, probe):
    path = studio.folder / "one.gif"
    Image.new("P", (4000, 4000)).save(path)
    data = path.read_bytes()
    start = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    answer = probe(studio.write("bomb.gif", data[:start] + data[start:-1] * 20 + b";"))
    assert answer["refused"] == "too_large"
    assert "250,000,000" in answer["message"]


def test_a_gif_with_too_many_frames_is_refused(studio, probe):
    path = studio.folder / "long.gif"
    pages = [Image.new("RGB", (8, 8), (index, 0, 0)) for index in range(12)]
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=40)
    assert "done" in probe(path, limits=Limits(gif_frames=12))
    answer = probe(path, limits=Limits(gif_frames=11))
    assert (answer["refused"], "at most 11" in answer["message"]) == ("too_large", True)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_a_picture_cut_short_is_refused(studio, probe, suffix, share):
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = studio.folder / f"whole.{suffix}"
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    assert "done" in probe(path)
    answer = probe(studio.write(f"cut.{suffix}", data[: int(len(data) * share)]))
    assert answer["refused"] == "validation_error"


@pytest.mark.parametrize("suffix", ["webp", "png"])
def test_animated_pictures_are_refused_as_stills(studio, probe, suffix):
    path = studio.folder / f"moving.{suffix}"
    PICTURE.save(path, save_all=True, append_images=[PICTURE.transpose(Image.Transpose.ROTATE_180)], duration=40)
    answer = probe(path)
    assert (answer["refused"], "animated" in answer["message"]) == ("validation_error", True)
