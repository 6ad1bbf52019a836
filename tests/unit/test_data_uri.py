import base64
import re
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.data_uri import MAX_HEAD_BYTES, DataUriDecoder
from gateway.errors import InvalidInputError

STEPS = st.integers(1, 7) | st.just(10_000)


def decoded(text: bytes, step: int = 10_000) -> bytes:
    """What stands behind ``data:``, fed in pieces of so many bytes."""
    decoder = DataUriDecoder("image_url")
    data = b"".join([decoder.feed(text[at : at + step]) for at in range(0, len(text), step)])
    decoder.close()
    return data


def refused(text: bytes, step: int = 10_000) -> str:
    with pytest.raises(InvalidInputError) as caught:
        decoded(text, step)
    assert caught.value.field == "image_url"
    assert "'image_url'" in caught.value.message
    return caught.value.message


@given(st.binary(max_size=200), STEPS)
def test_base64_comes_back_however_it_is_cut(data, step):
    assert decoded(b"image/png;base64," + base64.b64encode(data), step) == data


@given(st.binary(max_size=200), STEPS)
def test_percent_encoding_comes_back_however_it_is_cut(data, step):
    assert decoded(b"," + quote_from_bytes(data).encode(), step) == data
    assert decoded(b"text/plain;charset=utf-8," + "".join(f"%{byte:02x}" for byte in data).encode(), step) == data


@given(st.binary(max_size=90), STEPS)
def test_base64_may_be_percent_encoded(data, step):
    escaped = re.sub(rb"[+/=]", lambda found: b"%%%02X" % found[0][0], base64.b64encode(data))
    assert decoded(b";base64," + escaped, step) == data


@pytest.mark.parametrize("head", [b"", b"image/jpeg", b"IMAGE/PNG;name=a.png", b"text/html", b"nonsense", b";;;"])
def test_what_it_says_about_its_type_is_of_no_account(head):
    assert decoded(head + b";base64,YWJj") == b"abc"
    assert decoded(head + b";BASE64,YWJj") == b"abc"
    assert decoded(head + b",YWJj") == b"YWJj"


@pytest.mark.parametrize("head", [b";base64;charset=utf-8", b"base64", b";x=base64"])
def test_only_the_last_parameter_makes_it_base64(head):
    assert decoded(head + b",YWJj") == b"YWJj"


@pytest.mark.parametrize("step", [1, 3, 10_000])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        *((b"YWJ", "groups of four"), (b"YWJjZ", "groups of four"), (b"YW==YWJj", ""), (b"YWJj=", "groups of four")),
        *((b"Y===", "malformed"), (b"====", "malformed"), (b"YW-_", "malformed"), (b"YW=j", "malformed")),
        *((b"YWJj====", ""), (b"YW%3D%3DYWJj", ""), (b"Y.Jj", "malformed")),
        *((b"YW Jj", "no place"), (b"YWJj\n", "no place"), (b"YWJj\0", "no place"), ("YWÉj".encode(), "no place")),
    ],
)
def test_base64_is_strict(text, reason, step):
    assert reason in refused(b"image/png;base64," + text, step)


@pytest.mark.parametrize("step", [1, 10_000])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        *((b"", "no comma"), (b"image/png;base64", "no comma"), (b"x" * (MAX_HEAD_BYTES + 1), "no comma within")),
        *((b",%", "within an escape"), (b",ab%4", "within an escape"), (b",%4g", "no escape"), (b",%%41", "no escape")),
        *((b",a#b", "no place"), (b',a"b', "no place"), (b",a\\b", "no place"), (b",a\x7fb", "no place")),
    ],
)
def test_what_is_no_data_uri_is_refused_and_says_why(text, reason, step):
    assert reason in refused(text, step)


@given(st.binary(max_size=60), STEPS)
@example(b";base64,YW==Y", 1)
def test_no_bytes_raise_anything_else_and_pieces_do_not_matter(text, step):
    def outcome(size: int) -> bytes | None:
        try:
            return decoded(text, size)
        except InvalidInputError:
            return None

    assert outcome(step) == outcome(10_000)
