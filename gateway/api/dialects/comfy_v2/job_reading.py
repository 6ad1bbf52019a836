"""What a client says of jobs, read: the body of a create, the query of a list; pure.

``webhook_url`` and ``inputs`` beside ``workflow`` are reserved by the contract and refused; what we add to it rides in one
object, ``gateway``, whose unknown members are refused. ``metadata`` and ``priority`` beside ``workflow`` are what
comfy-api-proxy takes there, and the official SDK sends. Other members are let pass, as that proxy does. Whether the graph
can run is for the engine; whether a URL may be called, for the guard behind ``Service``.

Source: the published contract of the Comfy API v2, and comfy-api-proxy 0.1.6 where it is silent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from gateway.api.members import Members
from gateway.api.shown import is_job_id
from gateway.consent import FIELD as CONSENT
from gateway.consent import Attestation, by_field
from gateway.delivering import FIELD as DELIVERY
from gateway.delivering import Destination, read_destination
from gateway.errors import InvalidInputError
from gateway.job import JobState
from gateway.strictjson import JsonValue

#: The one secret that the contract's closed ``extra_data`` has.
SECRET: Final = "api_key_comfy_org"  # noqa: S105 - its name, as the contract spells it
MAX_SECRET_CHARACTERS: Final = 4096
MAX_METADATA_BYTES: Final = 1024
MAX_LABELS: Final = 16
MAX_LABELS_BYTES: Final = 4096
PRIORITIES: Final = range(-1_000_000, 1_000_001)
DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 100
RESERVED: Final = ("webhook_url", "inputs")
_OURS: Final = frozenset({"priority", "metadata", "webhook_url", DELIVERY})
_LABEL: Final = re.compile(r"metadata\[(.{1,256})\]", re.DOTALL)

#: A text, or labels by name.
Metadata: TypeAlias = str | Mapping[str, str | int | float | bool | None]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What goes with any job, whatever it runs."""

    priority: int = 0
    metadata: Metadata | None = None
    webhook_url: str | None = None
    deliver_to: Destination | None = None
    #: What is said of the people in the pictures.
    consent: Attestation | None = None


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A create, checked as far as its own words go."""

    #: As sent; nobody has looked into it.
    workflow: Mapping[str, JsonValue]
    #: Never stored, logged or shown.
    secrets: Mapping[str, str]
    wishes: Wishes


def read_job(body: Mapping[str, JsonValue]) -> JobRequest:
    """The body of ``POST /api/v2/jobs``.

    Raises:
        InvalidInputError: naming the member.
    """
    wishes = read_wishes(body)
    for member in RESERVED:
        if body.get(member) is not None:
            raise InvalidInputError(f"{member} is reserved and not accepted.", field=member)
    workflow = Members(body).object("workflow")
    if workflow is None:
        raise InvalidInputError("workflow is required: a graph in API format.", field="workflow")
    return JobRequest(workflow, _secrets(body), wishes)


def read_template_job(body: Mapping[str, JsonValue]) -> tuple[Mapping[str, JsonValue], Wishes]:
    """The inputs and wishes of ``POST /api/v2/templates/{name}/jobs``. Raises InvalidInputError."""
    wishes = read_wishes(body)
    for member in ("webhook_url", "workflow", "extra_data"):
        if body.get(member) is not None:
            raise InvalidInputError(f"{member} is not accepted here.", field=member)
    inputs = Members(body).object("inputs")
    if inputs is None:
        raise InvalidInputError("inputs is required: an object.", field="inputs")
    return inputs, wishes


def _secrets(body: Mapping[str, JsonValue]) -> dict[str, str]:
    extra = Members(body).object("extra_data") or {}
    for member in extra:
        if member != SECRET:
            raise InvalidInputError(f"extra_data takes {SECRET} and nothing else.", field="extra_data")
    if SECRET not in extra:
        return {}
    value = extra[SECRET]
    if not isinstance(value, str) or len(value) > MAX_SECRET_CHARACTERS:
        rule = f"must be a string of at most {MAX_SECRET_CHARACTERS} characters"
        raise InvalidInputError(f"extra_data.{SECRET} {rule}.", field=f"extra_data.{SECRET}")
    return {SECRET: value} if value else {}


# -------------------------------------------------------------------------------------------------------------- wishes


def read_wishes(body: Mapping[str, JsonValue]) -> Wishes:
    """``gateway``, and what comfy-api-proxy takes beside it. Raises InvalidInputError."""
    beside = Members(body)
    given = beside.object("gateway") or {}
    if strangers := given.keys() - _OURS:
        raise InvalidInputError(f"There is no gateway.{min(strangers)[:64]}.", field="gateway")
    ours = Members(given, "gateway.")
    for member in ("priority", "metadata"):
        if beside.has(member) and ours.has(member):
            raise InvalidInputError(f"{member} is said twice: here and in gateway.", field=member)
    priority = _priority(ours if ours.has("priority") else beside)
    metadata = _metadata(ours if ours.has("metadata") else beside)
    destination = read_destination(ours.value(DELIVERY), ours.name(DELIVERY))
    return Wishes(priority, metadata, ours.text("webhook_url"), destination, by_field(body.get(CONSENT)))


def _priority(members: Members) -> int:
    value = members.integer("priority", least=PRIORITIES.start, most=PRIORITIES.stop - 1)
    return 0 if value is None else value


def _metadata(members: Members) -> Metadata | None:
    value = members.value("metadata")
    if value is None:
        return None
    if isinstance(value, str):
        if len(value.encode()) > MAX_METADATA_BYTES:
            raise members.refused("metadata", f"must not be longer than {MAX_METADATA_BYTES} bytes")
        return value
    if not isinstance(value, dict):
        raise members.refused("metadata", "must be a string, or an object of labels")
    return _labels(value, members)


def _labels(value: Mapping[str, JsonValue], members: Members) -> Metadata:
    labels = {name: label for name, label in value.items() if not isinstance(label, dict | list)}
    if len(labels) != len(value):
        raise members.refused("metadata", "must be flat: strings, numbers, true, false and null")
    if len(labels) > MAX_LABELS:
        raise members.refused("metadata", f"must not have more than {MAX_LABELS} members")
    if any(isinstance(label, int) and abs(label) >= 2**63 for label in labels.values()):
        raise members.refused("metadata", "must not hold whole numbers of more than 64 bits")
    if len(json.dumps(labels, ensure_ascii=False, separators=(",", ":")).encode()) > MAX_LABELS_BYTES:
        raise members.refused("metadata", f"must not be larger than {MAX_LABELS_BYTES} bytes")
    return labels


# ---------------------------------------------------------------------------------------------------------------- lists


@dataclass(frozen=True, slots=True)
class Listing:
    """Which jobs are asked for."""

    #: None: all.
    words: frozenset[str] | None
    #: Labels that they have, as texts.
    labels: Mapping[str, str]
    limit: int
    #: Id of the job after which the page begins.
    cursor: str | None


def read_listing(query: Sequence[tuple[str, str]], words: Mapping[str, frozenset[JobState]]) -> Listing:
    """The query of ``GET /api/v2/jobs``; what it does not know is let pass.

    Args:
        query: in the order it was sent.
        words: those that a status can be.

    Raises:
        InvalidInputError: naming the parameter.
    """
    given: dict[str, str] = {}
    labels: dict[str, str] = {}
    for name, value in query:
        if name in given and name in {"limit", "cursor", "status"}:
            raise InvalidInputError(f"{name} is said twice.", field=name)
        given[name] = value
        if label := _LABEL.fullmatch(name):
            labels[label[1]] = value
    if len(labels) > MAX_LABELS:
        raise InvalidInputError(f"metadata takes {MAX_LABELS} labels at most.", field="metadata")
    cursor = given.get("cursor") or None
    if cursor is not None and not is_job_id(cursor):
        raise bad_cursor()
    return Listing(_words(given.get("status", ""), words), labels, _limit(given.get("limit")), cursor)


def _words(text: str, words: Mapping[str, frozenset[JobState]]) -> frozenset[str] | None:
    wanted = frozenset(word.strip() for word in text.split(",") if word.strip())
    if not wanted <= words.keys():
        raise InvalidInputError(f"status takes {', '.join(words)}, with commas between them.", field="status")
    return wanted or None


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(MAX_LIMIT))
    if not is_number or not 1 <= int(text) <= MAX_LIMIT:
        raise InvalidInputError(f"limit is a whole number from 1 to {MAX_LIMIT}.", field="limit")
    return int(text)


def bad_cursor() -> InvalidInputError:
    """The one answer to a cursor that is no job of this caller."""
    return InvalidInputError("cursor is next_cursor of an earlier page.", field="cursor")
