"""The lists of jobs, upstreams and deliveries, from the bodies that the API really gives."""

from __future__ import annotations

import pytest

from gateway.cli.listing import show_deliveries, show_jobs, show_upstreams, show_users
from gateway.delivering import Chosen, to_named, to_urls
from gateway.events import EventKind
from tests.tools.asgi import ask, make

NARROW_COLUMNS = 80


async def test_a_job_shows_how_far_it_is_and_where_its_result_lies(capsys):
    app, service = make()
    running, done, failed = service.put(), service.put(), service.put()
    service.tell(running.id, EventKind.STARTED)
    service.show(running.id, 0.42)
    link = service.succeed(done.id)
    service.tell(failed.id, EventKind.FAILED, code="no_face_found", message="There is no face in the photo.")
    page = (await ask(app, "GET", "/-/jobs")).json
    capsys.readouterr()  # its log
    show_jobs(page)
    lines = capsys.readouterr().out.splitlines()
    # Ids are the first word of a line, and links the last: to be copied, and cut out.
    rows = {first.split()[0]: (first, second) for first, second in zip(lines[::2], lines[1::2], strict=True)}
    assert "42.0 %" in rows[running.id][0]
    assert "100.0 %" in rows[done.id][0]
    assert rows[done.id][1].split()[-1].endswith(f"/download/{link}")
    assert "There is no face in the photo." in rows[failed.id][1]
    assert max(len(first) for first, _ in rows.values()) < NARROW_COLUMNS


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "idle"),
        ({"job_id": "019a"}, "works"),
        ({"draining": True}, "draining"),
        ({"reachable": False, "reason": "it does not answer"}, "not reachable"),
        ({"reachable": False, "restarting": True}, "restarting"),
    ],
)
async def test_an_upstream_shows_what_it_does(changes, state, capsys):
    app, _ = make()
    page = (await ask(app, "GET", "/-/upstreams")).json
    page["upstreams"][0] |= changes
    show_upstreams(page)
    told = capsys.readouterr().out
    assert state in told
    assert page["upstreams"][0]["address"] in told.split()
    assert changes.get("job_id", "") in told
    assert changes.get("reason", "") in told


def test_users_show_who_they_are(capsys):
    user = {"id": "019a", "name": "ann", "tier": "free", "email_verified": True, "created_at": "2026-01-02T00:00:00Z"}
    show_users([user, user | {"name": "bob", "email_verified": False}])
    assert capsys.readouterr().out.splitlines() == [
        "019a  ann  free  e-mail verified  since 2026-01-02T00:00:00Z",
        "019a  bob  free  since 2026-01-02T00:00:00Z",
    ]


async def test_deliveries_show_where_they_went_and_what_came_of_it(capsys):
    app, service = make()
    to_url = to_urls(["00"], ["https://store.example.net/one.mp4"], ["store.example.net:443"])
    for wish, state, reason in (
        (to_named("archive", Chosen.KEY), "pending", "timed_out"),
        (to_url, "delivered", "answered"),
    ):
        job = service.put(extra={"deliver_to": wish}, output_name="holiday")
        service.succeed(job.id)
        service.deliver(job.id, state, reason=reason, last_status=201 if state == "delivered" else None)
    show_deliveries((await ask(app, "GET", "/-/deliveries")).json)
    told = capsys.readouterr().out
    assert "pending  last: timed out at 2025-06-18T15:00:00.000Z" in told
    assert "archive: holiday.mp4  of local, attempts: 1; next: 2025-06-18T15:00:05.000Z" in told
    assert "delivered  last: 201" in told
    assert "    https://store.example.net/one.mp4  of local, attempts: 1\n" in told
    show_deliveries({"deliveries": []})
    assert capsys.readouterr().out == "No deliveries.\n"
