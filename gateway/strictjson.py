"""JSON from strangers: one reading, or none.

The standard library's parser takes what other parsers refuse or read differently (NaN, the last of two equal keys,
UTF-16, a byte-order mark, half of a surrogate pair) and raises ``RecursionError`` for deep nesting. Here a document has
exactly one meaning, everything in it can be stored and sent out again as UTF-8, and whatever is wrong with it ends as
an ``InvalidInputError``. Sources: RFC 8259 and, for what a document should not do, RFC 7493 (I-JSON).

How large a body may be is decided where it is read.
"""

from __future__ import annotations

import json
import math
import re
from typing import Final, NoReturn

from gateway.errors import InvalidInputError

MAX_DEPTH: Final = 32
#: More digits than any 64-bit or 128-bit number has, far fewer than make int() slow (quadratic in their number).
MAX_INT_DIGITS: Final = 100

#: Half of a pair of UTF-16; no text holds one.
SURROGATE: Final = re.compile("[\ud800-\udfff]")

JsonValue = dict[str, "JsonValue"] | list["JsonValue"] | str | int | float | bool | None


def loads(body: bytes) -> JsonValue:
    """The value that a JSON text says.

    Raises:
        InvalidInputError: the bytes are not UTF-8, not JSON, nested deeper than ``MAX_DEPTH``, or hold NaN, an
            infinity, a number that overflows, an object with a key twice or half of a surrogate pair.
    """
    if body.startswith(b"\xef\xbb\xbf"):
        raise InvalidInputError("The JSON body begins with a byte-order mark.")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInputError("The JSON body is not UTF-8.") from None
    _refuse_depth(text)
    try:
        value: JsonValue = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise InvalidInputError(f"The body is not JSON (line {error.lineno}, column {error.colno}).") from None
    # UTF-8 cannot spell a surrogate, so only an escape brings one in.
    if "\\u" in text:
        _refuse_surrogates(value)
    return value


def loads_object(body: bytes) -> dict[str, JsonValue]:
    """The object that a JSON text says.

    Raises:
        InvalidInputError: as ``loads``, or the value is no object.
    """
    value = loads(body)
    if not isinstance(value, dict):
        raise InvalidInputError("The JSON body is not an object.")
    return value


def _refuse_depth(text: str) -> None:
    """Counts brackets outside strings before anything is built, so that no parser's stack is ever at stake."""
    depth = 0
    for match in _BRACKET_OR_STRING.finditer(text):
        char = match[0]
        if char in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise InvalidInputError(f"The JSON body is nested deeper than {MAX_DEPTH} levels.")
        elif char in "]}":
            depth -= 1


# A string is eaten whole; an unclosed one eats the rest, and the parser objects to it afterwards.
_BRACKET_OR_STRING: Final = re.compile(r'[\[\]{}]|"(?:[^"\\]++|\\.)*+"?', re.DOTALL)


def _object(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    result: dict[str, JsonValue] = {}
    for key, value in pairs:
        if key in result:
            raise InvalidInputError("The JSON body holds an object with the same key twice.")
        result[key] = value
    return result


def _refuse_surrogates(value: JsonValue) -> None:
    """Recurses, at most ``MAX_DEPTH`` deep."""
    if isinstance(value, str):
        if SURROGATE.search(value):
            raise InvalidInputError("The JSON body holds half of a surrogate pair.")
    elif isinstance(value, dict):
        for key, item in value.items():
            _refuse_surrogates(key)
            _refuse_surrogates(item)
    elif isinstance(value, list):
        for item in value:
            _refuse_surrogates(item)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise InvalidInputError("The JSON body holds a number that is too large.")
    return value


def _int(text: str) -> int:
    if len(text) > MAX_INT_DIGITS:
        raise InvalidInputError(f"The JSON body holds an integer of more than {MAX_INT_DIGITS} digits.")
    return int(text)


def _constant(text: str) -> NoReturn:
    raise InvalidInputError(f"The JSON body holds {text}, which is not JSON.")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_float, parse_int=_int, parse_constant=_constant
)
