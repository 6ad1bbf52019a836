"""JSON with files in it, read as it comes: data URIs are lifted out on the way, and what is left is small; pure.

A body may carry tens of MiB of base64 in two of its strings. Parsed whole, it would stand in memory four times over; here
each such string is decoded piece by piece and handed on, and a mark takes its place in the rest, which is then read by
``strictjson.py`` like any other document. What is lifted: string values (not keys, not items of lists) that begin with
``data:``, however JSON spells that.

A mark is a word that the client cannot guess, so that no string of a client is ever taken for one.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from gateway.data_uri import DataUriDecoder
from gateway.errors import InvalidInputError, TooLargeError
from gateway.safety import spell_bytes

#: ``data:`` in any letters and in any of JSON's spellings, an escape of six characters for each at most.
_SCHEME: Final = re.compile(
    rb"(?:[dD]|\\u00[46]4)(?:[aA]|\\u00[46]1)(?:[tT]|\\u00[57]4)(?:[aA]|\\u00[46]1)(?::|\\u003[aA])"
)
_LONGEST_SCHEME: Final = 30
#: Whole strings that surely stay, and what stands around them, in one step: a MiB of short strings passed one by one would
#: keep the event loop for a second. A colon is passed only together with a value that is no data URI.
_DULL: Final = re.compile(
    rb"""(?: [^":]++
           | "(?:[^"\\]++|\\.)*+"
           | : [ \t\r\n]*+ (?: "(?!"""
    + _SCHEME.pattern
    + rb""")(?:[^"\\]++|\\.)*+" | [^": \t\r\n] )
         )++""",
    re.DOTALL | re.VERBOSE,
)
#: Up to the quote that ends a string, or to a backslash whose escape is not all there.
_STRING: Final = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_STRICT_STRING: Final = re.compile(rb'(?:[^"\\]++|\\u[0-9a-fA-F]{4}|\\[^u])*+', re.DOTALL)
_LONGEST_ESCAPE: Final = 6
_SPACE: Final = b" \t\r\n"
#: Keys longer than that are named in no error.
_MAX_NAME: Final = 64
#: The last string of a stretch, when it can be a name in an error.
_LAST_NAME: Final = re.compile(rb'(?<!\\)"([^"\\]{0,%d})"$' % _MAX_NAME)
_NO_NAME: Final = "body"


@dataclass(frozen=True, slots=True)
class Began:
    """A data URI begins."""

    #: Stands in its place in the rest.
    mark: str
    #: The key it stands under, as the client spells it.
    field: str


@dataclass(frozen=True, slots=True)
class Ended:
    """It ends; all its bytes were handed on."""


#: Bytes are decoded content.
Lifted = Began | Ended | bytes


class _Where(Enum):
    """Where in the document the next byte stands."""

    BETWEEN = "between strings"
    OPENING = "at the beginning of a value that may be a data URI"
    STRING = "in a string that stays"
    LIFTED = "in a data URI"


