"""That the people in the pictures agreed: how a client says so, when it has to, and what is kept of it. Pure.

Nobody here can know whether it is true. What is kept is that it was said: when, by whose key, in which way, of which
bytes, and which bytes came of them; hashes only, so that a record proves something about a picture that somebody
brings, and gives no picture away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gateway.errors import ConsentRequiredError, InvalidInputError

#: The form field, or the member at the top of a JSON body.
FIELD: Final = "consent"
#: The header, for bodies that have no such place.
HEADER: Final = "x-consent"
YES: Final = frozenset({"true", "1", "yes", "on"})
_SENTENCE: Final = (
    "Here faces are swapped with the consent of the people in the pictures only: say that you have it, "
    "by the field 'consent' (true) or by the header X-Consent: true."
)


class Attestation(StrEnum):
    """In which way it was said."""

    FIELD = "field"
    HEADER = "header"


@dataclass(frozen=True, slots=True)
class ConsentRecord:
    """What is kept of one job. It outlives the job."""

    job_id: str
    owner: str
    dialect: str
    attested: Attestation
    #: When; Unix seconds, as all times here.
    at: float
    #: By role, the hash of the input: its name in the blob store, the blake3 of its bytes.
    inputs: Mapping[str, str]
    #: None until the job has ended, as is what follows.
    ended_at: float | None = None
    #: The job's last state.
    state: str | None = None
    #: Hashes of the results.
    outputs: tuple[str, ...] | None = None


def by_field(value: object) -> Attestation | None:
    """What the field says; missing, null and empty say nothing. Raises InvalidInputError: it says no, or something else."""
    return Attestation.FIELD if _is_yes(value, FIELD, "The field 'consent'") else None


def by_header(value: str | None) -> Attestation | None:
    """What the header says. Raises InvalidInputError likewise."""
    return Attestation.HEADER if _is_yes(value, "X-Consent", "The header X-Consent") else None


def _is_yes(value: object, field: str, name: str) -> bool:
    if value is None or (isinstance(value, str) and not value.strip()):
        return False
    if value == 1 or (isinstance(value, str) and value.strip().lower() in YES):  # True is 1, too
        return True
    raise InvalidInputError(
        f"{name} says that the people in the pictures agreed: true (or 1, yes, on), or leave it away.", field=field
    )


def refuse_without(attestation: Attestation | None, *, is_required: bool) -> None:
    """Raise ConsentRequiredError where it had to be said and was not."""
    if is_required and attestation is None:
        raise ConsentRequiredError(_SENTENCE, field=FIELD)
