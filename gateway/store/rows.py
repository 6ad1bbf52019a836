"""Rows to values and values to rows, JSON included.

JSON is written and read by orjson, which takes no NaN, no second document behind the first, and no bytes that are not
UTF-8. What a row holds was written by us; a row that cannot be read is a broken database and raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import orjson

from gateway.audit import MediaFacts
from gateway.comfy.messages import OutputFile
from gateway.events import Event, EventKind
from gateway.interfaces import Asset, Candidate, UpstreamRow
from gateway.job import Job, JobInput, JobResult, JobState, Task, TaskState

#: A row of SQLAlchemy's, or of ``queries.fetch``: its columns are attributes.
AnyRow: TypeAlias = Any
Values = dict[str, Any]


def to_json(value: object) -> str:
    """JSON text of plain values. Raises TypeError for what JSON cannot say."""
    return orjson.dumps(value).decode()


def job_from(row: AnyRow) -> Job:
    """A job, of all columns of ``jobs``."""
    return Job(
        id=row.id,
        owner=row.owner,
        submitter=row.submitter,
        dialect=row.dialect,
        task=row.task,
        template=row.template,
        template_version=row.template_version,
        state=JobState(row.state),
        priority=row.priority,
        parameters=orjson.loads(row.parameters),
        inputs={role: _input_from(data) for role, data in orjson.loads(row.inputs).items()},
        output_name=row.output_name,
        created_at=row.created_at,
        updated_at=row.updated_at,
        queue_deadline=row.queue_deadline,
        started_at=row.started_at,
        finished_at=row.finished_at,
        cancel_requested_at=row.cancel_requested_at,
        error_code=row.error_code,
        error_message=row.error_message,
        error_node_id=row.error_node_id,
        error_node_class=row.error_node_class,
        warnings=tuple(orjson.loads(row.warnings)),
        engine=row.engine,
        upstream=row.upstream,
        fraction=row.fraction,
        step=row.step,
        results=tuple(_result_from(data) for data in orjson.loads(row.results)),
        last_event=row.last_event,
        credit_cost=row.credit_cost,
        extra=orjson.loads(row.extra),
    )


def new_job_row(job: Job) -> Values:
    """All columns of ``jobs``."""
    return {
        "id": job.id,
        "owner": job.owner,
        "submitter": job.submitter,
        "dialect": job.dialect,
        "task": job.task,
        "template": job.template,
        "template_version": job.template_version,
        "priority": job.priority,
        "parameters": to_json(job.parameters),
        "inputs": to_json({role: _input(item) for role, item in job.inputs.items()}),
        "output_name": job.output_name,
        "created_at": job.created_at,
        "queue_deadline": job.queue_deadline,
        "credit_cost": job.credit_cost,
        "extra": to_json(job.extra),
        **job_changes(job),
    }


def job_changes(job: Job) -> Values:
    """The columns of ``jobs`` that change after it was made."""
    return {
        "state": job.state.value,
        "updated_at": job.updated_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "cancel_requested_at": job.cancel_requested_at,
        "error_code": job.error_code,
        "error_message": job.error_message,
        "error_node_id": job.error_node_id,
        "error_node_class": job.error_node_class,
        "warnings": to_json(job.warnings),
        "engine": job.engine,
        "upstream": job.upstream,
        "fraction": job.fraction,
        "step": job.step,
        "results": to_json([_result(result) for result in job.results]),
        "last_event": job.last_event,
    }


def task_from(row: AnyRow) -> Task:
    """A task, of all columns of ``tasks``."""
    return Task(
        id=row.id,
        job_id=row.job_id,
        position=row.position,
        state=TaskState(row.state),
        attempt=row.attempt,
        losses=row.losses,
        interruptions=row.interruptions,
        cancel_requested=row.cancel_requested,
        finishing=row.finishing,
        upstream=row.upstream,
        prompt_id=row.prompt_id,
    )


def candidate_from(row: AnyRow) -> Candidate:
    """What the scheduler sees of a queued task, of all columns of ``tasks``."""
    return Candidate(
        task_id=row.id,
        job_id=row.job_id,
        submitter=row.submitter,
        requirement=row.requirement,
        priority=row.priority,
        queued_at=row.queued_at,
        cost_seconds=row.cost_seconds,
        blobs=frozenset(orjson.loads(row.blobs)),
        size_bytes=row.size_bytes,
        attempt=row.attempt,
        losses=row.losses,
        avoid=row.avoid,
    )


def event_from(row: AnyRow) -> Event:
    """An event, of all columns of ``events``."""
    return Event(row.job_id, row.number, EventKind(row.kind), row.at, orjson.loads(row.data))


def event_row(event: Event) -> Values:
    """All columns of ``events``."""
    return {
        "job_id": event.job_id,
        "number": event.number,
        "kind": event.kind.value,
        "at": event.at,
        "data": to_json(event.data),
    }


def asset_result_from(row: AnyRow) -> JobResult:
    """A result, of the columns of ``assets`` under labels of their own."""
    return JobResult(
        asset_id=row.asset_id,
        blob=row.asset_blob,
        size_bytes=row.asset_size_bytes,
        facts=MediaFacts.from_json(orjson.loads(row.asset_facts)),
        link=row.asset_link,
    )


def asset_from(row: AnyRow) -> Asset:
    """What an owner may name, of all columns of ``assets``."""
    facts = MediaFacts.from_json(orjson.loads(row.facts))
    return Asset(
        id=row.id,
        owner=row.owner,
        blob=row.blob,
        size_bytes=row.size_bytes,
        content_type=row.content_type or facts.content_type,
        file_path=row.file_path or None,
        tags=tuple(orjson.loads(row.tags or "[]")),
        created_at=row.created_at,
        expires_at=row.expires_at,
        job_id=row.job_id,
        facts=facts,
    )


def upstream_from(row: AnyRow) -> UpstreamRow:
    """What is remembered of an upstream."""
    return UpstreamRow(row.name, row.client_id, row.url, row.removed, row.draining)


def outputs_to_json(outputs: Mapping[str, tuple[OutputFile, ...]]) -> str:
    """What an upstream named at its success; orjson writes dataclasses by their fields."""
    return to_json(outputs)


def outputs_from_json(text: str | None) -> Mapping[str, tuple[OutputFile, ...]] | None:
    """What ``outputs_to_json`` wrote."""
    if text is None:
        return None
    return {node: tuple(OutputFile(**file) for file in files) for node, files in orjson.loads(text).items()}


def _file(item: JobInput | JobResult) -> Values:
    return {
        "asset_id": item.asset_id,
        "blob": item.blob,
        "size_bytes": item.size_bytes,
        "facts": item.facts.to_json(),
    }


def _result(item: JobResult) -> Values:
    """Of templates' results no more than what those have: lists of jobs are read whole."""
    told = {"node_id": item.node_id, "name": item.name, "attempt_id": item.attempt_id, "source": item.source}
    told |= {"place": item.place}
    return {**_file(item), "link": item.link, **{name: value for name, value in told.items() if value is not None}}


def _input(item: JobInput) -> Values:
    return _file(item) if item.source is None else {**_file(item), "source": item.source}


def _input_from(data: Values) -> JobInput:
    facts = MediaFacts.from_json(data["facts"])
    return JobInput(data["asset_id"], data["blob"], data["size_bytes"], facts, data.get("source"))


def _result_from(data: Values) -> JobResult:
    facts = MediaFacts.from_json(data["facts"])
    return JobResult(
        asset_id=data["asset_id"],
        blob=data["blob"],
        size_bytes=data["size_bytes"],
        facts=facts,
        link=data["link"],
        node_id=data.get("node_id"),
        name=data.get("name"),
        attempt_id=data.get("attempt_id"),
        source=data.get("source"),
        place=data.get("place"),
    )
