"""Index and order rules; the expected values are what ReActor 6ad6b35 does with the same strings."""

import itertools
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_nodes.options import FACES_ORDERS, MAX_INDEXES, numbered, parse_indexes, sort_key


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", [0]),
        ("2,0,1", [2, 0, 1]),
        ("0,0", [0, 0]),
        (",1,", [1]),
        ("0, 1", [0]),
        (" 1", [0]),
        ("", [0]),
        ("a,b", [0]),
        ("-1", [0]),
        ("1.5,3", [3]),
        ("½", [0]),
        ("9" * 5000, [0]),
    ],
)
def test_indexes_are_read_as_reactor_reads_them(text, expected):
    assert parse_indexes(text) == expected


@given(st.text(alphabet="0123456789, -x½٣", max_size=200))
def test_any_text_names_a_bounded_number_of_places(text):
    places = parse_indexes(text)
    assert 1 <= len(places) <= MAX_INDEXES
    assert all(place >= 0 for place in places)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("left-right", "abc"),
        ("right-left", "cba"),
        ("top-bottom", "cab"),
        ("bottom-top", "bac"),
        ("small-large", "bca"),
        ("large-small", "acb"),
        ("no such order", "acb"),
    ],
)
def test_faces_are_numbered_by_edge_or_area(order, expected):
    boxes = {"a": (10, 50, 900), "b": (20, 90, 100), "c": (30, 5, 400)}
    assert "".join(sorted(boxes, key=lambda name: sort_key(order, *boxes[name]))) == expected


@pytest.mark.parametrize("order", FACES_ORDERS[2:])
def test_ties_go_left_to_right(order):
    assert sort_key(order, 5, 7, 100) < sort_key(order, 9, 7, 100)


@dataclass(frozen=True)
class Box:
    x: int
    y: int
    width: int
    height: int

    @property
    def area(self):
        return self.width * self.height


sides = st.integers(1, 6)
boxes = st.lists(st.builds(Box, st.integers(0, 5), st.integers(0, 5), sides, sides), max_size=8)


@given(boxes.flatmap(lambda drawn: st.tuples(st.just(drawn), st.permutations(drawn))))
def test_numbers_do_not_depend_on_the_order_of_detection(drawn):
    found, shuffled = drawn
    given_numbers = [(box.area, box.x, box.y) for box in numbered(found)]
    assert given_numbers == [(box.area, box.x, box.y) for box in numbered(shuffled)]
    for (area, x, y), (next_area, next_x, next_y) in itertools.pairwise(given_numbers):
        assert (-area, x, y) <= (-next_area, next_x, next_y)
