from __future__ import annotations

import pytest

from gateway.store import detections
from gateway.store.detections import Detections


def look(known, owner="ann"):
    known.note_none(owner, known.turn)


def test_one_who_has_none_is_known_until_one_is_made():
    known = Detections()
    assert not known.has_none("ann")
    look(known)
    assert known.has_none("ann")
    assert not known.has_none("bob")
    with known.making("ann"):
        pass
    assert not known.has_none("ann")


def test_a_look_from_before_one_is_made_proves_nothing_after_it():
    known = Detections()
    turn = known.turn
    with known.making("ann"):
        pass
    known.note_none("ann", turn)
    assert not known.has_none("ann")


def test_a_look_while_one_is_being_made_proves_nothing():
    known = Detections()
    with known.making("ann"):
        turn = known.turn
        look(known)
    assert not known.has_none("ann")
    known.note_none("ann", turn)
    assert not known.has_none("ann")


def test_what_could_not_be_made_proves_nothing_either():
    known = Detections()
    look(known)
    with pytest.raises(OSError, match="full"), known.making("ann"):
        raise OSError("full")
    assert not known.has_none("ann")


def test_only_so_many_are_remembered(monkeypatch):
    monkeypatch.setattr(detections, "MOST", 3)
    known = Detections()
    for number in range(4):
        look(known, str(number))
    assert [known.has_none(str(number)) for number in range(4)] == [False, False, False, True]
