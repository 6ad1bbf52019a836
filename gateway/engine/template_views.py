"""The templates that serve, as the windows see them: each with what keeps it from running. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gateway.engine.task_types import Lacks, what_is_missing
from gateway.template import Template


@dataclass(frozen=True, slots=True)
class TemplateView:
    """A template that serves."""

    template: Template
    #: What upstreams lack for it, in sentences for clients; empty when one that ever said what it can do can run it.
    missing: tuple[str, ...]


def template_views(templates: Iterable[Template], lacks_of: Callable[[Template], Lacks]) -> tuple[TemplateView, ...]:
    """All of them, in their order. Args: lacks_of: what upstreams lack for a template."""
    return tuple(TemplateView(template, what_is_missing([template], lacks_of)) for template in templates)