class Lifter:
    """One JSON text on its way in.

    Args:
        word: what marks begin with; must be new each time and not to be guessed.
        max_uris: data URIs in one body.
        max_uri_bytes: text of one of them.
        max_rest_bytes: everything else.
    """

    def __init__(self, word: str, *, max_uris: int, max_uri_bytes: int, max_rest_bytes: int) -> None:
        self._word = word
        self._max_uris = max_uris
        self._max_uri_bytes = max_uri_bytes
        self._max_rest_bytes = max_rest_bytes
        self._where = _Where.BETWEEN
        self._rest = bytearray()
        #: Not decided on yet: the beginning of a value, or of an escape.
        self._held = b""
        #: The last byte between strings that was no white space.
        self._before = b""
        #: The last string that stayed, as it is spelled: a key, when a value follows.
        self._name = bytearray()
        self._uris = 0
        self._uri_bytes = 0
        self._field = _NO_NAME
        self._decoder = DataUriDecoder(_NO_NAME)

    def feed(self, chunk: bytes) -> list[Lifted]:
        """Take a piece of the body; what it held of data URIs, in order.

        Raises:
            InvalidInputError: a data URI is malformed, or there are too many.
            TooLargeError: naming the limit.
        """
        lifted: list[Lifted] = []
        text, self._held = self._held + chunk, b""
        at = 0
        while at < len(text):
            match self._where:
                case _Where.BETWEEN:
                    at = self._pass_between(text, at)
                case _Where.STRING:
                    at = self._pass_string(text, at)
                case _Where.OPENING:
                    at = self._open(text, at, lifted)
                case _Where.LIFTED:
                    at = self._lift(text, at, lifted)
            if len(self._rest) > self._max_rest_bytes:
                raise TooLargeError(
                    f"The JSON body is larger than {spell_bytes(self._max_rest_bytes)}, data URIs not counted."
                )
        return lifted

    def close(self) -> bytes:
        """The document with marks in place of data URIs, once its text has ended."""
        if self._where is _Where.LIFTED:
            raise InvalidInputError(f"The body ends within the data URI in {self._field!r}.", field=self._field)
        if self._where is _Where.OPENING:
            self._rest += b'"'
        return bytes(self._rest) + self._held

    def _pass_between(self, text: bytes, at: int) -> int:
        if self._before != b":" and (dull := _DULL.match(text, at)):
            self._pass_dull(text[at : dull.end()])
            at = dull.end()
        quote = text.find(b'"', at)
        end = len(text) if quote < 0 else quote
        between = text[at:end]
        self._rest += between
        self._before = between.rstrip(_SPACE)[-1:] or self._before
        if quote < 0:
            return end
        if self._before == b":":
            self._where = _Where.OPENING
        else:
            self._begin_string()
        return quote + 1

    def _pass_dull(self, stretch: bytes) -> None:
        self._rest += stretch
        said = stretch.rstrip(_SPACE)
        self._before = said[-1:] or self._before
        if said.endswith(b'"'):
            name = _LAST_NAME.search(said, max(0, len(said) - _MAX_NAME - 2))
            self._name[:] = name[1] if name else b""

    def _begin_string(self) -> None:
        self._where = _Where.STRING
        self._rest += b'"'
        self._name.clear()

    def _pass_string(self, text: bytes, at: int) -> int:
        match = _STRING.match(text, at)
        end = match.end() if match else at
        self._rest += text[at:end]
        if len(self._name) <= _MAX_NAME:
            self._name += text[at : min(end, at + _MAX_NAME + 1)]
        if end == len(text):
            return end
        if text[end : end + 1] == b'"':
            self._rest += b'"'
            self._where, self._before = _Where.BETWEEN, b'"'
            return end + 1
        self._held = text[end:]  # a backslash at the end of the piece
        return len(text)

    def _open(self, text: bytes, at: int, lifted: list[Lifted]) -> int:
        head = text[at : at + _LONGEST_SCHEME]
        scheme = _SCHEME.match(head)
        if scheme is None:
            if len(head) < _LONGEST_SCHEME and b'"' not in head:
                self._held = text[at:]
                return len(text)
            self._begin_string()
            return at
        self._field = self._key()
        if self._uris == self._max_uris:
            raise InvalidInputError(f"The body holds more than {self._max_uris} data URIs.", field=self._field)
        mark = f"{self._word}{self._uris}"
        self._rest += json.dumps(mark).encode()
        lifted.append(Began(mark, self._field))
        self._decoder = DataUriDecoder(self._field)
        self._uris += 1
        self._uri_bytes = len(b"data:")
        self._where = _Where.LIFTED
        return at + scheme.end()

    def _key(self) -> str:
        """What the value stands under; a neutral word where that cannot be said in a sentence."""
        is_plain = len(self._name) <= _MAX_NAME and b"\\" not in self._name
        name = self._name.decode("utf-8", "replace") if is_plain else ""
        return name if name and name.isprintable() else _NO_NAME

    def _lift(self, text: bytes, at: int, lifted: list[Lifted]) -> int:
        match = _STRICT_STRING.match(text, at)
        end = match.end() if match else at
        if end > at:
            lifted.append(self._decoder.feed(self._spelled_out(text[at:end])))
        if end == len(text):
            return end
        if text[end : end + 1] == b'"':
            self._decoder.close()
            lifted.append(Ended())
            self._where, self._before = _Where.BETWEEN, b'"'
            return end + 1
        self._held = text[end:]
        if len(self._held) >= _LONGEST_ESCAPE:
            raise self._malformed()
        return len(text)

    def _spelled_out(self, raw: bytes) -> bytes:
        """JSON's escapes undone; counted."""
        if b"\\" in raw:
            try:
                raw = json.loads(b'"' + raw + b'"').encode("ascii")
            except ValueError:  # JSONDecodeError, UnicodeDecodeError and UnicodeEncodeError are
                raise self._malformed() from None
        self._uri_bytes += len(raw)
        if self._uri_bytes > self._max_uri_bytes:
            raise TooLargeError(
                f"The data URI in {self._field!r} is longer than {spell_bytes(self._max_uri_bytes)} of text.",
                field=self._field,
            )
        return raw

    def _malformed(self) -> InvalidInputError:
        return InvalidInputError(f"The data URI in {self._field!r} is no JSON string.", field=self._field)
