"""Data URIs, decoded as they come: text in pieces of any size, bytes out; pure, and never more in memory than a piece.

What a data URI says about its type is not believed and not even kept: what the bytes are, ``sniffing.py`` says. Base64
is the strict one (the plain alphabet, whole groups of four, padding at the end and nowhere else), whatever the URI leaves
out of it is not guessed.

Sources: RFC 2397 (the form), RFC 4648 sections 3 and 4 (base64), RFC 3986 section 2 (percent-encoding).
"""

from __future__ import annotations

import binascii
import re
from typing import Final
from urllib.parse import unquote_to_bytes

from gateway.errors import InvalidInputError

#: What may stand between ``data:`` and the comma: longer than any type with its parameters.
MAX_HEAD_BYTES: Final = 256

#: Visible ASCII but the quote, the backslash, and ``#``, behind which some readers would see a fragment.
_URI_TEXT: Final = re.compile(rb"[!$-\[\]-~]*+")
_ESCAPES: Final = re.compile(rb"(?:[^%]++|%[0-9A-Fa-f]{2})*+")
#: An escape that the end of a piece cut in two.
_CUT_ESCAPE: Final = re.compile(rb"%[0-9A-Fa-f]?")
#: Looked at here: ``binascii``'s own strict mode lets some padding pass that belongs to nothing.
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/]*+={0,2}")
_GROUP: Final = 4


class DataUriDecoder:
    """One data URI on its way in.

    Args:
        field: the request field it came in, for the errors.
    """

    def __init__(self, field: str) -> None:
        self._field = field
        self._head: bytearray | None = bytearray()
        self._is_base64 = False
        self._is_padded = False
        #: An escape, and a group of base64, of which the rest is still to come.
        self._cut_escape = b""
        self._cut_group = b""

    def feed(self, text: bytes) -> bytes:
        """Take what follows of the text behind ``data:``; the bytes that it settles.

        Raises:
            InvalidInputError: it is no data URI.
        """
        if not _URI_TEXT.fullmatch(text):
            raise self._error("it holds a character that has no place in one")
        if self._head is not None:
            head, comma, text = text.partition(b",")
            self._head += head
            if len(self._head) > MAX_HEAD_BYTES:
                raise self._error(f"there is no comma within its first {MAX_HEAD_BYTES} characters")
            if not comma:
                return b""
            self._is_base64 = bytes(self._head).lower().endswith(b";base64")
            self._head = None
        data = self._unescaped(text)
        return self._from_base64(data) if self._is_base64 else data

    def close(self) -> None:
        """Say that the text has ended.

        Raises:
            InvalidInputError: in the middle of something.
        """
        if self._head is not None:
            raise self._error("it has no comma")
        if self._cut_escape:
            raise self._error("it ends within an escape")
        if self._cut_group:
            raise self._error("its base64 is not made of whole groups of four")

    def _unescaped(self, text: bytes) -> bytes:
        if self._cut_escape:
            text, self._cut_escape = self._cut_escape + text, b""
        if b"%" not in text:
            return text
        match = _ESCAPES.match(text)
        whole = match.end() if match else 0
        self._cut_escape = text[whole:]
        if self._cut_escape and not _CUT_ESCAPE.fullmatch(self._cut_escape):
            raise self._error("it holds a % that begins no escape")
        return unquote_to_bytes(text[:whole])

    def _from_base64(self, text: bytes) -> bytes:
        text = self._cut_group + text
        whole = len(text) - len(text) % _GROUP
        self._cut_group = text[whole:]
        if not text:
            return b""
        if self._is_padded:
            raise self._error("its base64 goes on behind the padding")
        groups = text[:whole]
        if not _BASE64.fullmatch(groups):
            raise self._error("its base64 is malformed")
        self._is_padded = groups.endswith(b"=")
        return binascii.a2b_base64(groups)

    def _error(self, reason: str) -> InvalidInputError:
        return InvalidInputError(f"The data URI in {self._field!r} is malformed: {reason}.", field=self._field)
