"""What the pool can be asked to do: each task that a template does, its parameters, and what keeps it from running.

An upstream counts from the moment it said what it can do, also while it is down: what it lacks it will most likely lack
when it is back, and a job may wait for it. Sentences name no upstream: they are meant for clients. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from gateway.manifest import Number, ParameterType, Scalar
from gateway.template import Parameter, Template

#: Of each upstream that has said what it can do, what it lacks for something; () when nothing.
Lacks: TypeAlias = Sequence[tuple[str, ...]]

NOBODY_KNOWN = "no worker has said yet what it can do"
#: Sentences told of one task.
MAX_SENTENCES = 20


@dataclass(frozen=True, slots=True)
class TaskParameter:
    """A value that a job of a task may set."""

    name: str
    type: ParameterType
    #: Whether a job must set it.
    required: bool
    #: What it is where a job says nothing; None where it is required, or chosen later.
    default: Scalar | None = None
    #: Limits of a number, both allowed themselves.
    min: Number | None = None
    max: Number | None = None
    #: An int must be a multiple of it; None where any will do.
    multiple_of: int | None = None
    #: What a number counts: "px", "s".
    unit: str | None = None
    #: Values of a choice; empty where each upstream lists its own.
    choices: tuple[str, ...] = ()
    #: Longest string, in characters; None for other types.
    max_length: int | None = None
    help: str | None = None


@dataclass(frozen=True, slots=True)
class TaskType:
    """Something that jobs can be asked for."""

    #: As manifests and submissions name it: "face_swap".
    name: str
    #: Of all its templates, each name once.
    parameters: tuple[TaskParameter, ...]
    #: Whether some upstream that ever said what it can do, down or not, can run one of its templates.
    can_run: bool
    #: What upstreams lack for it, in sentences for clients; empty when it can run.
    missing: tuple[str, ...]


def task_types(templates: Iterable[Template], lacks_of: Callable[[Template], Lacks]) -> tuple[TaskType, ...]:
    """All tasks that these templates do, by name.

    Args:
        templates: that serve.
        lacks_of: what upstreams lack for a template.
    """
    by_task: dict[str, list[Template]] = {}
    for template in templates:
        by_task.setdefault(template.task, []).append(template)
    return tuple(_task_type(name, group, lacks_of) for name, group in sorted(by_task.items()))


def _task_type(name: str, templates: list[Template], lacks_of: Callable[[Template], Lacks]) -> TaskType:
    parameters: dict[str, TaskParameter] = {}
    for template in templates:
        for parameter in template.parameters.values():
            parameters.setdefault(parameter.name, _told(parameter))
    missing = what_is_missing(templates, lacks_of)
    return TaskType(name, tuple(parameters.values()), not missing, missing)


def _told(parameter: Parameter) -> TaskParameter:
    entry = parameter.entry
    return TaskParameter(
        name=parameter.name,
        type=entry.type,
        required=entry.required,
        default=entry.default,
        min=entry.min,
        max=entry.max,
        multiple_of=entry.multiple_of if entry.multiple_of != 1 else None,
        unit=entry.unit,
        choices=entry.choices,
        max_length=entry.max_length if entry.type is ParameterType.STRING else None,
        help=entry.help,
    )


def what_is_missing(templates: Iterable[Template], lacks_of: Callable[[Template], Lacks]) -> tuple[str, ...]:
    """What keeps every one of these templates from running anywhere, in sentences; empty when one can run."""
    sentences: dict[str, None] = {}
    for template in templates:
        lacks = lacks_of(template)
        if () in lacks:
            return ()
        # Of upstreams that all lack something, the one that lacks least tells best what to put right.
        for reason in min(lacks, key=len, default=(NOBODY_KNOWN,)):
            sentences[reason if reason == NOBODY_KNOWN else f"{template.name}: {reason}"] = None
    return tuple(sentences)[:MAX_SENTENCES]
