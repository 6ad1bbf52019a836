"""Settings as the command line reads them, and where each came from: flag, environment, ``gateway.toml``, default."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import ByteSize, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import SettingsError

from gateway.data_dir import StartError
from gateway.settings import Settings, parse_duration

PREFIX = "GATEWAY_"
TOML = Path("gateway.toml")
#: Variables of ours that are flags of the command line and no settings.
NO_SETTINGS = frozenset({"GATEWAY_URL"})
HIDDEN = "***"

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s,]*@")
_DURATIONS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_SIZES = ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"), (1, "bytes"))


def read_settings(flags: Mapping[str, Any]) -> Settings:
    """Settings from flags over environment over ``gateway.toml``. Raises StartError with one line per fault."""
    given = {name: value for name, value in flags.items() if value is not None}
    read_toml()  # what is wrong with it is told in our words
    try:
        return Settings(**given)
    except ValidationError as error:
        raise StartError("\n".join(_fault(fault) for fault in error.errors())) from error
    except SettingsError as error:
        raise StartError(f"The settings cannot be read: {error}.") from error


def read_toml(path: Path = TOML) -> Mapping[str, Any]:
    """What stands in ``gateway.toml``; empty when there is none. Raises StartError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartError(f"{path} is no TOML ({error}): mend it; each line is name = value.") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StartError(f"{path} cannot be read ({reason}): see to its rights, or take it away.") from error


def _fault(fault: Any) -> str:
    name = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{TOML}: {name} is no setting{_meant(name)}"
    where = f"{PREFIX}{name.upper()}: " if name else ""
    return f"{where}{fault['msg'].removeprefix('Value error, ')}"


def _meant(name: str) -> str:
    near = difflib.get_close_matches(name.lower(), Settings.model_fields, n=1)
    return f"; perhaps {near[0]} is meant" if near else ""


# ----------------------------------------------------------------------------------------------------------- to be shown


class Origin(StrEnum):
    """Where a value came from, the strongest first."""

    FLAG = "flag"
    ENVIRONMENT = "environment"
    FILE = "gateway.toml"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Row:
    """One setting, to be shown."""

    #: With its prefix.
    name: str
    #: Fit to be shown: no secret, no credentials.
    value: str
    origin: Origin


def rows(flags: Mapping[str, Any], environment: Mapping[str, str], settings: Settings | None) -> Iterator[Row]:
    """Every setting, in the order of the table in ``settings.py``.

    Args:
        flags: those given; None stands for none.
        environment: of this process.
        settings: read from these; None when they are no valid ones, then values are shown as they were given.
    """
    variables = {name.lower(): value for name, value in environment.items()}
    file = read_toml()
    for name, field in Settings.model_fields.items():
        places = (
            (Origin.FLAG, flags.get(name)),
            (Origin.ENVIRONMENT, variables.get(PREFIX.lower() + name)),
            (Origin.FILE, file.get(name)),
            (Origin.DEFAULT, field.default),
        )
        origin, given = next(place for place in places if place[1] is not None or place[0] is Origin.DEFAULT)
        value = given if settings is None else getattr(settings, name)
        yield Row(PREFIX + name.upper(), shown(value, field), origin)


def shown(value: object, field: FieldInfo) -> str:
    """A value in the spelling that the setting takes, secrets hidden, "-" for none."""
    if value is None or value == ():
        return "-"
    if isinstance(value, SecretStr) or "SecretStr" in str(field.annotation):
        return HIDDEN
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, ByteSize):
        return _in_units(value, _SIZES)
    if isinstance(value, float) and any(getattr(part, "func", None) is parse_duration for part in field.metadata):
        return _in_units(value, _DURATIONS)
    text = ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    return _CREDENTIALS.sub(f"{HIDDEN}@", text)


def _in_units(value: float, units: tuple[tuple[int, str], ...]) -> str:
    for factor, unit in units:
        if value and value % factor == 0:
            return f"{value / factor:.0f} {unit}"
    return f"{value:g} {units[-1][1]}"


def unknown_names(environment: Mapping[str, str]) -> list[str]:
    """One sentence for each variable that looks like a setting of ours and is none."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | NO_SETTINGS
    names = sorted(name for name in environment if name.upper().startswith(PREFIX) and name.upper() not in known)
    return [f"{name} is no setting and does nothing{_meant_variable(name)}." for name in names]


def _meant_variable(name: str) -> str:
    near = difflib.get_close_matches(name.upper().removeprefix(PREFIX).lower(), Settings.model_fields, n=1)
    return f"; perhaps {PREFIX}{near[0].upper()} is meant" if near else ""


def show(flags: Mapping[str, Any]) -> list[str]:
    """Print the table, one line a setting, never folded; the warnings about unknown names. Raises StartError after it."""
    fault: StartError | None = None
    settings: Settings | None = None
    read_toml()
    try:
        settings = read_settings(flags)
    except StartError as error:
        fault = error
    table = list(rows(flags, os.environ, settings))
    widest = max(len(row.name) for row in table)
    for row in table:
        print(f"{row.name:<{widest}}  {row.origin:<12}  {row.value}")
    if fault is not None:
        raise fault
    return unknown_names(os.environ)
