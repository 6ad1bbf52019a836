"""Values survive their way through text."""

from __future__ import annotations

from fractions import Fraction

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit import MediaFacts, MediaKind
from gateway.comfy.messages import OutputFile
from gateway.job import Job, JobInput, JobResult, JobState
from gateway.store.rows import job_from, new_job_row, outputs_from_json, outputs_to_json, to_json

FACTS = MediaFacts(
    MediaKind.VIDEO, "video/mp4", ".mp4", 8, 6, 3, Fraction(30000, 1001), 0.1, has_audio=False, video_codec="h264"
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
outputs = st.dictionaries(
    texts, st.lists(st.builds(OutputFile, texts, texts, texts, texts, st.none() | texts), max_size=2).map(tuple)
)


class Row:
    def __init__(self, values):
        self.__dict__.update(values)


@given(st.none() | outputs)
def test_outputs_are_read_as_they_were_written(value):
    text = None if value is None else outputs_to_json(value)
    assert outputs_from_json(text) == value


@given(st.dictionaries(texts, st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts | st.lists(texts)))
def test_job_is_read_as_it_was_written(parameters):
    job = Job(
        id="j", owner="o", submitter="s", dialect="d", task="t", template="t", template_version="1",
        state=JobState.SUCCEEDED, priority=3, parameters=parameters, output_name="ø",
        inputs={"face": JobInput("a", "b", 1, FACTS)}, results=(JobResult("a", "b", 1, FACTS, "l"),),
        created_at=1.5, updated_at=2.5, queue_deadline=9.0, started_at=2.0, finished_at=2.5, warnings=("w", "é"),
        engine="preview", upstream="u", fraction=1.0, step="…", last_event=4, extra=parameters,
    )  # fmt: skip
    assert job_from(Row(new_job_row(job))) == job


@pytest.mark.parametrize("text", ["NaN", "{} {}", "[1,]", ""])
def test_broken_text_is_no_value(text):
    with pytest.raises(orjson.JSONDecodeError):
        outputs_from_json(text)


def test_what_json_cannot_say_is_refused():
    for value in ({"n": 2**64}, {"n": object()}, {"n": "\ud800"}):
        with pytest.raises(TypeError):
            to_json(value)
