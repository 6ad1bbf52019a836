"""Whether a task kills what it runs on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.poison import OUTAGE_SECONDS, Death, Loss, Trail, is_poisoned, own_deaths, seconds_to_verdict


def death(upstream, at, *, found_after=0.0):
    return Death(upstream, at, taken_at=at - 2.0, found_at=at + found_after)


def trail(*deaths, beside=()):
    """As the store tells it: each death is among the losses."""
    return Trail(deaths, (*(Loss(found.upstream, found.at) for found in deaths), *beside))


FIRST, SECOND = death("gpu-1", 100.0), death("gpu-2", 200.0)


def test_two_upstreams_that_died_alone_make_it_poisoned():
    assert is_poisoned(trail(FIRST, SECOND), 2)
    assert not is_poisoned(trail(FIRST), 2)


def test_one_upstream_that_died_twice_does_not():
    assert not is_poisoned(trail(FIRST, death("gpu-1", 200.0)), 2)


@pytest.mark.parametrize("seconds", [-OUTAGE_SECONDS, 0.0, OUTAGE_SECONDS])
def test_a_death_in_a_common_outage_does_not_count(seconds):
    found = trail(FIRST, SECOND, beside=[Loss("gpu-3", SECOND.at + seconds)])
    assert own_deaths(found) == (FIRST,)
    assert not is_poisoned(found, 2)


@pytest.mark.parametrize("loss", [Loss("gpu-3", 189.9), Loss("gpu-3", 210.1), Loss("gpu-2", 195.0)])
def test_a_loss_long_before_or_after_or_of_the_same_upstream_excuses_nothing(loss):
    assert is_poisoned(trail(FIRST, SECOND, beside=[loss]), 2)


@given(st.lists(st.builds(death, st.sampled_from(["a", "b", "c"]), st.floats(0, 1e6))), st.integers(0, 4))
def test_never_when_it_is_off_and_never_for_fewer_upstreams_than_it_takes(deaths, poison_after):
    found = trail(*deaths)
    assert not is_poisoned(found, 0)
    if is_poisoned(found, poison_after):
        assert len({death.upstream for death in deaths}) >= poison_after


def test_deaths_of_the_task_itself_excuse_nothing_however_soon_they_follow():
    """The second upstream took it after the first had died, and was well until then."""
    quick = [death("gpu-1", 100.0), death("gpu-2", 103.0)]
    assert own_deaths(trail(*quick)) == tuple(quick)
    assert own_deaths(trail(*quick, beside=[Loss("gpu-3", 101.0)])) == ()
    assert own_deaths(trail(*quick, beside=[Loss("gpu-2", 100.5)])) == (quick[1],), "that was before it ran there"


def test_a_death_that_is_seen_twice_is_one():
    """By the look at the upstream, and by the attempt, which was known to be lost a minute later or a moment earlier."""
    slow = [death("gpu-1", 100.0, found_after=60.0), death("gpu-2", 161.0)]
    seen = [Loss("gpu-1", 100.0), Loss("gpu-1", 160.0), Loss("gpu-2", 161.4)]
    assert own_deaths(Trail(slow, seen)) == tuple(slow)
    assert own_deaths(Trail(slow, [*seen, Loss("gpu-1", 163.0)])) == (slow[0],), "it came back, and was lost again"


@pytest.mark.parametrize(("now", "seconds"), [(200.0, 10.0), (203.5, 6.5), (210.0, 0.0), (1e9, 0.0), (-1e9, 10.0)])
def test_the_verdict_waits_for_the_last_death_to_be_past_an_outage_and_no_longer(now, seconds):
    assert seconds_to_verdict(trail(FIRST, SECOND), 2, now) == seconds


@pytest.mark.parametrize(
    "found",
    [
        trail(),
        trail(FIRST),
        trail(FIRST, death("gpu-1", 200.0)),
        trail(FIRST, SECOND, beside=[Loss("gpu-3", SECOND.at)]),
    ],
)
def test_what_cannot_be_poisoned_waits_for_nothing(found):
    assert seconds_to_verdict(found, 2, 200.0) == 0.0


def test_where_one_death_is_enough_the_first_is_waited_out():
    assert seconds_to_verdict(trail(FIRST), 1, 100.0) == OUTAGE_SECONDS


def test_an_excused_death_does_not_prolong_the_wait():
    third = death("gpu-3", 195.0)
    found = trail(FIRST, third, death("gpu-1", 290.0), beside=[Loss("gpu-5", 295.0)])
    assert seconds_to_verdict(found, 2, 290.0) == 0.0
