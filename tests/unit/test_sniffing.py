import pytest
from hypothesis import given
from hypothesis.strategies import binary

from gateway import sniffing
from gateway.audit import MediaKind
from gateway.sniffing import (
    ANY_FILE,
    GIF,
    HEAD_BYTES,
    JPEG,
    MP4,
    PNG,
    QUICKTIME,
    WEBM,
    WEBP,
    MediaType,
    described,
    sniff,
)


def ftyp(major, *compatible, size=None):
    body = b"ftyp" + major + b"\0\0\2\0" + b"".join(compatible)
    return (size if size is not None else 4 + len(body)).to_bytes(4, "big") + body + b"\0" * 40


def ebml(doctype):
    element = b"\x42\x82" + bytes([0x80 | len(doctype)]) + doctype
    return b"\x1a\x45\xdf\xa3\xa3\x42\x86\x81\x01\x42\xf7\x81\x01\x42\xf2\x81\x04\x42\xf3\x81\x08" + element


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\xff\xd8\xff\xe0\0\x10JFIF", JPEG),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", PNG),
        (b"GIF87a", GIF),
        (b"GIF89a", GIF),
        (b"RIFF\x10\0\0\0WEBPVP8 ", WEBP),
        (b"RIFF\x10\0\0\0WEBPVP8X", WEBP),
        (ftyp(b"isom", b"isom", b"iso2", b"avc1", b"mp41"), MP4),
        (ftyp(b"mp42"), MP4),
        (ftyp(b"M4V ", b"isom"), MP4),
        (ftyp(b"abcd", b"iso5"), MP4),
        (ftyp(b"qt  ", b"qt  "), QUICKTIME),
        (ebml(b"webm"), WEBM),
    ],
)
def test_accepted_kinds_are_known_by_their_first_bytes(head, expected):
    assert sniff(head[:HEAD_BYTES]) == expected


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xff\xd8",
        b"ffconcat version 1.0\nfile 'v.mp4'\n",
        b"#EXTM3U\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'>",
        b"<!doctype html>",
        b"%!PS-Adobe-3.0 EPSF-3.0",
        b"RIFF\x10\0\0\0AVI LIST",
        b"RIFF\x10\0\0\0WAVEfmt ",
        ftyp(b"avif", b"mif1", b"isom"),
        ftyp(b"heic", b"mif1", b"mp42"),
        ftyp(b"M4A ", b"mp42", b"isom"),
        ftyp(b"abcd", b"efgh"),
        ftyp(b"isom", size=8),
        ftyp(b"isom", size=1 << 31),
        b"\0\0\0\x18ftypisom",
        ebml(b"matroska"),
        b"\x1a\x45\xdf\xa3",
        b" \x89PNG\r\n\x1a\n",
    ],
)
def test_everything_else_is_nothing(head):
    assert sniff(head[:HEAD_BYTES]) is None


def test_compatible_brands_behind_the_box_do_not_count():
    assert sniff(ftyp(b"abcd", b"efgh")[:20] + b"isom" * 8) is None


def test_gif_is_a_kind_of_its_own():
    assert GIF.kind is MediaKind.GIF


@given(binary(max_size=80))
def test_no_bytes_raise(head):
    sniff(head)
    sniff(b"\0\0\0\x20ftyp" + head)
    sniff(b"\x1a\x45\xdf\xa3" + head)


def test_the_sentence_of_kinds_names_each():
    kinds = [value for value in vars(sniffing).values() if isinstance(value, sniffing.MediaType) and value != ANY_FILE]
    told = sniffing.KINDS_TOLD.replace(" and ", ", ").lower().split(", ")
    assert told == [kind.content_type.partition("/")[2] for kind in kinds]


@pytest.mark.parametrize(
    ("declared", "name", "expected"),
    [
        ("audio/wav", "voice.WAV", MediaType(MediaKind.AUDIO, "audio/wav", ".wav")),
        ("text/plain", "words", MediaType(MediaKind.TEXT, "text/plain", "")),
        ("application/octet-stream", "x.latent", MediaType(MediaKind.LATENT, "application/octet-stream", ".latent")),
        ("Application/X-Thing", "a/b.safetensors", MediaType(MediaKind.FILE, "application/x-thing", ".safetensors")),
        # Only the bytes make a picture.
        ("image/png", "no-picture.png", MediaType(MediaKind.FILE, "image/png", ".png")),
        ("text/plain", "x.p/ng", MediaType(MediaKind.TEXT, "text/plain", "")),
        ("text/plain", "x.\n", MediaType(MediaKind.TEXT, "text/plain", "")),
    ],
)
def test_what_the_bytes_do_not_say_is_believed_but_for_pictures(declared, name, expected):
    assert described(ANY_FILE, declared, name) == expected


def test_what_the_bytes_say_stands_over_what_is_declared():
    assert described(PNG, "audio/wav", "voice.wav") == PNG
