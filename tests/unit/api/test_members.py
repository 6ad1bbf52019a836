from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.api.members import Members
from gateway.errors import InvalidInputError

BODY = {
    "text": "a",
    "flag": False,
    "number": 1.5,
    "whole": 2.0,
    "list": [1],
    "object": {"a": 1},
    "null": None,
}
MEMBERS = Members(BODY)


def test_each_member_is_read_by_its_rule():
    assert MEMBERS.text("text") == "a"
    assert MEMBERS.flag("flag") is False
    assert MEMBERS.number("number") == 1.5
    assert MEMBERS.integer("whole", least=0) == 2
    assert MEMBERS.list("list") == [1]
    assert MEMBERS.object("object") == {"a": 1}
    assert MEMBERS.value("list") == [1]


@pytest.mark.parametrize("name", ["null", "not there"])
def test_null_and_nothing_are_nothing(name: str):
    assert not MEMBERS.has(name)
    readers: list[Callable[[str], Any]] = [MEMBERS.text, MEMBERS.flag, MEMBERS.number, MEMBERS.list, MEMBERS.object]
    assert [read(name) for read in (*readers, MEMBERS.value)] == [None] * 6
    assert MEMBERS.integer(name, least=0) is None


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (MEMBERS.text, "flag"),
        (MEMBERS.flag, "text"),
        (MEMBERS.number, "flag"),
        (MEMBERS.list, "object"),
        (MEMBERS.object, "list"),
    ],
)
def test_another_type_is_refused_by_name(read: Callable[[str], Any], name: str):
    with pytest.raises(InvalidInputError, match=f"^{name} must be") as refused:
        read(name)
    assert refused.value.field == name


@pytest.mark.parametrize("value", [True, -1, 8, 1.5, "1", 10**100])
def test_a_whole_number_is_one_within_its_limits(value: Any):
    with pytest.raises(InvalidInputError, match=r"gateway\.n must be a whole number, from 0 to 7\."):
        Members({"n": value}, "gateway.").integer("n", least=0, most=7)
