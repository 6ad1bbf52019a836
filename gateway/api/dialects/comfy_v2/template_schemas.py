"""Named inputs of templates: what one takes, as JSON Schema, and what a client sent, in our words; pure.

A schema is derived from the template alone. It says what can be said in that language; what the engine checks beyond it
(how large a picture may become, which models there are now) is told when a job is created. A file is an asset, as
``core/ASSET`` or as the ``file_path`` of one's own upload.

Source: JSON Schema, draft 2020-12; the form of an asset reference, the published contract of the Comfy API v2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.audit import MediaKind
from gateway.engine.template_views import TemplateView
from gateway.errors import InvalidInputError
from gateway.manifest import ParameterEntry, ParameterType
from gateway.repeating import role_name
from gateway.strictjson import JsonValue
from gateway.template import InputRole, Repeat, Template

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
ASSET: Final = "core/ASSET"
_FLAGS: Final = re.compile(r"\(\?[aiLmsux]+\)")
_TYPES: Final[Mapping[ParameterType, str]] = {
    ParameterType.BOOL: "boolean",
    ParameterType.INT: "integer",
    ParameterType.FLOAT: "number",
    ParameterType.STRING: "string",
    ParameterType.CHOICE: "string",
}
_FILE: Final[Mapping[str, object]] = {
    "description": "An asset, or the file_path of an upload of yours.",
    "anyOf": [
        {
            "type": "object",
            "required": ["__type", "info"],
            "properties": {
                "__type": {"const": ASSET},
                "info": {
                    "type": "object",
                    "required": ["id"],
                    "properties": {
                        "id": {"type": "string"},
                        "hash": {"type": "string"},
                        "file_path": {"type": "string"},
                    },
                },
            },
        },
        {"type": "string", "minLength": 1},
    ],
}

# ---------------------------------------------------------------------------------------------------------- to a client


def template_body(view: TemplateView, url: str) -> dict[str, object]:
    """A template in a list. Args: url: of itself."""
    template = view.template
    return {
        "name": template.name,
        "version": template.version,
        "title": template.title,
        "task": template.task,
        "price": {"credits": template.pricing.credits, "per": template.pricing.per.value},
        "can_run": not view.missing,
        "missing": list(view.missing),
        "urls": {"self": url, "jobs": f"{url}/jobs"},
    }


def described_body(view: TemplateView, url: str) -> dict[str, object]:
    """A template with the schema of its inputs."""
    return {**template_body(view, url), "inputs": schema_of(view.template)}


def schema_of(template: Template) -> dict[str, object]:
    """The JSON Schema of what a template's ``inputs`` may be."""
    own = {repeat.entry.role for repeat in template.repeats.values()}
    properties: dict[str, object] = {name: _file(role) for name, role in template.inputs.items()}
    properties |= {name: _value(item.entry) for name, item in template.parameters.items()}
    properties |= {name: _list(repeat, template) for name, repeat in template.repeats.items()}
    required = [name for name in template.inputs if name not in own]
    required += [name for name, item in template.parameters.items() if item.entry.required]
    schema: dict[str, object] = {
        "$schema": DIALECT,
        "title": template.title,
        "type": "object",
        "properties": properties,
        "required": sorted(required),
        "additionalProperties": False,
        "$defs": {"file": _FILE},
    }
    if template.repeats:
        schema["allOf"] = [_one_or_many(repeat) for repeat in template.repeats.values()]
    return schema


def _one_or_many(repeat: Repeat) -> dict[str, object]:
    """The file by itself, or the list in which each item has one; with the list, nothing that it stands in for."""
    shut_out = [{"required": [name]} for name in (repeat.entry.role, *repeat.entry.instead_of)]
    one = {"required": [repeat.entry.role], "not": {"required": [repeat.name]}}
    many = {"required": [repeat.name], "not": {"anyOf": shut_out}}
    return {"oneOf": [one, many]}


def _file(role: InputRole) -> dict[str, object]:
    return {"$ref": "#/$defs/file", "description": f"File: {', '.join(sorted(role.entry.accepts))}."}


def _list(repeat: Repeat, template: Template) -> dict[str, object]:
    items: dict[str, object] = {
        "type": "object",
        "properties": {
            repeat.entry.role: _file(template.inputs[repeat.entry.role]),
            **{name: _value(item.entry) for name, item in repeat.parameters.items()},
        },
        "required": sorted(
            [repeat.entry.role, *(name for name, item in repeat.parameters.items() if item.entry.required)]
        ),
        "additionalProperties": False,
    }
    return {"type": "array", "minItems": 1, "maxItems": repeat.entry.max, "items": items}


