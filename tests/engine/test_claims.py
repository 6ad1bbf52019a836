"""A request that is repeated: one does it, the others wait for its answer, and a dead one is taken over in a minute."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import pytest

from gateway.accounts import Key, Scope, User
from gateway.audit import MediaFacts, MediaKind
from gateway.engine.claims import Claims
from gateway.errors import (
    ConcurrencyLimitedError,
    IdempotencyInFlightError,
    IdempotencyMismatchError,
    IdempotencyReuseError,
    InsufficientCreditsError,
    SourceUnreachableError,
)
from gateway.idempotency import RENEW_SECONDS, RETENTION_SECONDS, Answer, Claim, Free, Wanted
from gateway.interfaces import Blob, NewAsset, Promise
from gateway.ledger import Purse
from gateway.limits import Concurrency

ANN = User("u-ann", "ann", "free", False, 1.0)
KEY = Key("k-ann", "u-ann", "laptop", "cfg_live_12345678", 60, 4, frozenset({Scope.JOBS}), 10.0)
WANTED = Wanted("k-ann", "order-7", "print")
FACTS = MediaFacts(MediaKind.FILE, "text/plain", "", 0, 0, 0, None, None, has_audio=False, video_codec=None)
NEW_ASSET = NewAsset("a-1", "k-ann", Blob("a" * 64, 1), "text/plain", "x", (), FACTS, expires_at=1e12)


class House:
    """The engine's claims on a real store, in a world where a create takes until ``gate`` opens."""

    def __init__(self, engine):
        self.engine = engine
        self.store = engine.store
        self.clock = engine.clock
        tokens = itertools.count(1)
        self.claims = Claims(self.store.claims, self.clock, lambda: f"token-{next(tokens)}")
        self.places = Concurrency()
        self.gate = asyncio.Event()
        self.made = 0

    @contextmanager
    def room(self):
        with self.places.take("k-ann", 1):
            yield

    async def make(self, claim):
        """As a dialect does it."""
        self.made += 1
        await self.gate.wait()
        promise = Promise(claim, lambda job: Answer(201, job.id.encode(), job.id))
        job_id = await self.engine.submit(settle=False, owner="k-ann", promise=promise)
        return Answer(201, job_id.encode(), job_id)

    async def once(self, wanted=WANTED, make=None, *, budget=50.0):
        until = self.clock.monotonic() + budget
        return await self.claims.once(wanted, make or self.make, room=self.room, until=until)

    def begin(self, *arguments, **named):
        return asyncio.ensure_future(self.once(*arguments, **named))

    async def jobs(self):
        return await self.store.jobs("k-ann", states=None, before=None, limit=100)

    async def balance(self):
        return (await self.store.credits.account("u-ann", now=self.clock.now())).balance.total


@pytest.fixture
async def house(engine):
    await engine.start()
    house = House(engine)
    await house.store.accounts.create_user(ANN)
    await house.store.accounts.create_key(KEY, "0" * 64)
    await house.store.credits.grant("u-ann", Purse.PERMANENT, 100, now=house.clock.now())
    yield house
    await house.claims.close()


async def test_fifty_at_once_make_one_job_for_one_charge_and_get_one_answer(house):
    house.gate.set()
    outcomes = await asyncio.gather(*(house.once() for _ in range(50)))
    assert len({outcome.answer for outcome in outcomes}) == 1
    assert sum(not outcome.is_replay for outcome in outcomes) == 1
    assert [job.id for job in await house.jobs()] == [outcomes[0].answer.job_id]
    assert await house.balance() == 99


class Slow:
    """A store of claims that takes its time, as one in a thread does."""

    def __init__(self, store):
        self._store = store

    def __getattr__(self, name):
        async def later(*arguments, **named):
            await asyncio.sleep(0)
            result = await getattr(self._store, name)(*arguments, **named)
            await asyncio.sleep(0)
            return result

        return later


async def test_one_leads_also_when_all_have_looked_before_the_first_has_claimed(house):
    house.claims = Claims(Slow(house.store.claims), house.clock, lambda: "token")
    house.gate.set()
    outcomes = await asyncio.gather(*(house.once() for _ in range(50)))
    assert (len({outcome.answer for outcome in outcomes}), house.made) == (1, 1)


async def test_waiters_take_no_place_and_a_replay_needs_none(house):
    first = house.begin()
    waiters = [house.begin() for _ in range(9)]
    await house.engine.settle()
    assert house.places.taken("k-ann") == 1
    with pytest.raises(ConcurrencyLimitedError):
        await house.once(replace(WANTED, key="order-8"))
    house.gate.set()
    await asyncio.gather(first, *waiters)
    with house.places.take("k-ann", 1):
        assert (await house.once()).is_replay


async def test_refusal_for_want_of_a_place_claims_nothing(house):
    with house.places.take("k-ann", 1), pytest.raises(ConcurrencyLimitedError):
        await house.once()
    assert await house.store.claims.look(WANTED, now=house.clock.now()) is Free.FREE


async def test_failure_is_not_kept_and_the_next_waiter_tries(house):
    failing = [SourceUnreachableError("no"), None]

    async def make(claim):
        await house.gate.wait()
        if (error := failing.pop(0)) is not None:
            raise error
        return await house.make(claim)

    first, second, third = (house.begin(make=make) for _ in range(3))
    await house.engine.settle()
    house.gate.set()
    outcomes = await asyncio.gather(first, second, third, return_exceptions=True)
    assert isinstance(outcomes[0], SourceUnreachableError)
    assert outcomes[1].answer == outcomes[2].answer
    assert len(await house.jobs()) == 1


