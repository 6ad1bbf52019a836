"""Deliveries, described: our own routes about them, and what every dialect shows of them with a job."""

from __future__ import annotations

from typing import Final

from gateway.api import deliveries
from gateway.api.openapi import samples
from gateway.api.openapi.own_jobs import limit
from gateway.api.openapi.shapes import DeliveryShown
from gateway.api.openapi.vocabulary import JobId, Model, Moment, Operation, Parameter, json_answer
from gateway.delivering import DeliveryState
from gateway.errors import ConflictError, NotFoundError

TAG: Final = "deliveries"
_ID: Final = f"dlv_{samples.JOB_ID}_0"
_DELIVERY: Final = {
    "id": _ID,
    "asset_id": "01978b6e-6b8c-7c3a-9c1e-5d2f8a4b7c92",
    "name": "holiday.mp4",
    "target": "archive",
    "place": f"s3://faces/results/{samples.JOB_ID}/holiday.mp4",
    "state": "delivered",
    "attempts": 1,
    "next_at": None,
    "last_at": "2025-06-18T15:00:32.000Z",
    "last_status": 200,
    "reason": "answered",
    "job": samples.JOB_ID,
    "owner": "local",
    "created_at": "2025-06-18T15:00:31.000Z",
}


class Delivery(DeliveryShown):
    """An output on its way, of any job."""

    job: JobId
    owner: str
    """The key that the job was started with; `local` without one."""
    created_at: Moment


class Deliveries(Model):
    """A page of deliveries, newest first."""

    deliveries: list[Delivery]
    next: str | None
    """Of the next page's `before`; null on the last."""


def operations() -> dict[str, Operation]:
    """All of them."""
    again = {**_DELIVERY, "state": "pending", "attempts": 0, "next_at": "2025-06-18T16:00:00.000Z", "place": None}
    return {
        "GET /-/deliveries": Operation(
            id="list_deliveries",
            tag=TAG,
            summary="Where finished files were put or will be, newest first",
            help="The caller's own; for the operator everybody's.",
            parameters=(
                Parameter("state", "Only deliveries in this state.", {"enum": list(DeliveryState)}),
                Parameter("before", "`next` of an earlier page."),
                limit(deliveries.MAX_LIMIT, deliveries.DEFAULT_LIMIT),
            ),
            answers=(json_answer(200, "A page.", Deliveries, {"page": {"deliveries": [_DELIVERY], "next": None}}),),
        ),
        "POST /-/deliveries/{id}/redeliver": Operation(
            id="redeliver_delivery",
            tag=TAG,
            summary="Deliver a file that was given up, or that waits, now",
            parameters=(Parameter("id", "Of the delivery.", where="path", example=_ID),),
            answers=(
                json_answer(
                    202, "It is tried now, and by the schedule from its beginning.", Delivery, {"pending": again}
                ),
            ),
            raises=(NotFoundError, ConflictError),
        ),
    }
