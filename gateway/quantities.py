"""Numbers that a template works out: what it writes into nodes, what its results must measure, what a job may ask for.

A product is a list of factors: int parameters of the job and sizes of its inputs, as ``manifest.py`` has checked them.
Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Final

from gateway.audit import MediaFacts, MediaKind, Promise
from gateway.errors import InvalidInputError, TemplateError
from gateway.manifest import DerivedEntry, OutputEntry, Product
from gateway.template import OutputSpec, Template

#: Role -> facts of the file that a job brings for it.
Facts = Mapping[str, MediaFacts]

_CONTENT_TYPES: Final = {
    MediaKind.IMAGE: ("image/png", ".png"),
    MediaKind.GIF: ("image/gif", ".gif"),
    MediaKind.VIDEO: ("video/mp4", ".mp4"),
}


def check_quantities(template: Template, parameters: Mapping[str, object], facts: Facts) -> None:
    """Whether a job asks for no more than its template makes; ``parameters`` as ``check_parameters`` gave them.

    Raises:
        InvalidInputError: it does; ``field`` is the first parameter that the number is made of.
    """
    for derived in template.derived.values():
        entry = derived.entry
        value = _value(template, entry.product, parameters, facts)
        if entry.max is not None and value > entry.max:
            said = " times ".join(entry.product)
            raise InvalidInputError(f"{said} may be {entry.max} at most, not {value}.", field=_field(entry.product))
    for output in template.outputs.values():
        _check_size(output.entry, promise_of(template, output, parameters, facts))


def _check_size(entry: OutputEntry, promise: Promise) -> None:
    if promise.width is None or promise.height is None:
        return
    too_long = entry.max_side is not None and max(promise.width, promise.height) > entry.max_side
    too_large = entry.max_pixels is not None and promise.width * promise.height > entry.max_pixels
    if too_long or too_large:
        limits = [] if entry.max_side is None else [f"{entry.max_side} pixels on a side"]
        limits += [] if entry.max_pixels is None else [f"{entry.max_pixels:,} pixels in all"]
        made = f"The result would have {promise.width}x{promise.height} pixels"
        raise InvalidInputError(f"{made}; at most {' and '.join(limits)} are made.", field=_field(entry.width))


def _field(product: Product) -> str:
    return next((factor for factor in product if "." not in factor), product[0].partition(".")[0])


def derived_value(template: Template, entry: DerivedEntry, parameters: Mapping[str, object], facts: Facts) -> int:
    """The number to write: the product, raised to the next one that the node's stride allows.

    Raises:
        TemplateError: a factor is not known.
    """
    value = _value(template, entry.product, parameters, facts)
    return math.ceil(max(value - entry.plus, 0) / entry.step) * entry.step + entry.plus


def promise_of(template: Template, output: OutputSpec, parameters: Mapping[str, object], facts: Facts) -> Promise:
    """What a job's result must measure.

    Raises:
        TemplateError: a factor is not known.
    """
    entry = output.entry
    width, height, frames, fps = (
        _value(template, product, parameters, facts) if product else None
        for product in (entry.width, entry.height, entry.frames, entry.fps)
    )
    return Promise(entry.kind, width, height, frames, fps)


def work_facts(template: Template, parameters: Mapping[str, object], facts: Facts, target: str) -> MediaFacts | None:
    """What tells how much work a job is: what it makes where that is told, else its target; None where neither is there.

    Args:
        template: pinned version of the job.
        parameters: of the job, as ``check_parameters`` gave them.
        facts: of its inputs.
        target: role of the target.
    """
    for output in template.outputs.values():
        promise = promise_of(template, output, parameters, facts)
        if promise.width is not None and promise.height is not None:
            content_type, suffix = _CONTENT_TYPES[promise.kind]
            seconds = promise.frames / promise.fps if promise.frames and promise.fps else None
            return MediaFacts(
                promise.kind,
                content_type,
                suffix,
                promise.width,
                promise.height,
                promise.frames or 1,
                fps=Fraction(promise.fps) if promise.fps else None,
                duration_seconds=seconds,
                has_audio=False,
                video_codec=None,
            )
    return facts.get(target)


def _value(template: Template, product: Product, parameters: Mapping[str, object], facts: Facts) -> int:
    value = 1
    for factor in product:
        role, dot, side = factor.partition(".")
        known = parameters.get(factor) if not dot else getattr(facts[role], side) if role in facts else None
        if not isinstance(known, int):
            raise TemplateError(template.name, f"{factor} is not known, and a number is made of it")
        value *= known
    return value
