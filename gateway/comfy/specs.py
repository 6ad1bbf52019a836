"""What /object_info says of a class: its inputs, hidden inputs and outputs, read without trust.

Whatever is malformed in an entry is left out, never an error: one odd node pack must not take an upstream out of the
pool. What follows from a specification is for whoever reads it.

Source: ComfyUI a125cd84, ``server.py`` (``node_info``), ``comfy_execution/validation.py``; the format widgets are those of
VideoHelperSuite 4ee72c0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.comfy.graph import allowed_values

#: Takes and gives whatever there is.
ANYTHING: Final = "*"
COMBO: Final = "COMBO"


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input of a class."""

    #: "INT", "IMAGE", "INT,FLOAT", …; "COMBO" for both spellings of a choice.
    type: str
    #: None where it is no choice.
    choices: tuple[object, ...] | None
    options: Mapping[str, Any]
    required: bool

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
                found[str(name)] = InputSpec(kind, choices.get(str(name)), options, section == "required")
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
