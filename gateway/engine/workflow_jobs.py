"""From a client's own graph to a stored job: read, its files found, judged against the pool, priced, kept.

The graph is judged now, against what each upstream says of itself, so that a client is told at once what is wrong; and
again before each attempt, because what an upstream can do changes. Files that it names are the owner's uploads and
results; each becomes an input of the job, which keeps its bytes for as long as the job waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from gateway.audit import PICTURES, MediaFacts
from gateway.consent import Attestation, refuse_without
from gateway.engine.credentials import FIELD as SECRETS
from gateway.engine.deliveries import Deliveries
from gateway.engine.outputs import MAX_FILES as MAX_MADE
from gateway.engine.pool import Pool
from gateway.engine.recorder import Recorder
from gateway.engine.relearning import relearn
from gateway.engine.screening import Screening, Warnings
from gateway.engine.submitting import NewId, refuse_what_fits_nowhere
from gateway.engine.timing import LearnedTimings
from gateway.errors import BusyError, GatewayError, JobError, MissingAssetError, WorkflowError
from gateway.interfaces import Asset, Blob, Blobs, Capabilities, Clock, Media, NewJob, Promise, Store
from gateway.job import Job, JobInput
from gateway.naming import safe_output_name
from gateway.placed import placed_at
from gateway.pricing import Pricing, price_of
from gateway.settings import Settings
from gateway.template import WORKFLOW
from gateway.workflow import (
    Draft,
    FileReference,
    NodeRules,
    Workflow,
    file_references,
    judge,
    read_workflow,
    requirement_of_workflow,
    resolved,
    template_of,
)
from gateway.workflow_rules import swaps_faces

#: Upstreams say what they can do within seconds of a start.
ASK_AGAIN_SECONDS: Final = 5
#: Files that one graph may name.
MAX_FILES: Final = 256
#: What a refusal has in its details where it is the upstreams that lack something.
LACKING: Final = "upstreams"
#: Longer than any id or name of an asset: nobody's.
MAX_NAME_CHARACTERS: Final = 1024


@dataclass(frozen=True, slots=True)
class WorkflowSubmission:
    """A client's own graph, and what it wants done with it."""

    owner: str
    submitter: str
    dialect: str
    #: Any JSON value, as sent.
    workflow: object = field(repr=False)
    priority: int = 0
    extra: Mapping[str, object] = field(default_factory=dict)
    #: The answer to a request that is done once (``claims.py``), kept with the job.
    promise: Promise | None = None
    #: ComfyUI's name -> a secret for nodes that call paid services. Kept in memory, and sent with each attempt.
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: That the people in the pictures agreed, where it was said.
    consent: Attestation | None = None
    #: Of the key that it was sent with, beside the gateway's.
    node_rules: NodeRules | None = None


