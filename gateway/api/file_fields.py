"""The files of a form as inputs of a job: of a kind that fits their field, and none that nobody asked for; pure.

A kind is known by a file's first bytes. Whether it decodes, and how large the picture in it is, is asked later, in
``media/``. What a missing file means, and in which words to say so, is each dialect's own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from gateway.api.facade import SubmittedFile
from gateway.api.incoming import ReceivedFile
from gateway.audit import MediaKind
from gateway.errors import InvalidInputError, UnsupportedMediaError

MOVING: Final = frozenset({MediaKind.VIDEO, MediaKind.GIF})
STILL: Final = frozenset({MediaKind.IMAGE})


def refuse_other_files(files: Mapping[str, ReceivedFile], known: Collection[str]) -> None:
    """Raise InvalidInputError for a file in a field that takes none: it would be dropped without a word."""
    for name in files:
        if name not in known:
            raise InvalidInputError(f"The field {name!r} does not take a file.", field=name)


def submitted_file(name: str, file: ReceivedFile, kinds: frozenset[MediaKind], *, hint: str = "") -> SubmittedFile:
    """The file of one field.

    Args:
        name: the field.
        file: what came in it.
        kinds: what may come in it.
        hint: a sentence for whoever sent another kind.

    Raises:
        UnsupportedMediaError: naming the field, what came and what may.
    """
    kind = file.media_type.kind
    if kind not in kinds:
        wanted = " or ".join(sorted(kind.value for kind in kinds))
        sentence = f"The file in {name!r} is of kind {kind.value}; this field takes {wanted}."
        raise UnsupportedMediaError(f"{sentence} {hint}".rstrip(), field=name)
    return SubmittedFile(file.blob, name)
