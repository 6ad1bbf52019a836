"""Answers that were once not as described; ``ask`` holds each against the document."""

from tests.tools.asgi import ask, make


async def test_job_with_nested_metadata_of_another_dialect_is_described_where_all_dialects_are_listed():
    app, service = make()
    service.put(dialect="swaps_v1", extra={"type": "video", "metadata": {"order": {"lines": [1, 2]}}})
    answer = await ask(app, "GET", "/api/v2/jobs")
    assert answer.json["jobs"][0]["gateway"]["metadata"] == {"order": {"lines": [1, 2]}}