class WorkflowIntake:
    """Makes jobs of clients' own graphs."""

    def __init__(
        self,
        *,
        settings: Settings,
        store: Store,
        blobs: Blobs,
        media: Media,
        screening: Screening,
        pool: Pool,
        recorder: Recorder,
        deliveries: Deliveries,
        timings: LearnedTimings,
        clock: Clock,
        new_id: NewId,
    ) -> None:
        self._settings = settings
        self._rules = NodeRules.of(settings.nodes_deny, settings.nodes_allow)
        self._pricing = Pricing(settings.workflow_price)
        self._store = store
        self._blobs = blobs
        self._media = media
        self._screening = screening
        self._pool = pool
        self._recorder = recorder
        self._deliveries = deliveries
        self._timings = timings
        self._clock = clock
        self._new_id = new_id

    @property
    def price(self) -> int:
        """Credits that such a job costs."""
        return price_of(self._pricing, None, 0)

    async def submit(self, submission: WorkflowSubmission) -> Job:
        """The job, durable.

        Raises:
            WorkflowError: the graph is at fault; ``details`` say where. WorkflowFormatError, MissingAssetError alike.
            ConsentRequiredError: it swaps a face, and nothing was said of the people in the pictures.
            UnsafeContentError: the safety check flagged a file, whose place in the graph is its field.
            UnsupportedMediaError: a file is nothing that the safety check can look at.
            GatewayError: the queue is full, or nobody knows yet what can be run.
        """
        draft = await asyncio.to_thread(read_workflow, submission.workflow)
        self._require_consent(submission, draft)
        known = await self._judged(draft, self._rules.narrowed(submission.node_rules))
        references = await asyncio.to_thread(file_references, draft, list(known.values()))
        found = await self._find(submission.owner, references)
        inputs = await self._inputs(references, found)
        refuse_what_fits_nowhere(self._pool, inputs)
        roles = {reference.at: role for role, reference in zip(inputs, references, strict=True)}
        workflow = await asyncio.to_thread(resolved, draft, roles, list(known.values()))
        _refuse_too_many_writers(workflow)
        # Last of all, since it takes longest.
        named = zip((_named(reference) for reference in references), inputs.values(), strict=True)
        warnings = await self._screening.look(list(named))
        return await self._create(submission, workflow, inputs, warnings)

    def _require_consent(self, submission: WorkflowSubmission, draft: Draft) -> None:
        is_asked = self._settings.require_consent and submission.consent is None
        classes = {node.class_type for node in draft.nodes.values()} if is_asked else ()
        refuse_without(submission.consent, is_required=swaps_faces(classes, self._settings.nodes_swap))

    async def _judged(self, draft: Draft, rules: NodeRules) -> Mapping[str, Capabilities]:
        """What the upstreams can do, one of which can run it. Where none could, they are asked whether that still holds.

        Raises WorkflowError, BusyError.
        """
        known = self._pool.capabilities_by_name()
        if not known:
            raise BusyError("No worker has said yet what it can run.", retry_after_seconds=ASK_AGAIN_SECONDS)
        try:
            await asyncio.to_thread(judge, draft, known, rules)
        except WorkflowError as error:
            # Without them it is the graph itself that is at fault, and no model that somebody has added helps.
            if LACKING not in error.details:
                raise
            await relearn(self._pool.working())
            new = self._pool.capabilities_by_name()
            if all(known.get(name) is capabilities for name, capabilities in new.items()):
                raise
            known = new
            await asyncio.to_thread(judge, draft, known, rules)
        return known

    async def _create(
        self,
        submission: WorkflowSubmission,
        workflow: Workflow,
        inputs: Mapping[str, JobInput],
        warnings: Warnings,
    ) -> Job:
        now = self._clock.now()
        template = await asyncio.to_thread(template_of, workflow, self._pricing)
        text = await asyncio.to_thread(workflow.to_json)
        extra = await self._deliveries.with_default(submission.extra, submission.owner, None)
        secrets: Mapping[str, object] = {SECRETS: sorted(submission.secrets)} if submission.secrets else {}
        new = NewJob(
            id=self._new_id(),
            task_id=self._new_id(),
            owner=submission.owner,
            submitter=submission.submitter,
            dialect=submission.dialect,
            task=WORKFLOW,
            template=WORKFLOW,
            template_version=workflow.version,
            priority=submission.priority,
            parameters={},
            inputs=inputs,
            output_name=safe_output_name(None, now, WORKFLOW),
            queue_deadline=now + self._settings.queue_ttl,
            requirement=requirement_of_workflow(workflow),
            cost_seconds=self._timings.cost_seconds(template, None, {}),
            price=self.price,
            promise=submission.promise,
            warnings=warnings,
            workflow=text,
            extra={**extra, **secrets},
            consent=submission.consent,
        )
        # Before it is stored: it may be given to an upstream at once.
        self._recorder.credentials.keep(new.id, submission.secrets)
        try:
            recorded = await self._recorder.create(new, max_queue=self._settings.max_queue)
        except GatewayError:
            self._recorder.credentials.forget(new.id)
            raise
        return recorded.job

    # ----------------------------------------------------------------------------------------------------------- files

    async def _find(self, owner: str, references: Sequence[FileReference]) -> list[Asset]:
        """The owner's asset of each reference. Raises MissingAssetError, which names all that are not there."""
        if len(references) > MAX_FILES:
            raise WorkflowError(f"The workflow names {len(references)} files; at most {MAX_FILES} are taken.")
        known: dict[tuple[str | None, str | None], Asset | None] = {}
        for reference in references:
            name = (reference.asset_id, reference.name)
            if name not in known:
                known[name] = await self._asset(owner, *name)
        found = [known[reference.asset_id, reference.name] for reference in references]
        missing = [reference for reference, asset in zip(references, found, strict=True) if asset is None]
        if missing:
            raise _missing(missing)
        return [asset for asset in found if asset is not None]

    async def _asset(self, owner: str, asset_id: str | None, name: str | None) -> Asset | None:
        """By id, else the newest upload of that name; None where it is somebody else's, too."""
        now = self._clock.now()
        if max(len(asset_id or ""), len(name or "")) > MAX_NAME_CHARACTERS:
            return None
        if asset_id is not None:
            asset = await self._store.assets.get(asset_id, owner, now=now)
        else:
            asset = await self._store.assets.named(owner, name or "", now=now)
        if asset is None:
            return None
        # Touched, its bytes outlast an expiry that comes while the job is being made.
        await self._store.touch_blob(Blob(asset.blob, asset.size_bytes), now=now)
        is_here = placed_at(asset.blob) is None and await self._blobs.exists(asset.blob)
        return asset if is_here else None

    async def _inputs(self, references: Sequence[FileReference], assets: Sequence[Asset]) -> dict[str, JobInput]:
        """By role, in the order of the references."""
        facts: dict[str, MediaFacts] = {}
        inputs = {}
        for number, (reference, asset) in enumerate(zip(references, assets, strict=True), 1):
            if asset.blob not in facts:
                facts[asset.blob] = await self._measured(reference, asset)
            inputs[f"file-{number}"] = JobInput(
                self._new_id(), asset.blob, asset.size_bytes, facts[asset.blob], source=asset.id
            )
        return inputs

    async def _measured(self, reference: FileReference, asset: Asset) -> MediaFacts:
        """What a picture or video is; what is damaged is refused here, instead of by a node an hour later."""
        if asset.facts.kind not in PICTURES or asset.facts.width:
            return asset.facts
        try:
            async with self._blobs.held(asset.blob) as path:
                measured = await self._media.measure(path)
        except JobError:
            message = "The file cannot be decoded: it is damaged or cut short."
            raise _refused(reference, "unreadable_file", message) from None
        return asset.facts if measured is None else replace(measured, suffix=asset.facts.suffix or measured.suffix)


