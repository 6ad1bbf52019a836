"""What users have, told and given; jobs that are paid by measure and given back when they fail."""

from __future__ import annotations

import pytest

from gateway.accounts import Key, Scope, User
from gateway.audit import MediaKind
from gateway.errors import InsufficientCreditsError, InvalidInputError, NotFoundError, TemplateError
from gateway.ledger import Amounts, EntryKind

ANN = User("u-ann", "ann", "free", False, 1.0)
KEY = Key("k-ann", "u-ann", "laptop", "cfg_live_12345678", 60, 4, frozenset({Scope.JOBS}), 10.0)


@pytest.fixture
async def house(engine):
    await engine.start(engine.new_upstream())
    await engine.store.accounts.create_user(ANN)
    await engine.store.accounts.create_key(KEY, "0" * 64)
    return engine


async def test_statement_tells_purses_and_the_newest_entries(house):
    await house.service.credits.grant("ann", "permanent", 5)
    told = await house.service.credits.grant("ann", "monthly", 3)
    assert (told.user, told.account.balance, told.account.monthly_grant) == (ANN, Amounts(0, 3, 5), 3)
    assert [line.entry.amounts for line in told.entries] == [Amounts(monthly=3), Amounts(permanent=5)]


async def test_what_a_job_costs_at_least_is_asked_for_before_it_is_there(house):
    credits_of, least = house.service.credits, house.service.least_price
    assert [least("face_swap", kind) for kind in (MediaKind.IMAGE, MediaKind.VIDEO, MediaKind.GIF)] == [1, 1, 0]
    await credits_of.require("u-ann", 0)
    with pytest.raises(InsufficientCreditsError):
        await credits_of.require("u-ann", 1)
    await credits_of.grant("ann", "monthly", 1)
    await credits_of.require("u-ann", 1)
    with pytest.raises(TemplateError):
        least("no_task", MediaKind.IMAGE)


@pytest.mark.parametrize(
    ("name", "purse", "amount", "error"),
    [
        ("nobody", "permanent", 5, NotFoundError),
        ("ann", "pocket", 5, InvalidInputError),
        ("ann", "permanent", 0, InvalidInputError),
    ],
)
async def test_grant_that_cannot_be_changes_nothing(house, name, purse, amount, error):
    with pytest.raises(error):
        await house.service.credits.grant(name, purse, amount)
    assert (await house.service.credits.statement("ann")).entries == []


async def test_job_that_the_workers_filter_refused_is_given_back(house):
    await house.service.credits.grant("ann", "permanent", 1)
    job_id = await house.submit(owner="k-ann")
    house.finish(house.upstreams["gpu-1"], b"small:black")
    assert (await house.until("failed", job_id)).error_code == "content_flagged"
    assert (await house.service.credits.account("u-ann")).balance == Amounts(permanent=1)


async def test_job_is_paid_when_it_is_made_and_given_back_when_it_fails(house):
    await house.service.credits.grant("ann", "permanent", 1)
    job_id = await house.submit(owner="k-ann")
    assert (await house.job(job_id)).credit_cost == 1
    assert (await house.service.credits.account("u-ann")).balance == Amounts()
    upstream = house.upstreams["gpu-1"]
    upstream.prompt.start()
    upstream.prompt.fail("node_failed", "no")
    await house.until("failed", job_id)
    told = await house.service.credits.statement("ann")
    assert (told.account.balance, told.entries[0].entry.kind) == (Amounts(permanent=1), EntryKind.REFUND)


async def test_job_that_cannot_be_paid_leaves_no_bytes(house):
    with pytest.raises(InsufficientCreditsError):
        await house.submit(owner="k-ann")
    assert house.blobs.stored == {}


async def test_operator_pays_nothing(house):
    job_id = await house.submit()
    assert (await house.job(job_id)).credit_cost == 0
