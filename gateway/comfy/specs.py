"""What /object_info says of a class: its inputs, hidden inputs and outputs, read without trust.

Whatever is malformed in an entry is left out, never an error: one odd node pack must not take an upstream out of the
pool. What follows from a specification is for whoever reads it.

Source: ComfyUI a125cd84, ``server.py`` (``node_info``), ``comfy_execution/validation.py``, and for inputs that grow 004b1b5b,
``comfy_api/latest/_io.py`` (``parse_class_inputs``); the format widgets are those of VideoHelperSuite 4ee72c0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from gateway.comfy.graph import allowed_values

#: Takes and gives whatever there is.
ANYTHING: Final = "*"
COMBO: Final = "COMBO"
#: Takes what another input of the node takes, and gives what that gives.
MATCHED: Final = "COMFY_MATCHTYPE_V3"

_GROWS: Final = "COMFY_AUTOGROW_V3"
_SELECTS: Final = "COMFY_DYNAMICCOMBO_V3"
_SLOT: Final = "COMFY_DYNAMICSLOT_V3"
_GROWING: Final = frozenset({_GROWS, _SELECTS, _SLOT})
#: Inputs within inputs within inputs; no node goes deeper than two.
_MAX_NESTING: Final = 8


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input of a class."""

    #: "INT", "IMAGE", "INT,FLOAT", …; "COMBO" for both spellings of a choice.
    type: str
    #: None where it is no choice.
    choices: tuple[object, ...] | None
    options: Mapping[str, Any]
    required: bool
    #: Whether its value says which further inputs there are.
    decides: bool = False

    @property
    def types(self) -> frozenset[str]:
        """The types it takes, each by itself."""
        return types_of(self.type)


def types_of(written: str) -> frozenset[str]:
    """The types of a union, which ComfyUI writes with commas."""
    return frozenset(part.strip() for part in written.split(","))


def input_specs(entry: Mapping[str, Any]) -> dict[str, InputSpec]:
    """Input name -> what is said of it; hidden ones are not among them."""
    sections, choices = entry.get("input"), allowed_values(entry)
    found: dict[str, InputSpec] = {}
    for section in ("optional", "required"):
        inputs = sections.get(section) if isinstance(sections, Mapping) else None
        for name, spec in inputs.items() if isinstance(inputs, Mapping) else ():
            if isinstance(spec, list) and spec:
                kind = spec[0] if isinstance(spec[0], str) else COMBO
                options = spec[1] if len(spec) > 1 and isinstance(spec[1], Mapping) else {}
                decides = "formats" in options or kind == _SELECTS
                found[str(name)] = InputSpec(kind, choices.get(str(name)), options, section == "required", decides)
    return found


def hidden_inputs(entry: Mapping[str, Any]) -> dict[str, str]:
    """Hidden input -> what the server puts there: "PROMPT", "UNIQUE_ID", … V3 nodes write the word in a list."""
    sections = entry.get("input")
    hidden = sections.get("hidden") if isinstance(sections, Mapping) else None
    found: dict[str, str] = {}
    for name, spec in hidden.items() if isinstance(hidden, Mapping) else ():
        word = spec[0] if isinstance(spec, list) and spec else spec
        found[str(name)] = word if isinstance(word, str) else ""
    return found


def output_types(entry: Mapping[str, Any]) -> tuple[object, ...]:
    """Slot -> type: a string, or the list of choices that it gives one of."""
    outputs = entry.get("output")
    return tuple(outputs) if isinstance(outputs, list) else ()


def is_output(entry: object) -> bool:
    """Whether a graph runs for the sake of such nodes."""
    return isinstance(entry, Mapping) and entry.get("output_node") is True


def format_widgets(values: Mapping[str, object], specs: Mapping[str, InputSpec]) -> dict[str, InputSpec]:
    """Inputs that VHS_VideoCombine has only for the format chosen; each stands there as ``[name, type or choices, …]``."""
    for name, spec in specs.items():
        formats, chosen = spec.options.get("formats"), values.get(name)
        widgets = formats.get(chosen) if isinstance(formats, Mapping) and isinstance(chosen, str) else None
        if isinstance(widgets, list):
            named = {str(widget[0]): widget[1:] for widget in widgets if isinstance(widget, list) and widget}
            return input_specs({"input": {"optional": named}})
    return {}


# -------------------------------------------------------------------------------------------------- inputs that grow


def grows(specs: Mapping[str, InputSpec]) -> bool:
    """Whether which inputs there are depends on what a graph says."""
    return any(spec.type in _GROWING for spec in specs.values())


def grown(
    specs: Mapping[str, InputSpec], values: Mapping[str, object], prefix: str = "", nesting: int = 0
) -> dict[str, InputSpec]:
    """The inputs of a V3 class as a graph has them: ``images.image0``, ``model.size``.

    Args:
        specs: as the class says them.
        values: of the node, by input.
        prefix: names of the inputs within which these are, a dot behind each.
        nesting: how deep they are.
    """
    found: dict[str, InputSpec] = {}
    for name, spec in specs.items():
        full = prefix + name
        if spec.type not in _GROWING:
            found[full] = spec
        elif nesting < _MAX_NESTING and spec.type == _GROWS:
            found |= _grown_by_number(full, spec, values)
        elif nesting < _MAX_NESTING:
            found[full] = _leader(spec)
            found |= grown(_led(full, spec, values), values, f"{full}.", nesting + 1)
    return found


def _grown_by_number(full: str, spec: InputSpec, values: Mapping[str, object]) -> dict[str, InputSpec]:
    template = spec.options.get("template")
    template = template if isinstance(template, Mapping) else {}
    inner = next(iter(input_specs(template).values()), None)
    if inner is None:
        return {}
    names, prefix = template.get("names"), template.get("prefix")
    found = {}
    for name in values:
        if not name.startswith(f"{full}."):
            continue
        member = name[len(full) + 1 :]
        is_named = isinstance(names, list) and member in names
        if is_named or (isinstance(prefix, str) and member.startswith(prefix) and member[len(prefix) :].isdecimal()):
            found[name] = replace(inner, required=False)
    return found


def _leader(spec: InputSpec) -> InputSpec:
    """The input on which the others depend, by itself."""
    if spec.type == _SLOT:
        return replace(spec, type=str(spec.options.get("slotType", ANYTHING)), required=False)
    return replace(spec, type=COMBO, choices=tuple(option.get("key") for option in _options(spec)))


def _led(full: str, spec: InputSpec, values: Mapping[str, object]) -> dict[str, InputSpec]:
    """What there is because of it."""
    if spec.type == _SLOT:
        inputs = spec.options.get("inputs") if full in values else None
    else:
        inputs = next(
            (option.get("inputs") for option in _options(spec) if option.get("key") == values.get(full)), None
        )
    return input_specs({"input": inputs}) if isinstance(inputs, Mapping) else {}


def _options(spec: InputSpec) -> list[Mapping[str, Any]]:
    options = spec.options.get("options")
    return [option for option in options if isinstance(option, Mapping)] if isinstance(options, list) else []
