from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from gateway.audit import MediaKind
from gateway.media import child


def test_an_empty_file_is_refused(studio, probe):
    answer = probe(studio.write("empty.mp4", b""))
    assert (answer["refused"], "empty" in answer["message"]) == ("validation_error", True)


@pytest.mark.parametrize(
    "text",
    [
        b"hello, I am a video",
        b"ffconcat version 1.0\nfile neighbour.mp4\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nneighbour.mp4\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
    ],
)
def test_text_with_the_name_of_a_video_is_refused(studio, probe, text):
    studio.video("neighbour.mp4")
    answer = probe(studio.write("clip.mp4", text))
    assert answer["refused"] == "unsupported_media_type"


def test_a_script_behind_the_first_bytes_of_a_video_reads_no_neighbour(studio, probe):
    """Whoever forges the magic bytes gets the demuxer they belong to and no other."""
    studio.video("neighbour.mp4")
    head = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41"
    answer = probe(studio.write("clip.mp4", head + b"\nffconcat version 1.0\nfile neighbour.mp4\n"))
    assert answer["refused"] == "validation_error"


def test_a_kind_that_is_not_accepted_is_told_from_what_is(studio, probe):
    answer = probe(studio.video(), accept=[MediaKind.IMAGE])
    assert answer["refused"] == "unsupported_media_type"
    assert "picture" in answer["message"]
    assert "MP4" in answer["message"]


def test_no_answer_tells_where_the_file_lies(studio, probe):
    Image.new("RGB", (30, 30)).save(studio.folder / "a.png")
    whole = (studio.folder / "a.png").read_bytes()
    for data in (
        b"",
        b"text",
        whole[:50],
        b"GIF89a",
        b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41",
        b"\xff\xd8\xff",
    ):
        answer = probe(studio.write("secret-name.bin", data))
        assert "refused" in answer
        assert "secret-name" not in str(answer)
        assert str(studio.folder) not in str(answer)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_bytes_get_past_the_answer(studio, probe, data):
    """Whatever a decoder raises on damaged bytes, the child answers."""
    path = studio.folder / "some.png"
    if not path.exists():
        Image.effect_noise((24, 24), 40).save(path)
        Image.effect_noise((24, 24), 40).save(studio.folder / "some.gif")
        Image.effect_noise((24, 24), 40).save(studio.folder / "some.webp")
        studio.video("some.mp4", studio.frames(3))
    name = data.draw(st.sampled_from(["some.png", "some.gif", "some.webp", "some.mp4"]))
    content = bytearray((studio.folder / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    answer = probe(studio.write("hurt.bin", bytes(content)))
    assert ("done" in answer) != ("refused" in answer)


def test_a_mistake_of_ours_can_be_told_from_a_broken_file():
    answer = child.answer({"do": "probe", "path": "/nowhere/at-all", "accept": [], "limits": {}})
    assert answer["refused"] == "validation_error"
    assert answer["cause"].startswith("FileNotFoundError at child.py:")


def test_it_starts_without_what_only_the_gateway_needs():
    """Most of a start is loading; the gateway's interfaces alone would be a third of it."""
    code = (
        "import gateway.media.child, sys; "
        "print([name for name in ('gateway.interfaces', 'sqlalchemy', 'structlog', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
