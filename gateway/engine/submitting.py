"""From what a client asks for to a stored job: inputs probed, template chosen, parameters checked.

The template is chosen once, when the job is accepted, and the job is pinned to it: of those that do the task, take this
kind of target and know the parameters given, the first by name that an upstream which works now can run. A template
that stands in for others comes last, and is the one where nothing is known yet: it asks for least.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from gateway.audit import MediaKind
from gateway.binding import check_parameters
from gateway.consent import Attestation, refuse_without
from gateway.engine.catalog import Catalog
from gateway.engine.deliveries import Deliveries
from gateway.engine.needs import TARGET_ROLE, Need, requirement_of
from gateway.engine.pool import Pool
from gateway.engine.recorder import Recorder
from gateway.engine.screening import Screening, Warnings
from gateway.engine.task_types import Lacks, what_is_missing
from gateway.engine.timing import LearnedTimings
from gateway.errors import GatewayError, InvalidInputError, TaskUnavailableError, TooLargeError
from gateway.interfaces import Blob, Blobs, Clock, Media, NewJob, Promise
from gateway.job import Job, JobInput
from gateway.naming import safe_output_name
from gateway.pricing import least_price, price_of
from gateway.quantities import check_quantities, work_facts
from gateway.repeating import wanted_roles
from gateway.settings import Settings
from gateway.template import Template

NewId: TypeAlias = Callable[[], str]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class SubmittedFile:
    """An input that lies in the blob store, not yet probed."""

    blob: Blob
    #: The request field it came in, for error messages.
    field: str
    #: Id of the asset whose bytes these are; None where they came with the request.
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """What a client asks for, in our words."""

    owner: str
    submitter: str
    dialect: str
    #: By role: "target", "face"; none where the task makes something out of words.
    inputs: Mapping[str, SubmittedFile]
    #: By role, the kinds it may be.
    accepts: Mapping[str, frozenset[MediaKind]]
    task: str = "face_swap"
    #: Name of the one template it may be; None: whichever of the task's fits best.
    template: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    #: As the client wrote it.
    output_name: str | None = None
    priority: int = 0
    extra: Mapping[str, object] = field(default_factory=dict)
    #: Refuse it when upstreams have said what they can do and none of them, down or not, can run it.
    must_be_runnable: bool = False
    #: That the people in the pictures agreed, where it was said.
    consent: Attestation | None = None
    #: The answer to a request that is done once (``claims.py``), kept with the job.
    promise: Promise | None = None


def draw_number(least: int, most: int) -> int:
    """A random whole number from ``least`` to ``most``, both included."""
    return least + secrets.randbelow(most - least + 1)


class Intake:
    """Makes jobs of submissions. It takes nothing back: whoever calls it does, when it raises."""

    def __init__(
        self,
        *,
        settings: Settings,
        blobs: Blobs,
        media: Media,
        screening: Screening,
        catalog: Catalog,
        pool: Pool,
        recorder: Recorder,
        deliveries: Deliveries,
        timings: LearnedTimings,
        clock: Clock,
        new_id: NewId,
    ) -> None:
        self._settings = settings
        self._blobs = blobs
        self._media = media
        self._screening = screening
        self._catalog = catalog
        self._pool = pool
        self._recorder = recorder
        self._deliveries = deliveries
        self._timings = timings
        self._clock = clock
        self._new_id = new_id

    async def submit(self, submission: Submission) -> Job:
        """The job, durable. Raises GatewayError: the request is at fault, or the queue is full."""
        inputs = await self._probe(submission)
        facts = {role: given.facts for role, given in inputs.items()}
        template = self._choose(submission, facts[TARGET_ROLE].kind if TARGET_ROLE in facts else None)
        refuse_without(submission.consent, is_required=self._settings.require_consent and template.swaps_faces)
        known = self._pool.capabilities()
        parameters = check_parameters(template, submission.parameters, offered=known, draw=draw_number)
        _refuse_other_files(inputs.keys(), wanted_roles(template, parameters).keys())
        check_quantities(template, parameters, facts)
        refuse_what_fits_nowhere(self._pool, inputs)
        target = inputs.get(TARGET_ROLE)
        warnings = await self._look(submission.inputs, inputs)
        now = self._clock.now()
        work = work_facts(template, parameters, facts, TARGET_ROLE)
        new = NewJob(
            id=self._new_id(),
            task_id=self._new_id(),
            owner=submission.owner,
            submitter=submission.submitter,
            dialect=submission.dialect,
            task=submission.task,
            template=template.name,
            template_version=template.version,
            priority=submission.priority,
            parameters=parameters,
            inputs=inputs,
            output_name=safe_output_name(submission.output_name, now, submission.task),
            queue_deadline=now + self._settings.queue_ttl,
            requirement=requirement_of(template, parameters),
            cost_seconds=self._timings.cost_seconds(template, work, parameters),
            price=price_of(template.pricing, facts.get(TARGET_ROLE), target.size_bytes if target else 0),
            promise=submission.promise,
            warnings=warnings,
            extra=await self._deliveries.with_default(submission.extra, submission.owner, template.deliver_to),
            consent=submission.consent,
        )
        recorded = await self._recorder.create(new, max_queue=self._settings.max_queue)
        return recorded.job

    def requires_consent(self, task: str) -> bool:
        """Whether it has to be said: a template that does this task swaps faces."""
        if not self._settings.require_consent:
            return False
        return any(template.swaps_faces for template in self._catalog.templates() if template.task == task)

    def least_price(self, task: str, target: MediaKind) -> int:
        """Credits that a job of this task costs at least. Raises TemplateError, InvalidInputError."""
        return min(least_price(template.pricing) for template in self._catalog.for_task(task, target))

    # ------------------------------------------------------------------------------------------------ the template

    def _choose(self, submission: Submission, target: MediaKind | None) -> Template:
        able = self._named(submission, self._catalog.for_task(submission.task, target))
        given = submission.parameters.keys()
        if strangers := given - {name for template in able for name in template.settable}:
            stranger = min(strangers)
            where = (
                f" for a target of kind {target.value}" if target and self._is_known(submission.task, stranger) else ""
            )
            raise InvalidInputError(f"There is no parameter {stranger[:64]!r}{where}.", field=stranger[:64])
        # Where none knows all of them, the first one says which it does not know.
        candidates = [template for template in able if given <= template.settable] or able[:1]
        if submission.must_be_runnable:
            narrowing = [name for name in sorted(given) if not all(name in template.settable for template in able)]
            self._refuse_what_none_can_run(submission.task, candidates, narrowing)
        fitting = (template for template in candidates if self._pool.fits_now(template.requirement, Need(template, {})))
        usual = candidates[-1] if candidates[-1].stand_in else candidates[0]
        return next(fitting, usual)

    def _named(self, submission: Submission, able: list[Template]) -> list[Template]:
        """Only the template that was asked for by name, where one was."""
        if submission.template is None:
            return able
        named = [template for template in able if template.name == submission.template]
        if not named:
            raise InvalidInputError(f"{submission.template} takes no such target.", field=TARGET_ROLE)
        return named

    def _is_known(self, task: str, parameter: str) -> bool:
        return any(parameter in template.settable for template in self._catalog.templates() if template.task == task)

    def _refuse_what_none_can_run(self, task: str, candidates: Sequence[Template], narrowing: Sequence[str]) -> None:
        """Args: narrowing: parameters of the job for whose sake not all templates of the task are candidates."""
        said = any(self.lacks_of(template) for template in candidates)
        if said and (missing := what_is_missing(candidates, self.lacks_of)):
            raise TaskUnavailableError.of(f"{task} with {', '.join(narrowing)}" if narrowing else task, missing)

    def lacks_of(self, template: Template) -> Lacks:
        """Of each upstream that has said what it can do, what it lacks for a template."""
        return self._pool.lacking(template.requirement, Need(template, {}))

    # -------------------------------------------------------------------------------------------------- the inputs

    async def _probe(self, submission: Submission) -> dict[str, JobInput]:
        async def one(role: str, given: SubmittedFile) -> tuple[str, JobInput]:
            async with self._blobs.held(given.blob.hash) as path:
                facts = await self._media.probe(
                    path, field=given.field, accept=submission.accepts[role], size_bytes=given.blob.size_bytes
                )
            return role, JobInput(self._new_id(), given.blob.hash, given.blob.size_bytes, facts, given.source)

        async with asyncio.TaskGroup() as group:
            probes = [
                group.create_task(_caught(one(role, given)), name=f"probe {role}")
                for role, given in submission.inputs.items()
            ]
        outcomes = [probe.result() for probe in probes]
        for outcome in outcomes:
            if isinstance(outcome, GatewayError):
                raise outcome
        return dict(outcome for outcome in outcomes if not isinstance(outcome, GatewayError))

    async def _look(self, given: Mapping[str, SubmittedFile], probed: Mapping[str, JobInput]) -> Warnings:
        """The safety check's warnings; last of all, since it takes longest. Raises UnsafeContentError, ApiDisabledError."""
        return await self._screening.look([(given[role].field, found) for role, found in probed.items()])


def refuse_what_fits_nowhere(pool: Pool, inputs: Mapping[str, JobInput]) -> None:
    """An input that no upstream takes would wait for ever; one that has not said what it takes may take it.

    Raises:
        TooLargeError: the sentence names the limit.
    """
    limits = pool.upload_limits()
    largest = max((given.size_bytes for given in inputs.values()), default=0)
    if limits and all(limit is not None and largest > limit for limit in limits):
        most = max(limit for limit in limits if limit is not None)
        raise TooLargeError(f"no worker takes an input of {largest} bytes; the largest any takes is {most} bytes")


def _refuse_other_files(given: Collection[str], wanted: Collection[str]) -> None:
    if missing := set(wanted) - set(given):
        raise InvalidInputError(f"There is no {min(missing)}.", field=min(missing))
    if strangers := set(given) - set(wanted):
        raise InvalidInputError(f"There is no use for {min(strangers)}.", field=min(strangers))


async def _caught(work: Awaitable[_T]) -> _T | GatewayError:
    """The result or our own error as a value, so that one bad input does not cut short the other's probe."""
    try:
        return await work
    except GatewayError as error:
        return error