def _refuse_too_many_writers(workflow: Workflow) -> None:
    """Each such node makes a file at least: the job would run to its end, and then fail for having too many."""
    if len(workflow.prefixes) > MAX_MADE:
        raise WorkflowError(
            f"The workflow has {len(workflow.prefixes)} nodes that write files; a job may make {MAX_MADE} files at most."
        )


def _named(reference: FileReference) -> str:
    """Which input of which node it is, for sentences."""
    return f"{reference.node_id[:64]}.{reference.input_name[:64]}"


def _missing(references: Sequence[FileReference]) -> MissingAssetError:
    ids = sorted({reference.asset_id for reference in references if reference.asset_id is not None})
    errors: dict[str, list[Mapping[str, str]]] = {}
    for reference in references:
        message = "There is no such file of yours."
        entry = {"field": reference.input_name, "reason": "missing_asset", "message": message}
        errors.setdefault(reference.node_id, []).append(entry)
    return MissingAssetError(
        "The workflow names files that are not there.", details={"missing_ids": ids, "node_errors": errors}
    )


def _refused(reference: FileReference, reason: str, message: str) -> WorkflowError:
    entry = {"field": reference.input_name, "reason": reason, "message": message}
    return WorkflowError(
        f"Node {reference.node_id[:64]}: {message}", details={"node_errors": {reference.node_id: [entry]}}
    )
