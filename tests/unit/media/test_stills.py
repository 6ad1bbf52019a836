from __future__ import annotations

import struct
import zlib
from fractions import Fraction

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps

from gateway.audit import MediaFacts, MediaKind
from gateway.media import stills
from gateway.media.limits import Limits
from gateway.sniffing import JPEG, PNG, WEBP, sniff

PICTURE = Image.fromarray(np.arange(40 * 60 * 3, dtype=np.uint32).reshape(40, 60, 3).astype(np.uint8))


def facts(answer):
    assert "done" in answer, answer
    return MediaFacts.from_json(answer["done"])


@pytest.mark.parametrize(("suffix", "kind"), [(".jpg", "image/jpeg"), (".png", "image/png"), (".webp", "image/webp")])
def test_facts_of_a_still(studio, probe, suffix, kind):
    path = studio.folder / f"anything{suffix}"
    PICTURE.save(path)
    assert facts(probe(path)) == MediaFacts(MediaKind.IMAGE, kind, suffix, 60, 40, 1, None, None, False, None)


def icc(space=b"RGB ", size=None, signature=b"acsp"):
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    made[16:20], made[36:40] = space, signature
    made[:4] = (len(made) if size is None else size).to_bytes(4, "big")
    return bytes(made)


@pytest.mark.parametrize("kind", [JPEG, PNG, WEBP])
def test_profile_of_a_still_is_told(studio, kind):
    path = studio.folder / f"photo{kind.suffix}"
    PICTURE.save(path, icc_profile=icc())
    assert stills.colour_profile(path, kind) == icc()


@pytest.mark.parametrize(("mode", "profile"), [
    ("RGB", None), ("CMYK", icc(b"CMYK")), ("L", icc(b"GRAY")), ("L", icc()), ("RGB", icc(b"Lab ")),
    ("RGB", icc(size=7)), ("RGB", icc(signature=b"none")), ("RGB", b"x" * 100), ("RGB", icc() + b"x" * 1024 * 1024),
])  # fmt: skip
def test_profile_of_other_numbers_or_a_broken_one_is_none(studio, mode, profile):
    path = studio.folder / "photo.jpg"
    PICTURE.convert(mode).save(path, icc_profile=profile)
    assert stills.colour_profile(path, JPEG) is None


@pytest.mark.parametrize(("suffix", "mode", "least", "expected"), [
    ("png", "RGBA", 254, True), ("png", "RGBA", 255, False), ("png", "LA", 0, True), ("png", "LA", 255, False),
    ("png", "P", 0, True), ("png", "P", 255, False), ("png", "RGB", 0, True), ("png", "RGB", None, False),
    ("webp", "RGBA", 254, True), ("webp", "RGBA", 255, False), ("webp", "RGB", None, False),
])  # fmt: skip
def test_a_picture_is_see_through_when_a_pixel_is(studio, probe, suffix, mode, least, expected):
    path, more = studio.folder / f"drawing.{suffix}", {}
    picture = Image.new(mode, (6, 4), {"RGBA": (9, 8, 7, 255), "LA": (9, 255), "P": 1, "RGB": (9, 8, 7)}[mode])
    if mode in {"RGBA", "LA"}:
        picture.putpixel((5, 3), (*picture.getpixel((0, 0))[:-1], least))
    elif mode == "P":
        picture.putpalette([0, 0, 0, 9, 8, 7])
        more["transparency"] = bytes([255, least])
    elif least is not None:
        more["transparency"] = (9, 8, 7)
    picture.save(path, lossless=True, **more)
    assert facts(probe(path)).is_see_through is expected


@pytest.mark.parametrize(("through", "expected"), [([], False), ([0], True), ([0, 1], True)])
def test_a_gif_is_see_through_when_a_pixel_of_any_frame_is(studio, probe, through, expected):
    frames = [Image.new("RGBA", (6, 4), (9, 8 * number, 7, 255)) for number in range(2)]
    for number in through:
        frames[number].putpixel((5, 3), (0, 0, 0, 0))
    path = studio.folder / "film.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, disposal=2)
    assert facts(probe(path)).is_see_through is expected
    frames[through[0] if through else 0].save(path)
    assert facts(probe(path)).is_see_through is expected


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
    answer = probe(path, accept=[MediaKind.IMAGE])
    assert answer["refused"] == "validation_error"
    assert answer["message"] == "The picture is animated; expected a still JPEG, PNG or WebP picture."


