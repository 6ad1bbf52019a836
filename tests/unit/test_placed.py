"""Names of files that lie elsewhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.delivering import MAX_FILE_NAME, NAME, key_in_target
from gateway.placed import Placed, placed_at, shown_hash

SHA256 = "0123456789abcdef" * 4
FILE_NAMES = st.from_regex(r"[A-Za-z0-9._-]{1,60}\.mp4", fullmatch=True)


@given(st.from_regex(NAME, fullmatch=True), st.uuids(), FILE_NAMES)
def test_a_name_says_where_it_lies_and_what_it_is(target, job_id, file_name):
    placed = Placed(target, key_in_target(str(job_id), file_name), SHA256)
    assert placed_at(placed.name) == placed
    assert placed.file_name == file_name
    assert len(file_name) <= MAX_FILE_NAME


def test_whoever_has_a_link_is_not_told_where_a_file_lies():
    assert shown_hash(Placed("archive", "job/one.mp4", SHA256).name) == SHA256
    assert shown_hash("ab" * 32) == "ab" * 32


@pytest.mark.parametrize(
    "name",
    [
        "ab" * 32,
        "placed:",
        f"placed:{SHA256}:archive:",
        f"placed:{SHA256.upper()}:archive:a/b.mp4",
        f"placed:{SHA256}:Archive:a/b.mp4",
        f"placed:{SHA256}:archive:a b",
        f"placed:{SHA256}:archive:a\n",
    ],
)
def test_everything_else_is_a_blob_of_ours_or_none(name):
    assert placed_at(name) is None
