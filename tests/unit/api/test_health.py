"""How an upstream is told in JSON."""

from __future__ import annotations

from dataclasses import replace

from gateway.api.health import upstream_body
from gateway.engine.members import MemberView
from gateway.interfaces import UpstreamStatus

STATUS = UpstreamStatus("gpu-1", True, "", "0.3.64", "comfyui", 1, "http://gpu-1:8188", stale_prompts=2)


def test_prompts_in_its_queue_that_nobody_of_ours_waits_for_are_counted_apart():
    body = upstream_body(MemberView(STATUS, draining=False, job_id=None, restraint="removing 2 prompts"))
    assert (body["foreign_prompts"], body["stale_prompts"], body["reason"]) == (1, 2, "removing 2 prompts")


def test_that_it_is_not_reachable_is_the_first_thing_to_say():
    status = replace(STATUS, reachable=False, reason="it does not answer")
    body = upstream_body(MemberView(status, draining=False, job_id=None, restraint="removing 2 prompts"))
    assert body["reason"] == "it does not answer"
