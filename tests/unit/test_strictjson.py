import json

import pytest
from hypothesis import given, settings
from hypothesis.strategies import binary, booleans, dictionaries, floats, integers, lists, none, recursive, text

from gateway.errors import InvalidInputError
from gateway.strictjson import MAX_DEPTH, MAX_INT_DIGITS, loads, loads_object

VALUES = recursive(
    none() | booleans() | integers() | floats(allow_nan=False, allow_infinity=False) | text(),
    lambda inner: lists(inner, max_size=4) | dictionaries(text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"a": 1} x', "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'"\x01"', "not JSON"),
        (b"[1,]", "not JSON"),
        (b"\xef\xbb\xbf{}", "byte-order mark"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), "not JSON"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": Infinity}', "Infinity"),
        (b"[-Infinity]", "-Infinity"),
        (b"[1e400]", "too large"),
        (b"[-1e400]", "too large"),
        (b'{"a": 1, "a": 2}', "same key twice"),
        (b'{"x": [{"a": 1, "\\u0061": 2}]}', "same key twice"),
        (b'"\\ud800"', "surrogate"),
        (b'["x", {"a": ["\\udc00"]}]', "surrogate"),
        (b'{"\\ud800": 1}', "surrogate"),
        (b"1" * 5000, "digits"),
        (b"[" * 100_000, "nested"),
        (b'{"a":' * 100_000, "nested"),
        (b"[" * 33 + b"]" * 33, "nested"),
    ],
)
def test_refused_with_its_reason(body, words):
    with pytest.raises(InvalidInputError, match=words):
        loads(body)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b' {"a": [1, 2.5, true, null, "x"]} ', {"a": [1, 2.5, True, None, "x"]}),
        (b'"\\ud83d\\ude00"', "\N{GRINNING FACE}"),
        ('"ü"'.encode(), "ü"),
        (b"1e308", 1e308),
        (b'"[[[[{{{{\\"[[["', '[[[[{{{{"[[['),
        (b'["' + b"[" * 1000 + b'"]', ["[" * 1000]),
        (b"9" * MAX_INT_DIGITS, int("9" * MAX_INT_DIGITS)),
        (b'{"__proto__": 1}', {"__proto__": 1}),
    ],
)
def test_accepted_as_what_it_says(body, value):
    assert loads(body) == value


def test_deepest_nesting_passes():
    assert loads(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)


def test_siblings_do_not_add_up_to_depth():
    assert loads(b"[" + b",".join([b"[]"] * 100) + b"]") == [[]] * 100


@pytest.mark.parametrize("body", [b"[]", b"null", b'"x"', b"1"])
def test_object_is_asked_for_and_something_else_came(body):
    with pytest.raises(InvalidInputError, match="not an object"):
        loads_object(body)


@given(VALUES)
@settings(max_examples=50)
def test_whatever_python_writes_comes_back(value):
    if len(str(value)) < 60:  # integers of Hypothesis may have more digits than we take
        assert loads(json.dumps(value).encode()) == value


@given(binary(max_size=60))
def test_no_bytes_raise_anything_but_a_refusal_and_every_value_can_be_sent_again(body):
    for candidate in (body, b'{"a":' + body + b"}", b'"' + body + b'"'):
        try:
            value = loads(candidate)
        except InvalidInputError:
            continue
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
