"""Webhooks on the whole engine: what is sent when, to whom, and what the dead cost the living."""

from __future__ import annotations

import asyncio

import pytest

from gateway.engine.courier import MAX_DOUBTED, MAX_PER_ENDPOINT, MAX_PER_OWNER, host_of
from gateway.errors import BusyError, LeaseLostError, NotFoundError
from gateway.holding import Keeper
from gateway.lease import Timing
from gateway.outbox import REST_SECONDS, SCHEDULE_SECONDS, Answer, MessageState, Reason
from gateway.store.queries.leases import Claim
from gateway.store.sql_store import SqlStore
from tests.fakes.receivers import DOWN, OK, TIMEOUT_SECONDS

URL = "https://hooks.example.net/in?token=secret"


@pytest.fixture
async def post(engine):
    """The engine without an upstream, its courier at work."""
    await engine.start()
    loop = asyncio.create_task(engine.courier.run(), name="courier")
    yield engine
    await engine.courier.stop()
    await asyncio.gather(loop, return_exceptions=True)


async def end(engine, url=URL, *, settle=True, **who):
    """A job that ends at once."""
    job_id = await engine.submit(extra={"webhook_url": url}, settle=False, **who)
    await engine.service.cancel(job_id, who.get("owner", "local"))
    if settle:
        await engine.settle()
    return job_id


async def states(engine, owner="local"):
    return [(m.state.value, m.attempts) for m in await engine.webhooks.messages(owner, limit=500)]


async def test_the_end_of_a_job_is_told_at_once(post):
    job_id = await end(post)
    ((at, delivery),) = post.receivers.asked
    assert at == 0
    assert (delivery.message_id, delivery.url, delivery.body) == (f"msg_{job_id}", URL, job_id.encode())
    assert delivery.unix_seconds == int(post.clock.now())
    assert await states(post) == [("delivered", 1)]


async def test_a_job_without_a_url_tells_nobody(post):
    job_id = await post.submit(settle=False)
    await post.service.cancel(job_id, "local")
    await post.pass_time(100)
    assert post.receivers.asked == []


async def test_a_receiver_that_is_down_three_times_gets_it_the_fourth_time_under_the_same_id(post):
    post.receivers.script["hooks.example.net"] = [DOWN, Answer(Reason.ANSWERED, 500), DOWN, OK]
    await end(post)
    for seconds in SCHEDULE_SECONDS[1:4]:
        await post.pass_time(seconds)
    assert post.receivers.times("hooks.example.net") == [0, 5, 305, 2105]
    assert len({delivery.message_id for _, delivery in post.receivers.asked}) == 1
    assert len({delivery.unix_seconds for _, delivery in post.receivers.asked}) == 4
    assert await states(post) == [("delivered", 4)]
    await post.pass_time(1e6)
    assert len(post.receivers.asked) == 4


async def test_what_is_never_answered_is_tried_by_the_whole_schedule_and_kept_as_a_dead_letter(post):
    post.receivers.script["hooks.example.net"] = [DOWN]
    await end(post)
    at = [0.0]
    for seconds in SCHEDULE_SECONDS[1:]:
        await post.pass_time(seconds - 0.5)
        assert len(post.receivers.asked) == len(at)
        await post.pass_time(0.5)
        at.append(at[-1] + seconds)
    assert post.receivers.times("hooks.example.net") == at
    assert await states(post) == [("dead", 10)]
    await post.pass_time(1e6)
    assert len(post.receivers.asked) == 10


async def test_a_receiver_that_asks_for_patience_gets_it(post):
    post.receivers.script["hooks.example.net"] = [Answer(Reason.ANSWERED, 503, 3600.0), OK]
    await end(post)
    await post.pass_time(3599)
    assert len(post.receivers.asked) == 1
    await post.pass_time(1)
    assert await states(post) == [("delivered", 2)]


async def test_gone_is_asked_nothing_more_until_its_owner_says_so(post):
    post.receivers.script["hooks.example.net"] = [Answer(Reason.ANSWERED, 410), OK]
    first = await end(post)
    await end(post)
    await post.pass_time(1e6)
    assert len(post.receivers.asked) == 1
    assert [state for state, _ in await states(post)] == ["dead", "dead"]
    await post.webhooks.redeliver(f"msg_{first}", "local")
    await post.settle()
    assert [delivery.message_id for _, delivery in post.receivers.asked] == [f"msg_{first}"] * 2
    assert [m.job_id for m in await post.webhooks.messages("local", state=MessageState.DELIVERED)] == [first]


async def test_nobody_has_another_s_message_sent_again(post):
    job_id = await end(post)
    with pytest.raises(NotFoundError):
        await post.webhooks.redeliver(f"msg_{job_id}", "k-eve")
    assert len(post.receivers.asked) == 1


