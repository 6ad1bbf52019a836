"""The tables of jobs and upstreams, from the bodies that the API really gives."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from gateway.cli.listing import show_deliveries, show_jobs, show_upstreams
from gateway.delivering import Chosen, to_named, to_urls
from gateway.events import EventKind
from tests.tools.asgi import ask, make


def shown(show, page, width=200):
    out = StringIO()
    show(page, Console(file=out, width=width))
    return out.getvalue()


async def test_a_job_shows_how_far_it_is_and_where_its_result_lies():
    app, service = make()
    running, done, failed = service.put(), service.put(), service.put()
    service.tell(running.id, EventKind.STARTED)
    service.show(running.id, 0.42)
    link = service.succeed(done.id)
    service.tell(failed.id, EventKind.FAILED, code="no_face_found", message="There is no face in the photo.")
    rows = {
        line.split()[1]: line
        for line in shown(show_jobs, (await ask(app, "GET", "/-/jobs")).json).splitlines()
        if "019a" in line
    }
    assert "42.0 %" in rows[running.id]
    assert "100.0 %" in rows[done.id]
    assert f"/download/{link}" in rows[done.id]
    assert "There is no face in the photo." in rows[failed.id]


async def test_an_id_can_be_copied_from_a_narrow_terminal():
    app, service = make()
    job_id = service.put().id
    assert job_id in shown(show_jobs, (await ask(app, "GET", "/-/jobs")).json, width=60)


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
async def test_an_upstream_shows_what_it_does(changes, state):
    app, _ = make()
    page = (await ask(app, "GET", "/-/upstreams")).json
    page["upstreams"][0] |= changes
    assert state in shown(show_upstreams, page)


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
