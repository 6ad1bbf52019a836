"""How it is said that the people in the pictures agreed, described, and our own routes about what was said."""

from __future__ import annotations

from typing import Final

from gateway.api import consents
from gateway.api.openapi import samples
from gateway.api.openapi.own_jobs import limit
from gateway.api.openapi.vocabulary import JobId, Model, Moment, Operation, Parameter, Schema, json_answer
from gateway.consent import YES, Attestation
from gateway.errors import NotFoundError

_SAYS: Final = "That the people in the pictures agreed; needed where the gateway requires it."
#: In a form.
IN_FORM: Final[Schema] = {"type": "string", "enum": sorted(YES), "description": _SAYS}
#: In JSON.
IN_JSON: Final[Schema] = {"enum": [True, *sorted(YES), 1, None], "description": _SAYS}
IN_HEADER: Final = Parameter(
    "X-Consent", f"{_SAYS} Instead of the field.", {"type": "string", "enum": sorted(YES)}, "header"
)


class Consent(Model):
    """What was said of one job."""

    job: JobId
    owner: str
    dialect: str
    attested_by: Attestation
    attested_at: Moment
    inputs: dict[str, str]
    """By role, the hash of the input."""
    state: str | None
    ended_at: Moment | None
    outputs: list[str] | None
    """Hashes of the results, once it has ended."""


class Consents(Model):
    """A page of records, the oldest first."""

    consents: list[Consent]
    next: JobId | None
    """Of the next page's `after`; null on the last."""


_RECORD: Final = {
    "job": samples.JOB_ID,
    "owner": "local",
    "dialect": "faceswap",
    "attested_by": "field",
    "attested_at": "2025-06-18T15:00:00.000Z",
    "inputs": {"target": "blake3:" + "a" * 64, "face": "blake3:" + "b" * 64},
    "state": "succeeded",
    "ended_at": "2025-06-18T15:00:31.000Z",
    "outputs": ["blake3:" + "c" * 64],
}


def operations() -> dict[str, Operation]:
    """Both of them."""
    return {
        "GET /-/consent": Operation(
            id="list_consents",
            tag="operating",
            summary="What was said of the people in the pictures, the oldest first",
            parameters=(
                Parameter("owner", "Only of jobs of this owner."),
                Parameter("since", "A day or a time.", example="2026-05-31"),
                Parameter("after", "`next` of an earlier page."),
                limit(consents.MAX_LIMIT, consents.DEFAULT_LIMIT),
            ),
            answers=(json_answer(200, "A page.", Consents, {"page": {"consents": [_RECORD], "next": None}}),),
        ),
        "GET /-/consent/{id}": Operation(
            id="get_consent",
            tag="operating",
            summary="What was said of one job, whether or not it is remembered",
            parameters=(Parameter("id", "Of the job.", where="path", example=samples.JOB_ID),),
            answers=(json_answer(200, "The record.", Consent, {"said": _RECORD}),),
            raises=(NotFoundError,),
        ),
    }
