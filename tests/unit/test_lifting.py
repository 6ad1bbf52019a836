import base64
import json
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.data_uri import DataUriDecoder
from gateway.errors import InvalidInputError, TooLargeError
from gateway.lifting import Began, Ended, Lifter
from gateway.strictjson import loads

WORD = "a-word-nobody-knows:"
STEPS = st.integers(1, 9) | st.just(100_000)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


def lifter(**limits: int) -> Lifter:
    return Lifter(WORD, **{"max_uris": 4, "max_uri_bytes": 10_000, "max_rest_bytes": 10_000, **limits})


def lifted(body: bytes, step: int = 100_000, **limits: int) -> tuple[bytes, dict[str, tuple[str, bytes]]]:
    """The rest, and by mark the field and content of each data URI."""
    made, found, mark = lifter(**limits), {}, ""
    for at in range(0, len(body), step):
        for item in made.feed(body[at : at + step]):
            if isinstance(item, Began):
                mark, whole, has_ended = item.mark, b"", False
                found[mark] = (item.field, whole)
            elif isinstance(item, Ended):
                has_ended = True
            else:
                assert not has_ended
                found[mark] = (found[mark][0], found[mark][1] + item)
    return made.close(), found


def uri(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def put_back(value: Any, found: dict[str, tuple[str, bytes]]) -> Any:
    """The document with content in place of marks."""
    if isinstance(value, dict):
        return {key: put_back(item, found) for key, item in value.items()}
    if isinstance(value, list):
        return [put_back(item, found) for item in value]
    return found[value][1] if isinstance(value, str) and value in found else value


def read_whole(value: Any, *, has_key: bool = False) -> Any:
    """What lifting must lead to, said in another way: the whole document at once."""
    if isinstance(value, dict):
        return {key: read_whole(item, has_key=True) for key, item in value.items()}
    if isinstance(value, list):
        return [read_whole(item) for item in value]
    if isinstance(value, str) and value[:5].lower() == "data:" and has_key:
        decoder = DataUriDecoder("x")
        data = decoder.feed(value[5:].encode("ascii"))
        decoder.close()
        return data
    return value


URIS = st.binary(max_size=40).map(uri) | st.binary(max_size=40).map(lambda data: uri(data).replace("data", "DaTa"))
DOCUMENTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | URIS
    | st.sampled_from(["data", "dat", "data;", "d"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | URIS, inner, max_size=3),
    max_leaves=4,
)


def as_php(value: Any) -> str:
    return json.dumps(value).replace("/", "\\/")


def as_escapes_only(value: Any) -> str:
    """Every letter of every string as \\uXXXX."""
    if isinstance(value, str):
        units = value.encode("utf-16-be", "surrogatepass")
        return '"' + "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2)) + '"'
    if isinstance(value, dict):
        return "{" + ",".join(f"{as_escapes_only(key)} : {as_escapes_only(item)}" for key, item in value.items()) + "}"
    return "[ " + " , ".join(map(as_escapes_only, value)) + "]" if isinstance(value, list) else json.dumps(value)


SPELLINGS = st.sampled_from([json.dumps, as_php, as_escapes_only, lambda value: json.dumps(value, indent=1)])


@given(DOCUMENTS, SPELLINGS, STEPS)
def test_a_document_says_the_same_lifted_or_whole_however_it_is_spelled_and_cut(document, spell, step):
    body = spell(document).encode()
    rest, found = lifted(body, step)
    assert put_back(loads(rest), found) == read_whole(loads(body))


@given(st.binary(max_size=60) | st.text('{}[]":,\\datau0019; \n', max_size=60).map(str.encode), STEPS)
@example(b'{"a":"1}', 1)
@example(b'{"a":"data:,\\u12"}', 1)
@example(b'{"a":"data:,\\', 1)
@example(b'{"a":"\\', 1)
def test_what_is_no_json_whole_is_none_lifted_and_the_other_way_round(body, step):
    def outcome(size: int) -> Any:
        try:
            rest, found = lifted(body, size)
            return put_back(loads(rest), found)
        except InvalidInputError:
            return "refused"

    def whole() -> Any:
        try:
            return read_whole(loads(body))
        except (InvalidInputError, UnicodeEncodeError):
            return "refused"

    assert outcome(step) == outcome(100_000) == whole()


def test_a_data_uri_is_named_by_its_key():
    body = json.dumps({"task_params": {"source_image": uri(PNG), "n": 1, "target_image": uri(b"x" * 100)}}).encode()
    rest, found = lifted(body, 10)
    assert json.loads(rest) == {"task_params": {"source_image": f"{WORD}0", "n": 1, "target_image": f"{WORD}1"}}
    assert found == {f"{WORD}0": ("source_image", PNG), f"{WORD}1": ("target_image", b"x" * 100)}


@pytest.mark.parametrize("step", [1, 2, 3, 5, 8, 13, 100])
@pytest.mark.parametrize("before", ['{"x":[1,"y"],', '{"c\\"d":"e\\"",', "{"])
def test_the_key_is_told_wherever_the_body_is_cut(before, step):
    body = before + ' "source_image" \n : "data:,abc" , "z":{}}'
    assert list(lifted(body.encode(), step)[1].values()) == [("source_image", b"abc")]


@pytest.mark.parametrize("filler", ['"",', '"":"",', '"a" : "b",', '"d":"dat",', ':"d",', '"data:":1,', '"\\"":{},'])
def test_however_many_short_strings_there_are_they_are_passed_in_a_few_steps(filler):
    made, calls = lifter(max_rest_bytes=10**6), 0

    def count(frame: object, event: str, arg: object) -> None:
        nonlocal calls
        calls += event == "call"

    body = b"{" + filler.encode() * 5000
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        made.feed(body)
    finally:
        sys.setprofile(before)
    assert calls < 50
    assert made.close() == body


@pytest.mark.parametrize("key", ["", "k" * 65, 'a"b', "a\nb", "\u202e"])
def test_a_key_that_fits_into_no_sentence_is_not_named(key):
    [(field, _)] = lifted(json.dumps({key: uri(PNG)}, ensure_ascii=False).encode())[1].values()
    assert field == "body"


def test_a_data_uri_in_a_list_or_as_a_key_stays():
    body = json.dumps({"a": [uri(b"1"), uri(b"2")], uri(b"3"): 1}).encode()
    assert lifted(body, 7) == (body, {})


def test_a_mark_that_a_client_guesses_at_is_only_text():
    rest, found = lifted(json.dumps({"a": f"{WORD[:-1]}0", "b": uri(PNG)}).encode())
    assert json.loads(rest) == {"a": f"{WORD[:-1]}0", "b": f"{WORD}0"}
    assert list(found) == [f"{WORD}0"]


@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_limits_are_kept_to_the_byte(step):
    text = uri(PNG)
    body = json.dumps({"a": text, "b": "x"}).encode()
    rest = json.dumps({"a": f"{WORD}0", "b": "x"}).encode()
    assert lifted(body, step, max_uris=1, max_uri_bytes=len(text), max_rest_bytes=len(rest))[0] == rest
    with pytest.raises(TooLargeError, match="'a' is longer than") as caught:
        lifted(body, step, max_uri_bytes=len(text) - 1)
    assert caught.value.field == "a"
    with pytest.raises(TooLargeError, match="data URIs not counted"):
        lifted(body, step, max_rest_bytes=len(rest) - 1)
    with pytest.raises(InvalidInputError, match="more than 0 data URIs"):
        lifted(body, step, max_uris=0)


def test_escapes_count_once():
    text = uri(b"\xff" * 90)
    assert text.count("/") > 50
    body = json.dumps({"a": text}).replace("/", "\\/").encode()
    assert lifted(body, max_uri_bytes=len(text))[1][f"{WORD}0"] == ("a", b"\xff" * 90)


def test_an_escaped_scheme_counts_as_what_it_spells():
    body = as_escapes_only({"a": "data:,abc"}).encode()
    assert lifted(body, max_uri_bytes=9)[1] == {f"{WORD}0": ("body", b"abc")}
    with pytest.raises(TooLargeError):
        lifted(body, max_uri_bytes=8)


@pytest.mark.parametrize("cut", [b'{"a":"data:', b'{"a":"data:,', b'{"a":"data:,a\\', b'{"a":"data:,a\\u00'])
def test_a_body_that_ends_within_a_data_uri_says_so(cut):
    with pytest.raises(InvalidInputError, match="ends within the data URI in 'a'"):
        lifted(cut)


@pytest.mark.parametrize("bad", ["\\x41", "\\u12", "\\uzzzz", "\\u00e9", "\\ud800", "\t", "\\n", "é"])
def test_what_no_json_string_or_no_uri_holds_is_refused_with_its_field(bad):
    with pytest.raises(InvalidInputError) as caught:
        lifted(f'{{"a":"data:,abc{bad}def"}}'.encode())
    assert caught.value.field == "a"


def test_nothing_is_held_back_that_could_be_handed_on():
    made = lifter(max_uri_bytes=10**7)
    made.feed(b'{"a":"data:;base64,')
    piece = base64.b64encode(b"\0" * 3000)
    for _ in range(100):
        assert sum(len(item) for item in made.feed(piece) if isinstance(item, bytes)) == 3000
    assert made.feed(b'"}') == [Ended()]
    assert json.loads(made.close()) == {"a": f"{WORD}0"}
