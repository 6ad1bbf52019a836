"""Whether ComfyUI would take a literal for an input, or a link of some type: as it compares, which is loosely.

It casts strings and numbers for INT and FLOAT, anything for STRING and BOOLEAN, compares choices as Python does and does
not look at types of its packs. Beyond it, numbers must be finite, and where only a link can bring a value there must be one.
Pure.

Source: ComfyUI a125cd84, ``execution.py`` (``validate_inputs``), ``comfy_execution/validation.py``.
"""

from __future__ import annotations

import math
from typing import Final

from gateway.comfy.specs import ANYTHING, COMBO, MATCHED, InputSpec, types_of
from gateway.workflow_reading import cut
from gateway.workflow_values import Reason

#: Types that have no words: only a link brings such a value.
LINKED_ONLY: Final = frozenset(
    {
        "AUDIO",
        "CLIP",
        "CLIP_VISION",
        "CLIP_VISION_OUTPUT",
        "CONDITIONING",
        "CONTROL_NET",
        "FACE_MODEL",
        "GUIDER",
        "IMAGE",
    }
    | {"LATENT", "MASK", "MODEL", "NOISE", "SAMPLER", "SIGMAS", "STYLE_MODEL", "UPSCALE_MODEL", "VAE", "VIDEO"}
)
#: Longer ones are no numbers; to read them takes time that grows with the square.
_NUMBER_CHARS: Final = 400


def literal_fault(value: object, spec: InputSpec) -> tuple[Reason, str] | None:
    """(reason, sentence) of what is wrong with a literal; None where ComfyUI would take it."""
    if spec.type == COMBO:
        return _choice_fault(value, spec)
    if spec.type in {"INT", "FLOAT"}:
        number = _number(value, spec.type)
        if number is None:
            return (
                Reason.INVALID_VALUE,
                f"{cut(str(value))!r} is no {'whole number' if spec.type == 'INT' else 'number'}",
            )
        return _range_fault(number, spec)
    if spec.types <= LINKED_ONLY and not (value is None and not spec.required):
        return Reason.MISSING_INPUT, f"it takes {cut(spec.type)}, which only a link brings"
    # Types of packs may have limits too; ComfyUI compares whatever stands there.
    return _range_fault(value, spec) if isinstance(value, int | float) else None


def _choice_fault(value: object, spec: InputSpec) -> tuple[Reason, str] | None:
    if spec.choices is None or "remote" in spec.options:
        return None  # a list that only the editor asks for
    values = value if isinstance(value, list) and spec.options.get("multiselect") else [value]
    for each in values:
        if each not in spec.choices:
            return Reason.VALUE_NOT_IN_LIST, f"{cut(str(each))!r} is not among the values it takes"
    return None


def _range_fault(number: float, spec: InputSpec) -> tuple[Reason, str] | None:
    least, most = spec.options.get("min"), spec.options.get("max")
    if isinstance(least, int | float) and number < least:
        return Reason.OUT_OF_RANGE, f"{cut(str(number))} is smaller than {least}"
    if isinstance(most, int | float) and number > most:
        return Reason.OUT_OF_RANGE, f"{cut(str(number))} is larger than {most}"
    return None


def _number(value: object, kind: str) -> float | None:
    """The number that ComfyUI makes of a literal; None where it makes none, or one that is not finite."""
    if (isinstance(value, str) and len(value) > _NUMBER_CHARS) or not isinstance(value, str | int | float):
        return None
    try:
        number = int(value) if kind == "INT" else float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def fits(given: object, spec: InputSpec) -> bool:
    """Whether a link of this type may end there."""
    if isinstance(given, list):
        return spec.type in {COMBO, ANYTHING} and (spec.choices in {None, tuple(given)} if spec.choices else True)
    if not isinstance(given, str):
        return True  # a type that JSON cannot spell; the upstream knows
    types = types_of(given)
    return bool({ANYTHING, MATCHED} & (types | spec.types)) or bool(types & spec.types)
