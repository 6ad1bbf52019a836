"""What a task needs of an upstream, as one comparable key and back.

The key is the template's pinned version, and behind it those models that the client chose itself: two tasks with one key
fit the same upstreams, so the queue, the pool and the scheduler can speak of needs without knowing a template. And the
graph of an attempt, once an upstream meets them. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from gateway.audit import MediaFacts
from gateway.binding import Bound, bind
from gateway.interfaces import Capabilities
from gateway.job import Job
from gateway.lacks import missing_on
from gateway.quantities import work_facts
from gateway.template import Template

_MARK = "?"

#: Input whose kind tells which of a task's templates fits, and whose size how much work there is.
TARGET_ROLE: Final = "target"


@dataclass(frozen=True)
class Need:
    """A template in one version, and the models that must be there for it."""

    template: Template
    #: Parameter -> the value a client chose of what object_info lists; the others take what an upstream has.
    choices: Mapping[str, object]


def requirement_of(template: Template, parameters: Mapping[str, object]) -> str:
    """The key of a task; ``parameters`` as ``check_parameters`` gave them."""
    choices = {
        name: parameters[name]
        for name, parameter in template.parameters.items()
        if parameter.entry.choices_from is not None and name in parameters
    }
    if not choices:
        return template.requirement
    return template.requirement + _MARK + orjson.dumps(choices, option=orjson.OPT_SORT_KEYS).decode()


def split_requirement(requirement: str) -> tuple[str, str, dict[str, Any]]:
    """(template name, version, choices) of a key."""
    pinned, _, choices = requirement.partition(_MARK)
    name, _, version = pinned.rpartition("@")
    return name, version, orjson.loads(choices) if choices else {}


def need_of(template: Template, job: Job) -> tuple[str, Need]:
    """Key and need of a job's task; ``template`` is its pinned version."""
    requirement = requirement_of(template, job.parameters)
    return requirement, Need(template, split_requirement(requirement)[2])


def work_of_job(template: Template, job: Job) -> MediaFacts | None:
    """What tells how much work a job is; ``template`` is its pinned version."""
    facts = {role: given.facts for role, given in job.inputs.items()}
    return work_facts(template, job.parameters, facts, TARGET_ROLE)


def bound_on(
    template: Template,
    capabilities: Capabilities,
    job: Job,
    staged: Mapping[str, str],
    prompt_id: str,
    folder: str,
    *,
    is_known_to_fit: bool = False,
) -> Bound | str:
    """The graph of one attempt, or what the upstream lacks for it.

    Args:
        template: of the job.
        capabilities: of the upstream.
        job: to be bound.
        staged: role -> what a node must say of the file.
        prompt_id: of the attempt.
        folder: ours on the upstream.
        is_known_to_fit: the upstream lacks nothing, by just these capabilities.
    """
    if not is_known_to_fit and (missing := missing_on(template, capabilities, job.parameters)):
        return missing[0]
    return bind(
        template,
        inputs=staged,
        parameters=job.parameters,
        output_prefix=f"{folder}/{prompt_id}/out",
        capabilities=capabilities,
        facts={role: given.facts for role, given in job.inputs.items()},
        is_known_to_fit=True,
    )