async def test_what_is_left_by_a_killed_process_is_sent_by_the_next(engine):
    await engine.start()
    job_id = await end(engine)  # no courier runs
    assert engine.receivers.asked == []
    await engine.restart()
    loop = asyncio.create_task(engine.courier.run(), name="courier")
    await engine.settle()
    assert [delivery.message_id for _, delivery in engine.receivers.asked] == [f"msg_{job_id}"]
    await engine.courier.stop()
    await loop


async def test_what_was_under_way_when_a_process_died_is_sent_again_under_the_same_id(engine):
    engine.receivers.black_holes.add("hooks.example.net")
    await engine.start()
    await end(engine)
    for _ in range(2):
        loop = asyncio.create_task(engine.courier.run(), name="courier")
        await engine.settle()
        await engine.courier.stop()
        await loop
        await engine.restart()
    assert len(engine.receivers.asked) == 2
    assert len({delivery.message_id for _, delivery in engine.receivers.asked}) == 1
    assert await states(engine) == [("pending", 0)]


# ---- the dead and the living


async def test_a_hundred_black_holes_do_not_hold_up_one_that_answers(post):
    holes = {f"hole-{number}.example.net" for number in range(100)}
    post.receivers.black_holes |= holes
    for host in sorted(holes):
        await end(post, f"https://{host}/in", settle=False)
    await post.settle()
    await post.settle()
    await end(post)
    await post.settle()
    assert post.receivers.timed_out == 0
    assert post.receivers.times("hooks.example.net") == [0]
    assert await states(post) == [("delivered", 1), *[("pending", 0)] * 100]


async def test_a_dead_endpoint_with_many_messages_takes_two_places(post):
    post.receivers.black_holes.add("dead.example.net")
    for _ in range(20):
        await end(post, "https://dead.example.net/in", settle=False)
    await end(post)
    assert post.receivers.most_under_way <= MAX_PER_ENDPOINT + 1
    assert post.receivers.times("hooks.example.net") == [0]


@pytest.fixture
async def resting(post):
    """A host that did not answer three times in a row, at as many endpoints; one more message waits for it."""
    post.receivers.script["dead.example.net"] = [DOWN]
    for number in range(3):
        await end(post, f"https://dead.example.net/{number}")
    assert post.receivers.times("dead.example.net") == [0, 0, 0]
    await end(post, "https://dead.example.net/3")
    return post


async def test_a_host_that_does_not_answer_is_let_be_and_the_wait_costs_no_attempt(resting):
    for _ in range(5):
        await resting.pass_time(5.9)
    assert len(resting.receivers.asked) == 3
    assert sorted(attempts for _, attempts in await states(resting)) == [0, 1, 1, 1]


async def test_after_its_rest_a_host_is_asked_by_one_message_alone(resting):
    resting.receivers.black_holes.add("dead.example.net")
    await resting.pass_time(REST_SECONDS)
    await resting.pass_time(TIMEOUT_SECONDS - 1)
    assert len(resting.receivers.asked) == 4
    await resting.pass_time(1)  # in vain: it rests twice as long
    await resting.pass_time(2 * REST_SECONDS - 1)
    assert len(resting.receivers.asked) == 4


async def test_a_host_that_answers_again_gets_everything(resting):
    resting.receivers.script["dead.example.net"] = [OK]
    await resting.pass_time(REST_SECONDS)
    await resting.pass_time(6)
    assert [state for state, _ in await states(resting)] == ["delivered"] * 4


async def test_errors_that_are_answered_let_no_host_rest(post):
    post.receivers.script["hooks.example.net"] = [Answer(Reason.ANSWERED, 500)]
    for number in range(10):
        await end(post, f"https://hooks.example.net/{number}")
    assert len(post.receivers.asked) == 10


async def test_one_owner_s_black_holes_leave_room_for_others(post):
    for number in range(MAX_PER_OWNER + 40):
        post.receivers.black_holes.add(f"hole-{number}.example.net")
        await end(post, f"https://hole-{number}.example.net/in", owner="k-eve", settle=False)
    await post.settle()
    assert len(post.receivers.asked) == MAX_PER_OWNER
    await end(post)
    assert post.receivers.times("hooks.example.net") == [0]
    assert MAX_DOUBTED < MAX_PER_OWNER


# ---- whose directory it is


async def test_a_gateway_that_was_taken_over_sends_nothing(post):
    post.receivers.refusal = LeaseLostError("taken over")
    await end(post)
    await post.pass_time(1e6)
    assert post.receivers.asked == []
    assert await states(post) == [("pending", 0)]


