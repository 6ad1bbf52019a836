import base64
import hashlib
import itertools
import os
import threading
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.objects.spans import MOST_PARTS, FileSpan, Span, StoppedError, measured


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    return path


def test_a_span_is_read_as_a_file_of_its_own(file):
    with closing(FileSpan(file, 2, 5)) as span:
        assert (span.read(2), span.tell(), span.read(), span.read(1)) == (b"23", 2, b"456", b"")
        assert span.seek(-1, os.SEEK_END) == 4
        assert span.read(10) == b"6"
        assert span.seek(1) == 1
        assert span.seek(1, os.SEEK_CUR) == 2
        assert span.read(1) == b"4"


def test_a_digest_is_that_of_the_span_which_is_then_at_its_beginning(file):
    with closing(FileSpan(file, 2, 5)) as span:
        span.read(3)
        assert span.md5() == base64.b64encode(hashlib.md5(b"23456", usedforsecurity=False).digest()).decode()
        assert span.read() == b"23456"


def test_a_span_that_is_not_wanted_any_more_stops_whoever_sends_it(file):
    stopped = threading.Event()
    with closing(Span(file, 0, 10).opened(stopped)) as span:
        span.read(1)
        stopped.set()
        with pytest.raises(StoppedError):
            span.read(1)


def test_closing_closes_the_file_once(file):
    before = len(list(Path("/proc/self/fd").iterdir()))
    span = FileSpan(file, 0, 10)
    span.close()
    span.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@given(st.integers(1, 10**12), st.integers(5 * 1024**2, 64 * 1024**2))
def test_parts_are_the_whole_without_gaps_and_never_too_many(size_bytes, part_bytes):
    parts = Span(Path("file"), 0, size_bytes).parts(part_bytes)
    assert parts[0].start == 0
    assert all(one.start + one.size_bytes == two.start for one, two in itertools.pairwise(parts))
    assert parts[-1].start + parts[-1].size_bytes == size_bytes
    assert len(parts) <= MOST_PARTS
    assert all(part.size_bytes >= part_bytes for part in parts[:-1])


def test_a_file_is_measured(file):
    assert measured(file) == (10, hashlib.sha256(b"0123456789").hexdigest())
