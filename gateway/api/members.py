"""Members of a JSON body, each read by its rule; what does not keep to it is refused with the member's name. Pure.

``null`` says of an optional member what leaving it out says: clients whose language has one word for both send it.
Members that nobody asks for are let pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.errors import InvalidInputError
from gateway.strictjson import JsonValue

#: Beyond it JSON numbers lose whole units in most languages.
LARGEST_INTEGER: Final = 2**53 - 1


class Members:
    """The members of one object.

    Args:
        values: the object.
        path: what stands before a member's name in errors: "", or "face_swaps[1].".
    """

    def __init__(self, values: Mapping[str, JsonValue], path: str = "") -> None:
        self._values = values
        self._path = path

    def name(self, member: str) -> str:
        """The member as errors name it."""
        return f"{self._path}{member}"

    def has(self, member: str) -> bool:
        """Whether the member says something."""
        return self._values.get(member) is not None

    def value(self, member: str) -> JsonValue:
        """What the member says, whatever its type; None where there is none."""
        return self._values.get(member)

    def text(self, member: str) -> str | None:
        """A string, None where there is none. Raises InvalidInputError."""
        value = self._values.get(member)
        if value is not None and not isinstance(value, str):
            raise self.refused(member, "must be a string")
        return value

    def flag(self, member: str) -> bool | None:
        """A boolean, None where there is none. Raises InvalidInputError."""
        value = self._values.get(member)
        if value is not None and not isinstance(value, bool):
            raise self.refused(member, "must be true or false")
        return value

    def number(self, member: str, *, may_be_zero: bool = True) -> float | None:
        """A number of 0 or more, None where there is none. Raises InvalidInputError."""
        value = self._values.get(member)
        if value is None:
            return None
        least = "0 or more" if may_be_zero else "more than 0"
        # In Python a boolean is a number; a whole one of a hundred digits is more than a float can be.
        number = -1 if isinstance(value, bool) or not isinstance(value, int | float) else value
        if not 0 <= number <= LARGEST_INTEGER or not (number or may_be_zero):
            raise self.refused(member, f"must be a number, {least}")
        return float(number)

    def integer(self, member: str, *, least: int, most: int = LARGEST_INTEGER) -> int | None:
        """A whole number, None where there is none; 2.0 is one. Raises InvalidInputError."""
        value = self._values.get(member)
        if value is None:
            return None
        whole = _whole(value)
        if whole is None or not least <= whole <= most:
            limits = f"{least} or more" if most == LARGEST_INTEGER else f"from {least} to {most}"
            raise self.refused(member, f"must be a whole number, {limits}")
        return whole

    def list(self, member: str) -> list[JsonValue] | None:
        """An array, None where there is none. Raises InvalidInputError."""
        value = self._values.get(member)
        if value is not None and not isinstance(value, list):
            raise self.refused(member, "must be an array")
        return value

    def object(self, member: str) -> dict[str, JsonValue] | None:
        """An object, None where there is none. Raises InvalidInputError."""
        value = self._values.get(member)
        if value is not None and not isinstance(value, dict):
            raise self.refused(member, "must be an object")
        return value

    def refused(self, member: str, rule: str) -> InvalidInputError:
        """The error that says which rule a member breaks."""
        name = self.name(member)
        return InvalidInputError(f"{name} {rule}.", field=name)


def _whole(value: JsonValue) -> int | None:
    """The whole number that a value is, None when it is none. In Python a boolean is a number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) else None
