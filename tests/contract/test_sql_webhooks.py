"""What every store promises of the outbox, over each executor."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.accounts import Key, Scope, User
from gateway.audit import MediaFacts, MediaKind
from gateway.errors import ConflictError
from gateway.interfaces import NewJob, Report
from gateway.job import JobInput, JobState, RetryLimits, TaskEvent
from gateway.outbox import Again, Answer, Dead, Delivered, MessageState, Reason
from gateway.store.queries.outbox import MAX_SECRETS
from gateway.store.sql_store import SqlStore

ANN = User("u-ann", "ann", "free", False, 1.0)
KEY = Key("k-ann", "u-ann", "laptop", "cfg_live_12345678", 60, 4, frozenset({Scope.JOBS}), 10.0)
FACTS = MediaFacts(MediaKind.VIDEO, "video/mp4", ".mp4", 64, 48, 25, None, 1.0, has_audio=True, video_codec="h264")
LIMITS = RetryLimits(max_attempts=2, max_interruptions=4)
LIVE = frozenset({JobState.QUEUED, JobState.DISPATCHED, JobState.RUNNING, JobState.FINISHING})
URL = "https://hooks.example.net/in?token=secret"
NOON = 1_750_248_000.0
OK, DOWN = Answer(Reason.ANSWERED, 204), Answer(Reason.UNREACHABLE)


@pytest.fixture(scope="module")
def empty_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("webhooks") / "empty.db"

    async def make():
        store = await SqlStore.open(path, result_retention_seconds=100.0, asset_retention_seconds=50.0)
        await people(store)
        await store.close()

    asyncio.run(make())
    return path


async def people(store):
    await store.accounts.create_user(ANN)
    await store.accounts.create_key(KEY, KEY.id.ljust(64, "0"))


@pytest.fixture(params=["file", "memory"])
async def store(request, tmp_path, empty_file):
    if request.param == "file":
        path = Path(shutil.copy(empty_file, tmp_path / "gateway.db"))
        made = await SqlStore.open(path, result_retention_seconds=100.0, asset_retention_seconds=50.0)
    else:
        made = SqlStore.in_memory()
        await people(made)
    yield made
    await made.close()


# ---- words


async def create(store, number=1, url=URL, owner="k-ann"):
    new = NewJob(
        id=f"job-{number}",
        task_id=f"task-{number}",
        owner=owner,
        submitter=owner,
        dialect="faceswap",
        task="face_swap",
        template="faceswap_video",
        template_version="v1",
        priority=0,
        parameters={},
        inputs={"target": JobInput(f"asset-{number}", f"blob-{number}", 100, FACTS)},
        output_name="out",
        queue_deadline=NOON + 1000.0,
        requirement="needs",
        cost_seconds=1.0,
        extra={} if url is None else {"webhook_url": url},
    )
    await store.create_job(new, max_queue=100_000, now=NOON)


async def fail(store, number=1, now=NOON + 5):
    report = Report(TaskEvent.FAILED, error_code="node_failed", error_message="no")
    return await store.record(f"task-{number}", report, limits=LIMITS, now=now)


async def ended(store, *numbers, now=NOON + 5, **how):
    for number in numbers:
        await create(store, number, **how)
        await fail(store, number, now)


async def mine(store, owner="k-ann", state=None):
    return await store.webhooks.messages(owner, state=state, before=None, limit=100)


async def due(store, now=NOON + 5, **without):
    return await store.webhooks.due(now=now, limit=100, each=2, **without)


def ids(messages):
    return [message.job_id for message in messages]


# ---- the outbox


async def test_job_leaves_its_message_in_the_transaction_that_ends_it(store):
    await create(store)
    assert await due(store, NOON + 999) == []
    await fail(store)
    (message,) = await due(store)
    assert (message.id, message.job_id, message.kind) == ("msg_job-1", "job-1", "job.failed")
    assert (message.owner, message.account, message.url) == ("k-ann", "u-ann", URL)
    assert (message.state, message.attempts, message.next_at) == (MessageState.PENDING, 0, NOON + 5)


async def test_job_that_was_canceled_tells_so(store):
    await create(store)
    await store.request_cancel("job-1", LIVE, now=NOON + 7)
    assert [message.kind for message in await due(store, NOON + 7)] == ["job.canceled"]


async def test_job_whose_time_is_over_tells_so(store):
    await create(store)
    await store.expire_queued(now=NOON + 2000)
    assert [message.kind for message in await due(store, NOON + 2000)] == ["job.failed"]


async def test_job_without_a_url_leaves_nothing(store):
    await ended(store, 1, url=None)
    assert await mine(store) == []
    assert await store.webhooks.next_due() is None


async def test_owner_that_is_no_key_signs_as_itself(store):
    await ended(store, 1, owner="local")
    assert [message.account for message in await due(store)] == ["local"]


async def test_job_that_ends_again_leaves_no_second_message(store):
    await ended(store, 1)
    assert await fail(store) is None
    assert len(await mine(store)) == 1


# ---- what is due


async def test_an_endpoint_with_a_thousand_messages_takes_one_place(store):
    await ended(store, *range(50), url="https://dead.example.net/")
    await ended(store, 99, now=NOON + 6)
    found = await store.webhooks.due(now=NOON + 6, limit=2, each=2)
    assert ids(found) == ["job-0", "job-1", "job-99"]


async def test_endpoints_and_owners_can_be_left_out(store):
    await ended(store, 1)
    await ended(store, 2, url="https://other.example.net/")
    await ended(store, 3, owner="local")
    (first, *_) = await due(store)
    assert ids(await due(store, without_endpoints={first.endpoint})) == ["job-2", "job-3"]
    assert ids(await due(store, without_owners={"k-ann"})) == ["job-3"]
    assert await store.webhooks.next_due(without_owners={"k-ann", "local"}) is None


async def test_what_failed_is_due_again_at_its_time(store):
    await ended(store, 1)
    (message,) = await due(store)
    assert await store.webhooks.record(message, DOWN, Again(NOON + 10), now=NOON + 6)
    assert await due(store, NOON + 9.9) == []
    assert await store.webhooks.next_due() == NOON + 10
    (again,) = await due(store, NOON + 10)
    assert (again.id, again.attempts, again.reason, again.last_at) == (message.id, 1, Reason.UNREACHABLE, NOON + 6)


async def test_what_was_delivered_is_never_due(store):
    await ended(store, 1, 2)
    (message, _) = await due(store)
    await store.webhooks.record(message, OK, Delivered(), now=NOON + 6)
    assert ids(await due(store, NOON + 9e6)) == ["job-2"]
    assert [(m.state.value, m.last_status) for m in await mine(store, state=MessageState.DELIVERED)] == [
        ("delivered", 204)
    ]


async def test_an_attempt_that_is_told_late_changes_nothing(store):
    await ended(store, 1)
    (message,) = await due(store)
    assert await store.webhooks.record(message, DOWN, Again(NOON + 10), now=NOON + 6)
    assert not await store.webhooks.record(message, OK, Delivered(), now=NOON + 7)
    assert not await store.webhooks.record(replace(message, id="msg_nobody"), OK, Delivered(), now=NOON + 7)
    assert [m.state for m in await mine(store)] == [MessageState.PENDING]


async def test_an_endpoint_that_is_let_be_comes_back_with_its_time_or_with_something_new(store):
    await ended(store, 1)
    (message,) = await due(store)
    await store.webhooks.postpone(message.endpoint, until=NOON + 40)
    assert await due(store, NOON + 39) == []
    assert ids(await due(store, NOON + 40)) == ["job-1"]
    await ended(store, 2, now=NOON + 20)
    assert ids(await due(store, NOON + 20)) == ["job-1", "job-2"]


# ---- gone


async def test_gone_disables_an_endpoint_its_owner_s_alone(store):
    await ended(store, 1, 2)
    await ended(store, 3, owner="local")
    first = (await due(store))[0]
    await store.webhooks.record(first, Answer(Reason.ANSWERED, 410), Dead(disables_endpoint=True), now=NOON + 6)
    await ended(store, 4)
    assert ids(await due(store, NOON + 9e6)) == ["job-3"]
    told = {m.job_id: (m.state.value, m.reason.value) for m in await mine(store)}
    assert told == {"job-1": ("dead", "answered"), "job-2": ("dead", "disabled"), "job-4": ("dead", "disabled")}


async def test_to_send_again_enables_the_endpoint_and_begins_the_schedule_anew(store):
    await ended(store, 1, 2)
    first = (await due(store))[0]
    await store.webhooks.record(first, Answer(Reason.ANSWERED, 410), Dead(disables_endpoint=True), now=NOON + 6)
    again = await store.webhooks.redeliver(first.id, "k-ann", now=NOON + 50)
    assert (again.id, again.state, again.attempts, again.next_at) == (first.id, MessageState.PENDING, 0, NOON + 50)
    assert ids(await due(store, NOON + 50)) == ["job-1"]
    await ended(store, 3, now=NOON + 60)
    assert ids(await due(store, NOON + 60)) == ["job-1", "job-3"]


async def test_an_endpoint_that_is_enabled_takes_what_is_new(store):
    await ended(store, 1)
    (first,) = await due(store)
    await store.webhooks.record(first, Answer(Reason.ANSWERED, 410), Dead(disables_endpoint=True), now=NOON + 6)
    await store.webhooks.enable("k-ann", URL)
    await store.webhooks.enable("k-ann", "https://nobody.example.net/")
    await ended(store, 2, now=NOON + 7)
    assert ids(await due(store, NOON + 7)) == ["job-2"]


async def test_nobody_sends_another_s_message_again(store):
    await ended(store, 1)
    assert await store.webhooks.redeliver("msg_job-1", "local", now=NOON) is None
    assert await store.webhooks.redeliver("msg_nobody", "k-ann", now=NOON) is None


async def test_to_send_again_what_waits_keeps_the_count_of_an_attempt_under_way(store):
    await ended(store, 1)
    (message,) = await due(store)
    await store.webhooks.record(message, DOWN, Again(NOON + 3000), now=NOON + 6)
    again = await store.webhooks.redeliver(message.id, "k-ann", now=NOON + 7)
    assert (again.attempts, again.next_at) == (1, NOON + 7)


async def test_lists_are_the_owner_s_newest_first_in_pages(store):
    for number in range(5):
        await ended(store, number, now=NOON + number)
    await ended(store, 9, owner="local")
    assert ids(await mine(store)) == [f"job-{number}" for number in (4, 3, 2, 1, 0)]
    page = await store.webhooks.messages("k-ann", state=None, before="msg_job-3", limit=2)
    assert ids(page) == ["job-2", "job-1"]
    assert await store.webhooks.messages("k-ann", state=None, before="msg_job-9", limit=2) == []


# ---- forgetting


async def test_a_message_goes_with_its_job_and_its_endpoint_after_it(store):
    await ended(store, 1)
    await ended(store, 2, url="https://other.example.net/")
    assert await store.webhooks.sweep() == 0
    await store.purge_job("job-1")
    assert ids(await mine(store)) == ["job-2"]
    assert await store.webhooks.sweep() == 1
    assert ids(await due(store)) == ["job-2"]


async def test_an_owner_that_is_forgotten_leaves_no_url(store):
    await ended(store, 1)
    while (gone := await store.purge_owner("k-ann")).jobs or gone.assets:
        pass
    assert await store.webhooks.next_due() is None
    assert await store.webhooks.sweep() == 0


# ---- secrets


async def test_a_first_secret_is_kept_once(store):
    (first,) = await store.webhooks.add_secret("u-ann", b"one", old_until=None, now=NOON)
    assert (first.sealed, first.expires_at) == (b"one", None)
    assert await store.webhooks.add_secret("u-ann", b"two", old_until=None, now=NOON) == [first]
    assert await store.webhooks.secrets("u-bob", now=NOON) == []


async def test_a_secret_that_is_rotated_signs_until_its_time_is_over(store):
    await store.webhooks.add_secret("u-ann", b"one", old_until=None, now=NOON)
    both = await store.webhooks.add_secret("u-ann", b"two", old_until=NOON + 100, now=NOON)
    assert [(secret.sealed, secret.expires_at) for secret in both] == [(b"two", None), (b"one", NOON + 100)]
    assert len(await store.webhooks.secrets("u-ann", now=NOON + 99.9)) == 2
    assert [secret.sealed for secret in await store.webhooks.secrets("u-ann", now=NOON + 100)] == [b"two"]


async def test_more_secrets_than_may_sign_are_refused_until_one_s_time_is_over(store):
    for number in range(MAX_SECRETS):
        await store.webhooks.add_secret("u-ann", b"%d" % number, old_until=NOON + 100 + number, now=NOON)
    with pytest.raises(ConflictError):
        await store.webhooks.add_secret("u-ann", b"more", old_until=NOON + 200, now=NOON)
    assert (await store.webhooks.secrets("u-ann", now=NOON))[0].sealed == b"%d" % (MAX_SECRETS - 1)
    assert (await store.webhooks.add_secret("u-ann", b"more", old_until=NOON + 300, now=NOON + 101))[
        0
    ].sealed == b"more"
