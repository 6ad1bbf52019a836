from hypothesis import given
from hypothesis import strategies as st

from gateway.blobs.cache import Cache


def test_the_least_recently_used_goes_first():
    cache = Cache(30)
    for name in "abc":
        cache.add(name, 10)
    cache.use("a")
    assert cache.surplus(coming_bytes=10) == ["b"]
    assert "b" not in cache
    assert cache.surplus(coming_bytes=10) == []
    cache.add("d", 10)
    assert cache.surplus() == []


def test_what_is_in_use_stays_and_goes_later():
    cache = Cache(10)
    cache.add("a", 10)
    with cache.pinned("a"), cache.pinned("a"):
        cache.add("b", 10)
        assert cache.surplus() == ["b"]
        assert cache.surplus(coming_bytes=5) == []
    assert cache.surplus(coming_bytes=5) == ["a"]


def test_what_is_added_twice_or_taken_away_counts_once():
    cache = Cache(20)
    cache.add("a", 10)
    cache.add("a", 10)
    cache.add("b", 10)
    assert cache.surplus() == []
    cache.remove("a")
    cache.remove("a")
    cache.add("c", 10)
    assert cache.surplus() == []


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 40)), max_size=40))
def test_without_pins_there_never_lies_more_than_may(steps):
    cache, held = Cache(50), {}
    for name, size_bytes in steps:
        cache.add(name, size_bytes)
        held[name] = size_bytes
        for gone in cache.surplus():
            del held[gone]
        assert sum(held.values()) <= 50
        assert all((name in cache) == (name in held) for name in "abcdef")
