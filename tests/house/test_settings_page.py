"""``docs/settings.md`` says what ``gateway/settings.py`` says: each setting, its kind, its default, its help, and no more."""

from __future__ import annotations

import re
import types
from pathlib import Path
from typing import Literal, Union, get_args, get_origin

import pytest
from pydantic import ByteSize, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from gateway.settings import Settings, from_mapping

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
FIELDS = Settings.model_fields
DURATIONS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
WORDS = {int: "number", float: "number", str: "text", Path: "path", SecretStr: "secret", bool: "true or false"}


def is_duration(field: FieldInfo) -> bool:
    return any(getattr(getattr(part, "func", None), "__name__", "") == "parse_duration" for part in field.metadata)


def kind(field: FieldInfo) -> str:
    annotation = field.annotation
    if get_origin(annotation) in {Union, types.UnionType}:
        annotation = next(part for part in get_args(annotation) if part is not types.NoneType)
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(annotation))
    if get_origin(annotation) is tuple:
        return "list"
    if annotation is ByteSize:
        return "bytes"
    return "duration" if is_duration(field) else WORDS[annotation]


def default(field: FieldInfo) -> str:
    value = field.default
    assert value is not PydanticUndefined, "every setting has a default"
    if value is None or value == ():
        return "-"
    if field.annotation is ByteSize:
        power, unit = next(
            (power, unit) for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB"), (0, "B")) if not value % 1024**power
        )
        return f"`{value // 1024**power} {unit}`"
    if isinstance(value, tuple):
        return f"`{', '.join(value)}`"
    if is_duration(field):
        # Thirty days read better than 720 hours, 24 hours better than one day.
        size, unit = next((size, unit) for size, unit in DURATIONS if value % size == 0 and value > size)
        return f"`{value / size:g} {unit}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def row(name: str) -> str:
    """The line that the page must hold for a setting."""
    field = FIELDS[name]
    return f"| `GATEWAY_{name.upper()}` | {kind(field)} | {default(field)} | {field.description} |"


@pytest.mark.parametrize("name", FIELDS)
def test_each_setting_stands_on_the_page_as_it_is(name: str) -> None:
    assert row(name) in PAGE.read_text(encoding="utf-8").splitlines()


def test_the_page_names_no_other_setting() -> None:
    named = re.findall(r"GATEWAY_([A-Z][A-Z0-9_]*[A-Z])", PAGE.read_text(encoding="utf-8"))
    # GATEWAY_URL is a flag of the command line's clients.
    assert set(named) == {name.upper() for name in FIELDS} | {"URL"}


@pytest.mark.parametrize("name", FIELDS)
def test_defaults_on_the_page_can_be_typed_as_they_stand(name: str) -> None:
    """What the page shows as a default means the default when it is set."""
    shown = default(FIELDS[name])
    if shown == "-":
        return
    assert getattr(from_mapping({name: shown.strip("`")}), name) == getattr(from_mapping({}), name)