LEVELS = np.arange(40 * 60, dtype=np.uint16).reshape(40, 60)
#: By Pillow's name for what is in the file: how to make one.
MODES = {
    "1": lambda: PICTURE.convert("1"),
    "L": lambda: PICTURE.convert("L"),
    "LA": lambda: with_alpha(PICTURE.convert("LA")),
    "P": lambda: PICTURE.quantize(64),
    "P with transparency": lambda: transparent(PICTURE.quantize(64)),
    "RGB": lambda: PICTURE,
    "RGB with transparency": lambda: transparent(PICTURE.copy(), (0, 1, 2)),
    "RGBA": lambda: with_alpha(PICTURE.convert("RGBA")),
}


def with_alpha(picture):
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    return picture


def transparent(picture, colour=3):
    picture.info["transparency"] = colour
    return picture


def deep_png(channels):
    """A PNG with 16 bits a channel, which Pillow reads (but for greys) and does not write."""
    pixels = (np.arange(40 * 60 * channels, dtype=np.uint32) * 9).astype(">u2").reshape(40, 60 * channels)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    kinds = {1: 0, 2: 4, 3: 2, 4: 6}

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 60, 40, 16, kinds[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def load_image(path):
    """What ComfyUI's LoadImage makes of a file (a125cd84, nodes.py), written down anew, before it divides by 255."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "I":
            upright = upright.point(lambda level: level * (1 / 255))
        return np.array(upright.convert("RGB"))


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("mode", MODES)
def test_a_still_is_compared_as_comfyui_loads_it(studio, probe, mode, orientation):
    path = studio.folder / "any.png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    MODES[mode]().save(path, exif=exif)
    assert "done" in probe(path)
    with Image.open(path) as image:
        assert image.mode == mode.split()[0]
    np.testing.assert_array_equal(stills.read_upright(path, PNG), load_image(path))
    assert stills.read_upright(path, PNG).shape == ((40, 60, 3) if orientation == 1 else (60, 40, 3))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_is_compared_as_comfyui_loads_it(studio, probe, mode):
    path = studio.folder / "any.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    PICTURE.convert(mode).save(path, exif=exif)
    assert "done" in probe(path)
    np.testing.assert_array_equal(stills.read_upright(path, JPEG), load_image(path))


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colours_of_16_bits_are_compared_as_comfyui_loads_them(studio, probe, channels):
    path = studio.write("deep.png", deep_png(channels))
    assert "done" in probe(path)
    pixels = stills.read_upright(path, PNG)
    np.testing.assert_array_equal(pixels, load_image(path))
    # The high byte of each: not a white picture.
    assert pixels.min() < 10
    assert len(np.unique(pixels)) > 100


def test_greys_of_16_bits_are_refused_with_a_way_out(studio, probe):
    for name, data in (("made.png", None), ("deep.png", deep_png(1))):
        path = studio.folder / name
        path.write_bytes(data) if data else Image.fromarray(LEVELS).save(path)
        answer = probe(path)
        assert answer["refused"] == "unsupported_media_type"
        assert "save it with 8 bits a channel" in answer["message"]


@pytest.mark.parametrize("how", ["RGB", "RGBA", "P", "L", "I;16", "on its side", "animated"])
def test_what_was_decoded_to_be_measured_is_what_is_compared(studio, how):
    path, mode = studio.folder / "seen.png", how if len(how) <= 4 else "RGB"
    options = {}
    if how == "on its side":
        options["exif"] = Image.Exif()
        options["exif"][ExifTags.Base.Orientation] = 6
    if how == "animated":
        options |= {"save_all": True, "append_images": [Image.new("RGB", (6, 4), "red")]}
    picture = Image.fromarray(np.arange(72, dtype=np.uint8).reshape(4, 6, 3)).convert(mode)
    picture.save(path, **options)
    kind = sniff(path.read_bytes())
    facts, pixels = stills.result_seen(path, kind, Limits().for_results(), is_shown=True)
    assert facts == stills.result_facts(path, kind, Limits().for_results())
    assert np.array_equal(pixels, stills.read_upright(path, kind))
    assert stills.result_seen(path, kind, Limits().for_results(), is_shown=False) == (facts, None)