async def test_job_that_could_not_be_paid_can_be_tried_again_with_the_same_key(house):
    house.gate.set()
    for number in range(100):
        await house.once(replace(WANTED, key=f"order-{number + 100}"))
    with pytest.raises(InsufficientCreditsError):
        await house.once()
    await house.store.credits.grant("u-ann", Purse.PERMANENT, 1, now=house.clock.now())
    assert not (await house.once()).is_replay
    assert await house.balance() == 0


async def test_changed_request_is_refused_and_costs_nothing(house):
    house.gate.set()
    await house.once()
    with pytest.raises(IdempotencyMismatchError):
        await house.once(replace(WANTED, fingerprint="other"))
    assert (len(await house.jobs()), await house.balance()) == (1, 99)


async def test_changed_request_is_refused_while_the_first_is_at_work(house):
    first = house.begin()
    await house.engine.settle()
    with pytest.raises(IdempotencyMismatchError):
        await house.claims.once(
            replace(WANTED, fingerprint="other"), house.make, room=nullcontext, until=house.clock.monotonic() + 50
        )
    house.gate.set()
    await first
    assert len(await house.jobs()) == 1


async def test_retry_after_a_kill_waits_no_longer_than_a_lease_and_then_does_it(house):
    # Another process claimed it, and was killed before it stored anything.
    await house.store.claims.claim(WANTED, "token-of-the-dead", now=house.clock.now())
    house.gate.set()
    retry = house.begin(budget=120.0)
    waited = 0.0
    while not retry.done():
        await house.engine.pass_time(0.5)
        waited += 0.5
        assert waited <= 61
    assert not (await retry).is_replay
    assert waited >= 59
    assert (len(await house.jobs()), await house.balance()) == (1, 99)


async def test_waiter_whose_time_is_over_is_told_to_come_back(house):
    first = house.begin()
    await house.engine.settle()
    waiter = house.begin(budget=50.0)
    await house.engine.settle()
    await house.engine.pass_time(49.0)
    assert not waiter.done()
    await house.engine.pass_time(1.5)
    with pytest.raises(IdempotencyInFlightError) as refused:
        await waiter
    assert refused.value.retry_after_seconds == 1
    house.gate.set()
    await first


async def test_holder_at_work_for_minutes_is_not_taken_over(house):
    first = house.begin()
    await house.engine.settle()
    for _ in range(12):
        await house.engine.pass_time(RENEW_SECONDS)
        assert await house.store.claims.claim(WANTED, "thief", now=house.clock.now()) is not Free.FREE
    house.gate.set()
    assert not (await first).is_replay


async def test_client_that_leaves_frees_its_key_and_its_place(house):
    first = house.begin()
    await house.engine.settle()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await house.claims.close()
    assert house.places.taken("k-ann") == 0
    assert await house.store.claims.look(WANTED, now=house.clock.now()) is Free.FREE
    house.gate.set()
    assert not (await house.once()).is_replay


async def test_answer_of_another_process_is_found_while_waiting(house):
    await house.store.claims.claim(WANTED, "elsewhere", now=house.clock.now())
    waiter = house.begin()
    await house.engine.settle()
    house.gate.set()
    await house.make(Claim(WANTED, "elsewhere"))
    await house.engine.pass_time(0.6)
    done = await waiter
    assert (done.is_replay, house.made) == (True, 1)


async def test_housekeeping_forgets_answers_after_a_day(house):
    house.gate.set()
    await house.once()
    house.clock.advance(86_401.0)
    await house.engine.keeper.sweep()
    assert await house.claims.sweep() == 0, "there was something left to forget"
    assert not (await house.once()).is_replay


# -------------------------------------------------------------------------------------------- keys for one request each


async def test_a_single_claim_that_was_used_up_is_refused_whatever_it_is_used_for_again(house):
    async with house.claims.single(WANTED) as claim:
        await house.store.assets.add(NEW_ASSET, now=house.clock.now(), claim=claim)
    for wanted in (WANTED, replace(WANTED, fingerprint="another")):
        with pytest.raises(IdempotencyReuseError):
            await house.claims.require_unused(wanted)
        with pytest.raises(IdempotencyReuseError):
            async with house.claims.single(wanted):
                pytest.fail("it was let in")
    await house.claims.require_unused(replace(WANTED, scope="k-bob"))


async def test_a_single_claim_is_free_again_when_its_block_fails(house):
    with pytest.raises(ZeroDivisionError):
        async with house.claims.single(WANTED):
            raise ZeroDivisionError
    await house.claims.require_unused(WANTED)
    async with house.claims.single(WANTED):
        pass


async def test_of_two_at_once_a_single_claim_lets_in_one(house):
    async with house.claims.single(WANTED):
        with pytest.raises(IdempotencyReuseError):
            await house.claims.require_unused(WANTED)
        with pytest.raises(IdempotencyReuseError):
            async with house.claims.single(WANTED):
                pytest.fail("it was let in")


async def test_a_single_claim_can_be_made_again_a_day_later(house):
    async with house.claims.single(WANTED) as claim:
        await house.store.assets.add(NEW_ASSET, now=house.clock.now(), claim=claim)
    await house.engine.pass_time(RETENTION_SECONDS - 1)
    with pytest.raises(IdempotencyReuseError):
        await house.claims.require_unused(WANTED)
    await house.engine.pass_time(2)
    await house.claims.require_unused(WANTED)
