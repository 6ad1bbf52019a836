"""What every store promises of credits and idempotency keys, over each executor."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from gateway.accounts import Key, Scope, User
from gateway.audit import MediaFacts, MediaKind
from gateway.errors import (
    IdempotencyInFlightError,
    IdempotencyMismatchError,
    InsufficientCreditsError,
    NotFoundError,
    QueueFullError,
)
from gateway.idempotency import Answer, Claim, Free, InFlight, Wanted
from gateway.interfaces import NewJob, Promise, Report
from gateway.job import JobInput, JobResult, JobState, RetryLimits, TaskEvent
from gateway.ledger import Amounts, EntryKind, Purse
from gateway.store.queries import ledger as ledger_queries
from gateway.store.schema_credits import claims as claims_table
from gateway.store.schema_credits import ledger as ledger_table
from gateway.store.sql_store import SqlStore

ANN, BOB = User("u-ann", "ann", "free", False, 1.0), User("u-bob", "bob", "pro", True, 2.0)
KEY = Key("k-ann", "u-ann", "laptop", "cfg_live_12345678", 60, 4, frozenset({Scope.JOBS}), 10.0)
OTHER = replace(KEY, id="k-bob", user_id="u-bob")
FACTS = MediaFacts(MediaKind.VIDEO, "video/mp4", ".mp4", 64, 48, 25, None, 1.0, has_audio=True, video_codec="h264")
LIMITS = RetryLimits(max_attempts=2, max_interruptions=4)
WANTED = Wanted("k-ann", "order-7", "print")
LIVE = frozenset({JobState.QUEUED, JobState.DISPATCHED, JobState.RUNNING, JobState.FINISHING})


def at(year, month, day=1):
    return datetime(year, month, day, tzinfo=UTC).timestamp()


NOV = at(2026, 11, 22)


@pytest.fixture(scope="module")
def empty_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("credits") / "empty.db"

    async def make():
        store = await SqlStore.open(path, result_retention_seconds=100.0, asset_retention_seconds=50.0)
        await people(store)
        await store.close()

    asyncio.run(make())
    return path


async def people(store):
    for user, key in ((ANN, KEY), (BOB, OTHER)):
        await store.accounts.create_user(user)
        await store.accounts.create_key(key, key.id.ljust(64, "0"))


@pytest.fixture(params=["file", "memory"])
async def store(request, tmp_path, empty_file):
    if request.param == "file":
        path = Path(shutil.copy(empty_file, tmp_path / "gateway.db"))
        made = await SqlStore.open(path, result_retention_seconds=100.0, asset_retention_seconds=50.0)
    else:
        made = SqlStore.in_memory()
        await people(made)
    yield made
    await require_balanced(made)
    await made.close()


# ---- words


def new_job(number=1, **changes):
    new = NewJob(
        id=f"job-{number}",
        task_id=f"task-{number}",
        owner="k-ann",
        submitter="k-ann",
        dialect="swaps_v1",
        task="face_swap",
        template="faceswap_video",
        template_version="v1",
        priority=0,
        parameters={},
        inputs={"target": JobInput(f"asset-{number}", f"blob-{number}", 100, FACTS)},
        output_name="out",
        queue_deadline=NOV + 1000.0,
        requirement="needs",
        cost_seconds=1.0,
        price=4,
    )
    return replace(new, **changes)


async def create(store, number=1, *, now=NOV, max_queue=100, **changes):
    return (await store.create_job(new_job(number, **changes), max_queue=max_queue, now=now)).job


async def tell(store, event, number=1, attempt=None, *, now=NOV + 5, **said):
    return await store.record(f"task-{number}", Report(event, attempt, **said), limits=LIMITS, now=now)


async def dispatch(store, number=1, prompt="prompt", *, now=NOV + 1):
    said = {"upstream": "gpu", "prompt_id": f"{prompt}-{number}", "engine": "comfyui"}
    return await tell(store, TaskEvent.DISPATCHED, number, now=now, **said)


async def give(store, user="u-ann", *, now=NOV, **purses):
    for purse, amount in purses.items():
        await store.credits.grant(user, Purse(purse), amount, now=now)


async def balance(store, user="u-ann", *, now=NOV):
    return (await store.credits.account(user, now=now)).balance


async def kinds(store, user="u-ann"):
    return [line.entry.kind.value for line in reversed(await store.credits.entries(user, limit=100))]


async def require_balanced(store):
    """The purses are the sum of their entries, and none is below zero."""
    for total, found in (await store._executor.read(ledger_queries.sums)).values():
        assert total == found
        assert min(found.subscription, found.monthly, found.permanent) >= 0


# ---- charging


async def test_job_is_charged_to_the_user_of_the_key_that_owns_it(store):
    await give(store, subscription=1, monthly=2, permanent=10)
    await give(store, "u-bob", permanent=10)
    assert (await create(store)).credit_cost == 4
    assert await balance(store) == Amounts(permanent=9)
    assert await balance(store, "u-bob") == Amounts(permanent=10)
    hold = (await store.credits.entries("u-ann", limit=1))[0]
    assert (hold.entry.kind, hold.entry.amounts, hold.job_id) == (EntryKind.HOLD, Amounts(-1, -2, -1), "job-1")
    assert (await store.job("job-1")).credit_cost == 4


async def test_owner_that_is_no_key_pays_nothing(store):
    assert (await create(store, owner="local")).credit_cost == 0
    assert await tell(store, TaskEvent.FAILED, error_code="node_failed", error_message="no") is not None


async def test_free_job_needs_no_credits(store):
    assert (await create(store, price=0)).credit_cost == 0
    assert await kinds(store) == []


async def test_job_that_cannot_be_paid_is_not_made(store):
    await give(store, permanent=3)
    with pytest.raises(InsufficientCreditsError):
        await create(store)
    assert await store.job("job-1") is None
    assert await balance(store) == Amounts(permanent=3)
    assert await kinds(store) == ["grant"]


async def test_job_that_the_queue_has_no_room_for_costs_nothing(store):
    await give(store, permanent=10)
    with pytest.raises(QueueFullError):
        await create(store, max_queue=0)
    assert await balance(store) == Amounts(permanent=10)


async def test_twenty_at_once_spend_a_balance_of_ten_on_exactly_ten_jobs(store):
    await give(store, subscription=3, monthly=3, permanent=4)
    outcomes = await asyncio.gather(*(create(store, n, price=1) for n in range(20)), return_exceptions=True)
    assert sum(isinstance(outcome, InsufficientCreditsError) for outcome in outcomes) == 10
    assert sum(not isinstance(outcome, Exception) for outcome in outcomes) == 10
    assert len(await store.jobs("k-ann", states=None, before=None, limit=50)) == 10
    assert await balance(store) == Amounts()


# ---- the end of a hold


@pytest.fixture
async def paid(store):
    await give(store, subscription=1, monthly=2, permanent=10)
    await create(store)
    return store


FULL = Amounts(1, 2, 10)


async def test_success_keeps_the_price(paid):
    await dispatch(paid)
    result = JobResult("asset-r", "blob-r", 55, FACTS, "link")
    assert (await tell(paid, TaskEvent.SUCCEEDED, 1, 1, results=(result,))).job.state is JobState.SUCCEEDED
    assert await balance(paid) == Amounts(permanent=9)
    assert (await kinds(paid))[-2:] == ["hold", "charge"]


async def failed(store):
    await dispatch(store)
    await tell(store, TaskEvent.FAILED, 1, 1, error_code="poisoned", error_message="no")


async def canceled_while_queued(store):
    await store.request_cancel("job-1", LIVE, now=NOV + 2)


async def canceled_while_running(store):
    await dispatch(store)
    await store.request_cancel("job-1", LIVE, now=NOV + 2)
    assert (await balance(store)) == Amounts(permanent=9), "refunded before it ended"
    await tell(store, TaskEvent.CANCELED, 1, 1)


async def canceled_although_it_succeeded(store):
    await dispatch(store)
    await store.request_cancel("job-1", LIVE, now=NOV + 2)
    await tell(store, TaskEvent.SUCCEEDED, 1, 1, results=(JobResult("asset-r", "blob-r", 55, FACTS, "link"),))


async def expired(store):
    assert len(await store.expire_queued(now=NOV + 2000)) == 1


async def lost_too_often(store):
    for attempt in (1, 2):
        await dispatch(store, prompt=f"prompt-{attempt}")
        await tell(store, TaskEvent.ATTEMPT_LOST, 1, attempt, reason="gone")


ENDS = (failed, canceled_while_queued, canceled_while_running, canceled_although_it_succeeded, expired, lost_too_often)


@pytest.mark.parametrize("end", ENDS)
async def test_every_other_end_gives_back_once_to_where_it_came_from(paid, end):
    await end(paid)
    job = await paid.job("job-1")
    assert job.state in {JobState.FAILED, JobState.CANCELED}
    assert await balance(paid) == FULL
    assert (await kinds(paid))[-2:] == ["hold", "refund"]
    # What comes after the end changes nothing, nor does forgetting the job.
    assert await tell(paid, TaskEvent.FAILED, 1, 1) is None
    assert await paid.request_cancel("job-1", LIVE, now=NOV + 9) is None
    assert await paid.expire_queued(now=NOV + 3000) == []
    await paid.purge_job("job-1")
    assert await balance(paid) == FULL
    assert (await kinds(paid)).count("refund") == 1


async def test_try_that_goes_back_to_the_queue_moves_nothing(paid):
    await dispatch(paid)
    await tell(paid, TaskEvent.ATTEMPT_LOST, 1, 1, reason="gone")
    assert (await kinds(paid))[-1] == "hold"
    assert await balance(paid) == Amounts(permanent=9)


async def test_database_itself_refuses_a_second_hold_and_a_second_end(paid):
    row = {"user_id": "u-ann", "job_id": "job-1", "subscription": 0, "monthly": 0, "at": NOV}
    await failed(paid)
    for kind, amount in (("hold", -1), ("refund", 1), ("charge", 0)):
        with pytest.raises(IntegrityError):
            await paid._executor.write(
                lambda connection, values: connection.execute(insert(ledger_table), values),
                {**row, "kind": kind, "permanent": amount},
            )


# ---- months and grants


async def test_monthly_purse_is_renewed_by_whoever_touches_it_next_and_shown_before(store):
    await give(store, monthly=10)
    await create(store)
    assert await balance(store, now=at(2026, 12) - 0.001) == Amounts(monthly=6)
    assert await balance(store, now=at(2026, 12)) == Amounts(monthly=10)
    assert await kinds(store) == ["grant", "hold"], "looking wrote something"
    await create(store, 2, now=at(2026, 12))
    assert await balance(store, now=at(2026, 12)) == Amounts(monthly=6)
    assert await kinds(store) == ["grant", "hold", "renewal", "hold"]


async def test_credits_of_a_new_month_can_be_spent_at_its_first_moment(store):
    await give(store, monthly=4)
    await create(store)
    with pytest.raises(InsufficientCreditsError):
        await create(store, 2, now=at(2026, 12) - 0.001)
    assert (await create(store, 2, now=at(2026, 12))).credit_cost == 4


async def test_nobody_can_be_given_anything(store):
    with pytest.raises(NotFoundError):
        await store.credits.grant("u-nobody", Purse.PERMANENT, 5, now=NOV)
    assert await balance(store, "u-nobody") == Amounts()


async def test_entries_are_the_users_own_newest_first(store):
    await give(store, permanent=1, subscription=2)
    await give(store, "u-bob", permanent=9)
    lines = await store.credits.entries("u-ann", limit=100)
    assert [line.entry.amounts for line in lines] == [Amounts(subscription=2), Amounts(permanent=1)]
    assert len(await store.credits.entries("u-ann", limit=1)) == 1


# ---- claims


def promise(holder="t-1", wanted=WANTED):
    return Promise(
        Claim(wanted, holder), lambda job: Answer(201, f"made {job.id} for {job.credit_cost}".encode(), job.id)
    )


async def claim(store, holder="t-1", *, now=NOV, wanted=WANTED):
    return await store.claims.claim(wanted, holder, now=now)


async def look(store, *, now=NOV, wanted=WANTED):
    return await store.claims.look(wanted, now=now)


async def test_first_claim_is_taken_and_the_next_is_told_so(store):
    assert await look(store) is Free.FREE
    assert await claim(store) is Free.FREE
    assert await claim(store, "t-2", now=NOV + 10) == InFlight(50.0)
    assert await look(store, now=NOV + 10) == InFlight(50.0)


async def test_fifty_claims_at_once_have_one_winner(store):
    outcomes = await asyncio.gather(*(claim(store, f"t-{number}") for number in range(50)))
    assert sum(outcome is Free.FREE for outcome in outcomes) == 1


async def test_same_key_of_another_is_another_and_another_request_is_refused(store):
    await claim(store)
    assert await look(store, wanted=replace(WANTED, scope="k-bob")) is Free.FREE
    assert await look(store, wanted=replace(WANTED, key="order-8")) is Free.FREE
    for ask in (
        look(store, wanted=replace(WANTED, fingerprint="x")),
        claim(store, wanted=replace(WANTED, fingerprint="x")),
    ):
        with pytest.raises(IdempotencyMismatchError):
            await ask


async def test_answer_is_kept_with_the_job_its_price_included(store):
    await give(store, permanent=10)
    await claim(store)
    await create(store, promise=promise())
    assert await look(store, now=NOV + 3600) == Answer(201, b"made job-1 for 4", "job-1")
    assert await claim(store, "t-2", now=NOV + 3600) == Answer(201, b"made job-1 for 4", "job-1")


async def test_released_claim_is_free_and_a_done_one_stays(store):
    await claim(store)
    await store.claims.release(Claim(WANTED, "t-other"))
    assert isinstance(await look(store), InFlight), "somebody else released it"
    await store.claims.release(Claim(WANTED, "t-1"))
    assert await look(store) is Free.FREE
    await claim(store, "t-2")
    await create(store, price=0, promise=promise("t-2"))
    await store.claims.release(Claim(WANTED, "t-2"))
    assert isinstance(await look(store), Answer)


async def test_claim_of_a_dead_holder_is_free_when_its_lease_ends(store):
    await claim(store)
    assert isinstance(await look(store, now=NOV + 59.9), InFlight)
    assert await claim(store, "t-2", now=NOV + 60) is Free.FREE


async def test_renewed_claim_is_held_for_another_lease(store):
    await claim(store)
    assert await store.claims.renew(Claim(WANTED, "t-1"), now=NOV + 40)
    assert await look(store, now=NOV + 90) == InFlight(10.0)


async def test_holder_that_was_taken_over_can_make_nothing(store):
    await give(store, permanent=10)
    await claim(store)
    await claim(store, "t-2", now=NOV + 60)
    assert not await store.claims.renew(Claim(WANTED, "t-1"), now=NOV + 61)
    with pytest.raises(IdempotencyInFlightError):
        await create(store, promise=promise("t-1"))
    assert await store.job("job-1") is None
    assert await balance(store) == Amounts(permanent=10)
    await create(store, 2, promise=promise("t-2"))
    assert (await look(store)).job_id == "job-2"


async def test_late_holder_that_nobody_took_over_still_makes_its_job(store):
    await claim(store)
    await create(store, price=0, promise=promise(), now=NOV + 100)
    assert isinstance(await look(store, now=NOV + 100), Answer)


async def test_job_that_cannot_be_paid_leaves_its_claim_in_flight_for_its_holder_to_release(store):
    await claim(store)
    with pytest.raises(InsufficientCreditsError):
        await create(store, promise=promise())
    assert isinstance(await look(store), InFlight)


async def test_answer_is_forgotten_after_a_day_and_its_row_by_the_sweep(store):
    await claim(store)
    await create(store, price=0, promise=promise())
    await claim(store, wanted=replace(WANTED, key="order-8"), now=NOV + 50_000)
    assert isinstance(await look(store, now=NOV + 86_399), Answer)
    assert await look(store, now=NOV + 86_400) is Free.FREE
    assert await look(store, now=NOV + 86_400, wanted=replace(WANTED, fingerprint="new use")) is Free.FREE
    assert await store.claims.sweep(now=NOV + 86_399) == 0
    assert await store.claims.sweep(now=NOV + 86_400) == 1
    assert await store.claims.sweep(now=NOV + 86_400) == 0


@pytest.mark.parametrize("everything", [True, False])
async def test_answer_is_forgotten_with_its_job_when_somebody_asks_for_that(store, everything):
    other = replace(WANTED, scope="k-bob")
    for wanted, number, owner in ((WANTED, 1, "k-ann"), (other, 2, "k-bob")):
        await claim(store, wanted=wanted)
        await create(store, number, owner=owner, price=0, promise=promise(wanted=wanted))
        await store.request_cancel(f"job-{number}", LIVE, now=NOV + 1)
    await (store.purge_owner("k-ann") if everything else store.purge_job("job-1"))
    assert await look(store) is Free.FREE
    assert isinstance(await look(store, wanted=other), Answer)


async def test_answer_that_outlived_its_job_is_forgotten_with_all_of_its_owner(store):
    other, in_flight = replace(WANTED, scope="k-bob"), replace(WANTED, key="order-8")
    for wanted, number, owner in ((WANTED, 1, "k-ann"), (other, 2, "k-bob")):
        await claim(store, wanted=wanted)
        await create(store, number, owner=owner, price=0, promise=promise(wanted=wanted))
        await store.request_cancel(f"job-{number}", LIVE, now=NOV + 1)
    await claim(store, wanted=in_flight)
    await store.sweep(job_retention_seconds=1, blob_grace_seconds=1, now=NOV + 10)
    assert await store.job("job-1") is None
    assert isinstance(await look(store), Answer)
    await store.purge_owner("k-ann")
    assert await look(store) is Free.FREE
    assert isinstance(await look(store, wanted=other), Answer)
    assert isinstance(await look(store, wanted=in_flight), InFlight), "it is its holder's to finish"


async def test_database_itself_keeps_no_answer_but_a_good_one(store):
    row = {"scope": "s", "key": "k", "fingerprint": "f", "token": "t", "lease_until": 1.0, "expires_at": 1.0}
    for answer in ({"status": 402, "body": b"", "job_id": "j"}, {"status": 201, "body": None, "job_id": "j"}):
        with pytest.raises(IntegrityError):
            await store._executor.write(
                lambda connection, values: connection.execute(insert(claims_table), values), {**row, **answer}
            )
