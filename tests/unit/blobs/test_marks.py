"""Two gateways at one folder: ``old`` was stopped at some point and goes on after ``new`` has taken over."""

import os
import time

import pytest

from gateway.blobs.marks import Copy, Marks

NAME = "ab" * 32


class Holder:
    """Who answers whether the directory is still held."""

    def __init__(self):
        self.is_one = True
        #: What happens while it is asked.
        self.meanwhile = lambda: None

    def __call__(self):
        self.meanwhile()
        return self.is_one


@pytest.fixture
def holder():
    return Holder()


@pytest.fixture
def old(tmp_path, holder):
    marks = Marks(tmp_path / "marks", holder)
    marks.prepare()
    return marks


@pytest.fixture
def new(tmp_path):
    """Not prepared yet."""
    return Marks(tmp_path / "marks", lambda: True)


def marked(marks, *, at=None):
    copy = Copy.new(NAME)
    marks.set(copy)
    if at is not None:
        os.utime(marks._path(NAME), (at, at))
    return copy


def test_a_mark_names_the_copy_that_counts(old):
    assert old.find(NAME) is None
    first = marked(old)
    assert old.find(NAME) == first
    second = marked(old)
    assert second != first
    assert old.find(NAME) == second
    assert old.all() == {NAME: second.generation}


def test_times_are_those_of_the_last_commit(old):
    marked(old, at=1000.0)
    assert old.untouched(since=1000.0) == []
    assert old.untouched(since=1001.0) == [NAME]
    old.touch(NAME)
    assert old.untouched(since=time.time() - 60) == []


def test_what_is_doomed_has_no_mark_until_it_is_finished(old):
    copy = marked(old, at=1000.0)
    assert old.doom(NAME, untouched_since=1000.0) is None, "it was touched at that moment"
    assert old.find(NAME) == copy
    assert old.doom(NAME, untouched_since=1001.0) == copy
    assert old.find(NAME) is None
    assert old.doomed() == [copy]
    old.finish(copy)
    assert old.doomed() == []
    assert old.doom(NAME, untouched_since=1001.0) is None, "it is gone"


def test_who_does_not_hold_the_directory_dooms_nothing(old, holder):
    copy = marked(old, at=1000.0)
    holder.is_one = False
    assert old.doom(NAME, untouched_since=1001.0) is None
    assert old.find(NAME) == copy
    assert old.untouched(since=time.time() - 60) == [], "whoever put it back does not know since when it is relied on"


def test_what_is_committed_between_rename_and_question_counts_and_is_not_replaced(old, new, holder):
    marked(old, at=1000.0)
    found = []
    holder.is_one = False
    holder.meanwhile = lambda: found.append(marked(new))
    assert old.doom(NAME, untouched_since=1001.0) is None
    assert new.find(NAME) == found[0]


def test_what_was_touched_between_look_and_rename_stays(old, monkeypatch):
    copy = marked(old, at=1000.0)
    renaming = type(old._path(NAME)).rename

    def rename(path, target):
        old.touch(NAME)
        return renaming(path, target)

    monkeypatch.setattr(type(old._path(NAME)), "rename", rename)
    assert old.doom(NAME, untouched_since=1001.0) is None
    assert old.find(NAME) == copy


def test_what_a_dead_run_has_doomed_is_finished_by_the_next(old, new):
    copy = marked(old, at=1000.0)
    old.doom(NAME, untouched_since=1001.0)
    new.prepare()
    assert new.doomed() == [copy]
    assert new.find(NAME) is None
    new.finish(copy)
    assert new.doomed() == []


def test_a_stopped_run_puts_nothing_back_that_the_next_has_taken_on(old, new, holder):
    """It was stopped between the rename and the question; the next run deletes the copy, so no mark may name it."""
    copy = marked(old, at=1000.0)

    def meanwhile():
        holder.is_one = False
        new.prepare()

    holder.meanwhile = meanwhile
    assert old.doom(NAME, untouched_since=1001.0) is None
    assert new.find(NAME) is None
    assert new.doomed() == [copy]


def test_what_a_stopped_run_dooms_later_is_put_back(old, new, holder):
    """It dies before it can put it back itself: whoever holds the directory relies on that copy."""
    copy = marked(old, at=1000.0)
    new.prepare()

    def die():
        raise SystemExit

    holder.meanwhile = die
    with pytest.raises(SystemExit):
        old.doom(NAME, untouched_since=1001.0)
    assert new.find(NAME) is None
    assert new.doomed() == []
    assert new.find(NAME) == copy


def test_what_was_committed_since_is_never_reached_by_a_late_deletion(old, new):
    """The old one has asked, was told that it may, and is stopped before its request is sent."""
    late = marked(old, at=1000.0)
    assert old.doom(NAME, untouched_since=1001.0) == late
    new.prepare()
    assert marked(new) != late


def test_names_of_copies_are_read_strictly():
    copy = Copy.new(NAME)
    assert Copy.of_name(copy.name) == copy
    for name in (NAME, f"{NAME}.", f"{NAME}.xyz", "ab.12345678", f"{NAME}.12345678.9", ""):
        assert Copy.of_name(name) is None


def test_a_damaged_mark_is_none(old):
    marked(old)
    old._path(NAME).write_bytes(b"\xff")
    assert old.find(NAME) is None
    assert old.all() == {}
    assert old.doom(NAME, untouched_since=time.time() + 60) is None
    assert list(old._doomed.iterdir()) == []
