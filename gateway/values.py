"""Whether a value is one that a parameter takes, and which one to take where a job leaves it open.

Pure; ``manifest.py`` says what parameters there are, ``binding.py`` writes the values.
"""

from __future__ import annotations

import fnmatch
import math
import re
from typing import Final

from gateway.errors import InvalidInputError
from gateway.manifest import ParameterEntry, ParameterType

#: What a string of several lines may hold besides printable characters.
_BREAKS: Final = str.maketrans("\n\r\t", "   ")


def check_value(entry: ParameterEntry, name: str, value: object) -> bool | int | float | str:
    """A parameter's value as the node input takes it.

    A choice from object_info is only looked at for its shape: which values there are, each upstream says for itself.

    Raises:
        InvalidInputError: wrong type, out of range, not one of the choices; ``field`` is the parameter.
    """
    if entry.type is ParameterType.BOOL:
        if isinstance(value, bool):
            return value
        raise InvalidInputError(f"{name} must be true or false.", field=name)
    if entry.type in {ParameterType.INT, ParameterType.FLOAT}:
        return _check_number(entry, name, value)
    if not isinstance(value, str):
        raise InvalidInputError(f"{name} must be a string.", field=name)
    plain = value.translate(_BREAKS) if entry.multiline else value
    if len(value) > entry.max_length or not plain.isprintable():
        raise InvalidInputError(f"{name} must be printable text of at most {entry.max_length} characters.", field=name)
    if entry.pattern is not None and not re.fullmatch(entry.pattern, value, re.ASCII):
        means = entry.pattern_means or "does not have the form that it must have"
        raise InvalidInputError(f"{name} {means}.", field=name)
    if entry.choices and value not in entry.choices:
        raise InvalidInputError(f"{name} must be one of {', '.join(entry.choices)}.", field=name)
    return value


def _check_number(entry: ParameterEntry, name: str, value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInputError(f"{name} must be a number.", field=name)
    wanted = "number" if entry.type is ParameterType.FLOAT else "whole number"
    if entry.type is ParameterType.INT and isinstance(value, float):
        # JSON has one kind of number: 2.0 is what some clients write for 2.
        if not value.is_integer():
            raise InvalidInputError(f"{name} must be a {wanted}.", field=name)
        value = int(value)
    above = entry.min is None or value >= entry.min
    below = entry.max is None or value <= entry.max
    unit = f" {entry.unit}" if entry.unit else ""
    if not above or not below or not math.isfinite(value):
        least, most = ("" if limit is None else f"{limit}{unit}" for limit in (entry.min, entry.max))
        allowed = f" from {least} to {most}" if least and most else f" of at least {least}" if least else ""
        allowed = allowed or (f" of at most {most}" if most else "")
        raise InvalidInputError(f"{name} must be a {wanted}{allowed}.", field=name)
    if isinstance(value, int) and value % entry.multiple_of:
        raise InvalidInputError(f"{name} must be a multiple of {entry.multiple_of}.", field=name)
    return value


def preferred(entry: ParameterEntry, offered: tuple[object, ...] | None) -> str | None:
    """The value to take of what an upstream offers: the first preference that is there, else the fallback, else None.

    A pattern takes the first match in alphabetical order, so that two upstreams with the same files agree.
    """
    names = sorted(value for value in offered or () if isinstance(value, str) and not _is_avoided(entry, value))
    for wanted in entry.prefer:
        for name in names:
            if fnmatch.fnmatchcase(name, wanted):
                return name
    return entry.fallback.value if entry.fallback is not None and entry.fallback.value in names else None


def _is_avoided(entry: ParameterEntry, name: str) -> bool:
    return any(fnmatch.fnmatchcase(name.lower(), pattern.lower()) for pattern in entry.avoid)