def _value(entry: ParameterEntry) -> dict[str, object]:
    is_text = entry.type is ParameterType.STRING
    said: dict[str, object | None] = {
        "type": _TYPES[entry.type],
        "description": _described(entry),
        "default": entry.default,
        "minimum": entry.min,
        "maximum": entry.max,
        "multipleOf": entry.multiple_of if entry.multiple_of != 1 else None,
        "enum": list(entry.choices) or None,
        "maxLength": entry.max_length if is_text else None,
        "pattern": _pattern(entry.pattern),
    }
    return {name: value for name, value in said.items() if value is not None}


def _described(entry: ParameterEntry) -> str | None:
    said = [text for text in (entry.help, entry.unit and f"({entry.unit})") if text]
    means = [f"It {entry.pattern_means}."] if entry.pattern_means else []
    return " ".join([f"{' '.join(said)}." if means and said else " ".join(said), *means]) or None


def _pattern(pattern: str | None) -> str | None:
    """A pattern as JSON Schema has them: of any part of a text, and without flags, which are Python's own."""
    if pattern is None or _FLAGS.search(pattern):
        return None
    return f"^(?:{pattern})$"


# -------------------------------------------------------------------------------------------------------- from a client


@dataclass(frozen=True, slots=True)
class AssetName:
    """A file that a client names."""

    #: The input, as errors name it.
    field: str
    asset_id: str | None
    file_path: str | None


@dataclass(frozen=True, slots=True)
class Given:
    """A client's inputs, taken apart."""

    #: By role of the job.
    files: Mapping[str, AssetName]
    accepts: Mapping[str, frozenset[MediaKind]]
    #: Nobody has judged them yet.
    parameters: Mapping[str, object]


def read_inputs(template: Template, inputs: Mapping[str, JsonValue]) -> Given:
    """What a client sent for a template.

    Raises:
        InvalidInputError: a file is missing or malformed, or there is no such input.
    """
    if strangers := inputs.keys() - template.inputs.keys() - template.settable:
        raise InvalidInputError(f"There is no input {min(strangers)[:64]!r}.", field=min(strangers)[:64])
    given = {name: value for name, value in inputs.items() if value is not None}
    roles = dict(template.inputs)
    files: dict[str, tuple[AssetName, InputRole]] = {}
    parameters: dict[str, object] = {name: value for name, value in given.items() if name in template.settable}
    for repeat in template.repeats.values():
        if repeat.name in given:
            role = roles.pop(repeat.entry.role)
            if role.name in given:
                raise InvalidInputError(f"{repeat.name} and {role.name} exclude each other.", field=role.name)
            items = _items(repeat, given[repeat.name])
            for number, item in enumerate(items):
                named = asset_name(item.get(role.name), f"{repeat.name}[{number}].{role.name}")
                files[role_name(repeat, number)] = named, role
            parameters[repeat.name] = [_without(item, role.name) for item in items]
    for name, role in roles.items():
        if name not in given:
            raise InvalidInputError(f"{name} is missing.", field=name)
        files[name] = asset_name(given[name], name), role
    return Given(
        {name: named for name, (named, _) in files.items()},
        {name: role.entry.accepts for name, (_, role) in files.items()},
        parameters,
    )


def _items(repeat: Repeat, value: JsonValue) -> list[dict[str, JsonValue]]:
    """A list as far as files are concerned; the rest of it is for the engine."""
    name, most = repeat.name, repeat.entry.max
    if not isinstance(value, list) or not 1 <= len(value) <= most:
        raise InvalidInputError(f"{name} must be a list of 1 to {most} items.", field=name)
    items = [item for item in value if isinstance(item, dict)]
    if len(items) != len(value):
        raise InvalidInputError(f"{name} must hold objects.", field=name)
    return items


def _without(item: Mapping[str, JsonValue], name: str) -> dict[str, JsonValue]:
    return {key: value for key, value in item.items() if key != name}


def asset_name(value: JsonValue, field: str) -> AssetName:
    """The file that a value names. Raises InvalidInputError: it names none."""
    if isinstance(value, str) and value:
        return AssetName(field, None, value)
    if isinstance(value, dict) and value.get("__type") == ASSET:
        info = value.get("info")
        asset_id = info.get("id") if isinstance(info, dict) else None
        if isinstance(asset_id, str) and asset_id:
            return AssetName(field, asset_id, None)
    raise InvalidInputError(f"{field} must be a {ASSET} with an id, or the file_path of an upload.", field=field)