async def test_the_lease_itself_keeps_a_former_holder_from_sending(engine):
    await engine.store.close()
    engine.store = SqlStore.in_memory(claim=Claim("data_dir", "first", seal=lambda: None))
    await engine.start()
    await end(engine)
    await engine.webhooks.new_secret("local")  # else making one is refused already
    keeper = Keeper(engine.store, engine.clock, Timing(), taken_at=engine.clock.monotonic())
    engine.courier._may_act = keeper.verified
    raising = asyncio.create_task(keeper.run(), name="lease")
    new = SqlStore.in_memory(claim=Claim("data_dir", "second", seal=lambda: None), beside=engine.store)
    engine.clock.advance(30)  # it was stopped, and is woken
    await engine.courier.run()
    raising.cancel()
    await asyncio.gather(raising, return_exceptions=True)
    assert engine.receivers.asked == []
    assert len(await new.webhooks.due(now=engine.clock.now(), limit=9, each=9)) == 1


async def test_a_gateway_that_is_not_sure_waits(post):
    post.receivers.refusal = BusyError("not just now")
    await end(post)
    assert post.receivers.asked == []
    post.receivers.refusal = None
    await post.pass_time(5)
    assert await states(post) == [("delivered", 1)]


# ---- trouble of our own


async def test_a_body_that_cannot_be_made_counts_as_an_attempt(post, logged):
    def broken(job):
        raise ValueError(job.id)

    post.courier._tell = broken
    await end(post)
    assert await states(post) == [("pending", 1)]
    assert post.receivers.asked == []
    assert [entry["event"] for entry in logged if entry["log_level"] == "error"] == ["webhook_body_failed"]


async def test_a_store_that_fails_for_a_while_stops_nothing_for_good(post, logged, monkeypatch):
    good = post.store.webhooks.record
    monkeypatch.setattr(post.store.webhooks, "record", None)
    await end(post)
    monkeypatch.setattr(post.store.webhooks, "record", good)
    await post.pass_time(5)
    assert await states(post) == [("delivered", 1)]
    assert any(entry["event"] == "webhook_failed" for entry in logged)


async def test_a_message_goes_with_a_job_that_is_purged(post):
    post.receivers.script["hooks.example.net"] = [DOWN, OK]
    job_id = await end(post)
    await post.store.purge_job(job_id)
    await post.pass_time(1e4)
    assert len(post.receivers.asked) == 1
    assert await states(post) == []


# ---- what the log may hold


async def test_the_log_holds_the_host_alone(post, logged):
    job_id = await end(post, "https://hooks.example.net:8443/path-of-mine?token=secret")
    (told,) = [entry for entry in logged if entry["event"] == "webhook_attempt"]
    assert told["host"] == "hooks.example.net:8443"
    assert not {"path-of-mine", "secret", job_id} & set(" ".join(map(str, told.values())).replace("/", " ").split())
    assert "path-of-mine" not in str(told)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://a.example.net/x", "a.example.net:443"),
        ("http://a.example.net/x", "a.example.net:80"),
        ("https://[::1]:99999/", ""),
    ],
)
def test_host_of_a_url(url, host):
    assert host_of(url) == host


# ---- secrets and trials


async def test_messages_are_signed_with_a_secret_that_is_made_when_first_needed(post):
    await end(post)
    await end(post)
    first, second = (delivery.secrets for _, delivery in post.receivers.asked)
    assert first == second
    assert len(first[0]) == 32


async def test_a_new_secret_signs_beside_the_one_before_it_for_a_day(post):
    await end(post)
    told = await post.webhooks.new_secret("local")
    assert told.text.startswith("whsec_")
    assert told.text not in repr(told)
    await end(post)
    await post.pass_time(86_399)
    await end(post)
    await post.pass_time(1)
    await end(post)
    old, both, still, new = (delivery.secrets for _, delivery in post.receivers.asked)
    assert both == still == (*new, *old)
    assert told.previous_until == post.clock.now()


async def test_a_first_secret_has_none_before_it(post):
    assert (await post.webhooks.new_secret("local")).previous_until is None


async def test_secrets_that_cannot_be_opened_any_more_are_replaced(post, logged):
    await post.store.webhooks.add_secret("local", b"other:key", old_until=None, now=post.clock.now())
    await end(post)
    assert await states(post) == [("delivered", 1)]
    assert any(entry["event"] == "webhook_secrets_unreadable" for entry in logged)


async def test_a_trial_is_one_attempt_that_leaves_nothing(post):
    post.receivers.script["hooks.example.net"] = [Answer(Reason.ANSWERED, 500)]
    message_id, answer = await post.webhooks.test("local", "local", URL, lambda now: b"%d" % now)
    assert message_id.startswith("msg_test_")
    assert answer.status == 500
    await post.pass_time(1e5)
    assert len(post.receivers.asked) == 1
    assert await states(post) == []


async def test_a_trial_that_is_taken_enables_an_endpoint_again(post):
    post.receivers.script["hooks.example.net"] = [Answer(Reason.ANSWERED, 410), OK]
    await end(post)
    await post.webhooks.test("local", "local", URL, lambda _: b"x")
    await end(post)
    assert [state for state, _ in await states(post)] == ["delivered", "dead"]
