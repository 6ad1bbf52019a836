"""Deliveries on the whole engine: what is put where and when, what a kill in between costs, and what is kept meanwhile."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from gateway.accounts import Key, Scope, User, hash_of
from gateway.blobs.fetch import UrlFetcher
from gateway.blobs.putting import UrlPutter
from gateway.blobs.sending import GuardedSender
from gateway.delivering import MAX_REFUSALS, Answer, DeliveryState, Named, Reason, Urls
from gateway.engine import bucket_target
from gateway.engine.bucket_target import BucketTarget
from gateway.engine.carrier import MAX_PER_HOST, MAX_PER_OWNER
from gateway.engine.errands import AGAIN_SECONDS
from gateway.errors import (
    ConflictError,
    InvalidInputError,
    LeaseLostError,
    NotFoundError,
    StorageFullError,
    StorageUnreachableError,
)
from gateway.ledger import Purse
from gateway.outbox import REST_SECONDS, SCHEDULE_SECONDS
from gateway.safety import UrlMode, UrlPolicy
from tests.fakes.bucket import MemoryBucket
from tests.fakes.storage import CREATED, DOWN

URL = "https://store.example.net/results/one.png?X-Amz-Signature=secret"
PLACE = "https://store.example.net/results/one.png"


@pytest.fixture
async def carrying(engine):
    """The engine with an upstream, its carrier at work."""
    engine.gpu = engine.new_upstream()
    await engine.start(engine.gpu)
    loop = asyncio.create_task(engine.carrier.run(), name="carrier")
    yield engine
    await engine.carrier.stop()
    await asyncio.gather(loop, return_exceptions=True)


async def job_to(engine, destination, *, owner="local", content=b"image:swapped", settle=True):
    """A job that has succeeded."""
    wish = {} if destination is None else {"deliver_to": await engine.deliveries.wish(destination, owner)}
    job_id = await engine.submit(extra=wish, owner=owner)
    engine.finish(engine.gpu, content)
    await engine.settle() if settle else None
    await engine.until("succeeded", job_id)
    return job_id


async def of(engine, job_id):
    return (await engine.deliveries.of([await engine.job(job_id)])).get(job_id, [])


async def the(engine, job_id):
    (delivery,) = await of(engine, job_id)
    return delivery


async def test_a_result_is_put_to_its_url_at_once_and_an_event_says_so(carrying):
    job_id = await job_to(carrying, Urls((URL,)))
    (put,) = carrying.storage.puts
    assert (put.place, put.data, put.content_type) == (URL, b"image:swapped", "image/png")
    delivery = await the(carrying, job_id)
    assert (delivery.state, delivery.place, delivery.attempts) == (DeliveryState.DELIVERED, PLACE, 1)
    *_, end, uploaded = await carrying.store.events_after(job_id, 0)
    assert (end.kind.value, uploaded.kind.value, uploaded.number) == ("succeeded", "uploaded", end.number + 1)
    assert uploaded.data["place"] == PLACE
    assert (await carrying.job(job_id)).last_event == uploaded.number


async def test_a_job_without_a_destination_is_put_nowhere(carrying):
    job_id = await job_to(carrying, None)
    await carrying.pass_time(100)
    assert carrying.storage.puts == []
    assert await of(carrying, job_id) == []


async def test_a_failed_job_is_put_nowhere(carrying):
    wish = {"deliver_to": await carrying.deliveries.wish(Urls((URL,)), "local")}
    job_id = await carrying.submit(extra=wish)
    await carrying.service.cancel(job_id, "local")
    await carrying.pass_time(100)
    assert carrying.storage.puts == []


async def test_a_place_that_fails_three_times_has_it_once(carrying):
    carrying.storage.script["store.example.net"] = [DOWN, Answer(Reason.ANSWERED, 500), DOWN, CREATED]
    job_id = await job_to(carrying, Urls((URL,)))
    for seconds in SCHEDULE_SECONDS[1:4]:
        await carrying.pass_time(seconds)
    assert carrying.storage.times == [0, 5, 305, 2105]
    assert carrying.storage.there == {URL: b"image:swapped"}
    assert (await the(carrying, job_id)).state is DeliveryState.DELIVERED
    await carrying.pass_time(1e6)
    assert len(carrying.storage.puts) == 4
    assert (await carrying.kinds(job_id)).count("uploaded") == 1


async def test_what_a_url_refuses_is_given_up_soon_and_the_result_is_there_all_the_same(carrying):
    carrying.storage.script["store.example.net"] = [Answer(Reason.ANSWERED, 403)]
    job_id = await job_to(carrying, Urls((URL,)))
    await carrying.pass_time(SCHEDULE_SECONDS[1])
    await carrying.pass_time(SCHEDULE_SECONDS[2])
    await carrying.pass_time(1e5)
    delivery = await the(carrying, job_id)
    assert (delivery.state, delivery.attempts, delivery.last_status) == (DeliveryState.FAILED, MAX_REFUSALS, 403)
    job = await carrying.job(job_id)
    assert job.state.value == "succeeded"
    assert await carrying.blobs.exists(job.results[0].blob)
    failed = (await carrying.store.events_after(job_id, 0))[-1]
    assert (failed.kind.value, failed.data["reason"], failed.data["status"]) == ("upload_failed", "answered", 403)


async def test_a_target_s_refusal_is_tried_by_the_whole_schedule(carrying):
    carrying.storage.add_target("archive")
    carrying.storage.script["archive"] = [Answer(Reason.ANSWERED, 403)]
    job_id = await job_to(carrying, Named("archive"))
    for seconds in SCHEDULE_SECONDS[1:-1]:
        await carrying.pass_time(seconds)
    assert (await the(carrying, job_id)).state is DeliveryState.PENDING
    carrying.storage.script["archive"] = [CREATED]
    await carrying.pass_time(SCHEDULE_SECONDS[-1])
    delivery = await the(carrying, job_id)
    assert delivery.state is DeliveryState.DELIVERED
    assert delivery.place == f"s3://archive-bucket/results/{job_id}/{delivery.file_name}"


async def test_a_process_that_is_killed_between_putting_and_writing_it_down_puts_the_same_again(carrying):
    async def killed(*_, **__):
        await asyncio.Event().wait()

    record = carrying.store.deliveries.record
    carrying.store.deliveries.record = killed
    job_id = await job_to(carrying, Urls((URL,)))
    assert len(carrying.storage.puts) == 1
    await carrying.carrier.stop()
    await carrying.restart()
    carrying.store.deliveries.record = record
    loop = asyncio.create_task(carrying.carrier.run(), name="carrier")
    await carrying.settle()
    assert [put.data for put in carrying.storage.puts] == [b"image:swapped"] * 2
    assert carrying.storage.there == {URL: b"image:swapped"}
    assert (await the(carrying, job_id)).state is DeliveryState.DELIVERED
    # Once it is written, nobody puts it again.
    await carrying.carrier.stop()
    await loop
    await carrying.restart()
    loop = asyncio.create_task(carrying.carrier.run(), name="carrier")
    await carrying.pass_time(1e6)
    assert len(carrying.storage.puts) == 2
    assert (await carrying.kinds(job_id)).count("uploaded") == 1
    await carrying.carrier.stop()
    await loop


async def test_a_result_is_kept_past_its_retention_until_its_delivery_is_over(carrying):
    carrying.storage.script["store.example.net"] = [Answer(Reason.ANSWERED, 503)]
    job_id = await job_to(carrying, Urls((URL,)))
    blob = (await carrying.job(job_id)).results[0].blob
    for seconds in SCHEDULE_SECONDS[1:-1]:
        await carrying.pass_time(seconds)
        await carrying.keeper.sweep()
    assert carrying.clock.monotonic() > 2 * carrying.settings.result_retention
    assert carrying.blobs.stored[blob] == b"image:swapped"
    link = (await carrying.job(job_id)).results[0].link
    with pytest.raises(NotFoundError):  # it is not to be had any more: it only waits
        await carrying.service.result(link)
    await carrying.pass_time(SCHEDULE_SECONDS[-1])
    assert (await the(carrying, job_id)).state is DeliveryState.FAILED
    await carrying.keeper.sweep()
    await carrying.pass_time(4000)
    await carrying.keeper.sweep()
    assert blob not in carrying.blobs.stored
    delivery = await the(carrying, job_id)
    with pytest.raises(ConflictError, match="not kept"):
        await carrying.deliveries.redeliver(delivery.id, "local")


async def test_a_job_is_remembered_until_its_delivery_is_over(engine):
    engine.settings = engine.settings.model_copy(update={"job_retention": 10.0})
    engine.gpu = engine.new_upstream()
    await engine.start(engine.gpu)
    job_id = await job_to(engine, Urls((URL,)))
    await engine.pass_time(100)
    await engine.keeper.sweep()
    assert await engine.job(job_id) is not None
    loop = asyncio.create_task(engine.carrier.run(), name="carrier")
    await engine.settle()
    await engine.keeper.sweep()
    assert await engine.job(job_id) is None
    await engine.carrier.stop()
    await loop


async def test_what_has_been_delivered_is_delivered_no_second_time(carrying):
    job_id = await job_to(carrying, Urls((URL,)))
    with pytest.raises(ConflictError):
        await carrying.deliveries.redeliver((await the(carrying, job_id)).id, "local")
    await carrying.settle()
    assert len(carrying.storage.puts) == 1


async def test_a_target_that_is_gone_waits_for_its_operator(carrying):
    carrying.storage.add_target("archive")
    wish = {"deliver_to": await carrying.deliveries.wish(Named("archive"), "local")}
    del carrying.storage.targets["archive"]
    job_id = await carrying.submit(extra=wish)
    carrying.finish(carrying.gpu)
    await carrying.until("succeeded", job_id)
    delivery = await the(carrying, job_id)
    assert (delivery.state, delivery.reason, delivery.attempts) == (DeliveryState.FAILED, Reason.NO_TARGET, 1)
    carrying.storage.add_target("archive")
    with pytest.raises(NotFoundError):
        await carrying.deliveries.redeliver(delivery.id, "k-eve")
    await carrying.deliveries.redeliver(delivery.id, "local")
    await carrying.settle()
    assert (await the(carrying, job_id)).state is DeliveryState.DELIVERED
    assert [kind for kind in await carrying.kinds(job_id) if "upload" in kind] == ["upload_failed", "uploaded"]


async def test_nobody_sees_another_s_deliveries(carrying):
    await job_to(carrying, Urls((URL,)))
    assert len(await carrying.deliveries.listed("local")) == 1
    assert await carrying.deliveries.listed("k-eve") == []
    assert len(await carrying.deliveries.listed(None)) == 1


async def test_a_purge_takes_deliveries_along(carrying):
    carrying.storage.script["store.example.net"] = [DOWN]
    one, two = [await job_to(carrying, Urls((URL,))) for _ in range(2)]
    await carrying.service.archive.purge_job(one)
    assert [delivery.job_id for delivery in await carrying.deliveries.listed(None)] == [two]
    await carrying.service.archive.purge_owner("local")
    assert await carrying.deliveries.listed(None) == []
    tried = len(carrying.storage.puts)
    await carrying.pass_time(1e6)
    assert len(carrying.storage.puts) == tried


async def test_a_gateway_that_was_taken_over_puts_nothing(carrying):
    carrying.receivers.refusal = LeaseLostError("taken over")
    job_id = await job_to(carrying, Urls((URL,)))
    await carrying.pass_time(1e6)
    assert carrying.storage.puts == []
    assert (await the(carrying, job_id)).state is DeliveryState.PENDING


# ---- what is stored and said


async def test_a_url_is_nowhere_to_be_read(carrying, logged):
    carrying.storage.script["store.example.net"] = [DOWN]
    job_id = await job_to(carrying, Urls((URL,)))
    job = await carrying.job(job_id)
    events = await carrying.store.events_after(job_id, 0)
    told = f"{await of(carrying, job_id)} {[event.data for event in events]} {logged}"
    assert "secret" not in told
    assert "secret" not in str({**job.extra, "deliver_to": {**job.extra["deliver_to"], "urls": []}})
    assert "results/one.png" not in str(logged)


async def test_a_url_sealed_for_another_owner_is_not_opened(carrying):
    wish = await carrying.deliveries.wish(Urls((URL,)), "k-eve")
    job_id = await carrying.submit(extra={"deliver_to": wish})
    carrying.finish(carrying.gpu)
    await carrying.until("succeeded", job_id)
    assert carrying.storage.puts == []
    assert (await the(carrying, job_id)).reason is Reason.INTERNAL


@pytest.mark.parametrize("url", ["http://store.example.net/x", "https://private.example.net/x"])
async def test_a_url_that_leads_where_we_do_not_go_is_refused_with_its_field(carrying, url):
    with pytest.raises(InvalidInputError, match="refused") as refused:
        await carrying.deliveries.wish(Urls((URL, url)), "local", field="gateway.deliver_to")
    assert refused.value.field == "gateway.deliver_to"


async def test_a_target_that_nobody_has_named_is_refused(carrying):
    with pytest.raises(InvalidInputError, match="no such target"):
        await carrying.deliveries.wish(Named("archive"), "local")


# ---- whose word it is


async def give_key(engine, key_id, deliver_to):
    user = User(f"u-{key_id}", key_id, "free", email_verified=False, created_at=0.0)
    key = Key(key_id, user.id, key_id, "cfg_test_12345678", 60, 4, frozenset({Scope.JOBS}), 0.0)
    await engine.store.accounts.create_key(replace(key, deliver_to=deliver_to), hash_of(key_id), new_user=user)
    await engine.store.credits.grant(user.id, Purse.PERMANENT, 100, now=engine.clock.now())


async def test_a_key_s_target_is_where_its_files_go_unless_a_job_says_otherwise(carrying):
    carrying.storage.add_target("archive")
    carrying.storage.add_target("other")
    await give_key(carrying, "k-1", "archive")
    by_key = await job_to(carrying, None, owner="k-1")
    assert (await the(carrying, by_key)).target == "archive"
    by_job = await job_to(carrying, Urls((URL,)), owner="k-1")
    assert (await the(carrying, by_job)).target is None
    assert [delivery.target for delivery in await of(carrying, await job_to(carrying, None))] == []


async def test_a_key_with_a_target_names_no_other(carrying):
    carrying.storage.add_target("archive")
    carrying.storage.add_target("other")
    await give_key(carrying, "k-1", "archive")
    await give_key(carrying, "k-2", None)
    with pytest.raises(InvalidInputError, match="no such target"):
        await carrying.deliveries.wish(Named("other"), "k-1")
    assert await carrying.deliveries.wish(Named("archive"), "k-1")
    assert await carrying.deliveries.wish(Named("other"), "k-2")


async def test_a_template_s_target_is_where_its_files_go_unless_job_or_key_say_otherwise(workflows, carrying):
    for name in ("archive", "other"):
        carrying.storage.add_target(name)
    for path in workflows.glob("faceswap_image*/template.toml"):
        path.write_text(f'deliver_to = "other"\n{path.read_text()}')
    await carrying.catalog.load()
    await give_key(carrying, "k-1", "archive")
    assert (await the(carrying, await job_to(carrying, None))).target == "other"
    assert (await the(carrying, await job_to(carrying, None, owner="k-1"))).target == "archive"
    assert (await the(carrying, await job_to(carrying, Named("archive")))).target == "archive"
    assert (await the(carrying, await job_to(carrying, Urls((URL,))))).target is None


async def test_a_template_that_names_a_target_that_nobody_has_costs_no_result(workflows, carrying):
    for path in workflows.glob("faceswap_image*/template.toml"):
        path.write_text(f'deliver_to = "other"\n{path.read_text()}')
    await carrying.catalog.load()
    job_id = await job_to(carrying, None)
    assert (await the(carrying, job_id)).reason is Reason.NO_TARGET
    assert len((await carrying.job(job_id)).results) == 1


# ---- a bucket


class Files:
    """``held`` of a blob store, over the bytes of a fake, which lie in memory; raises ``failure``, when there is one."""

    def __init__(self, engine, folder):
        self._engine = engine
        self._path = folder / "held"
        self.failure = None

    @asynccontextmanager
    async def held(self, blob_hash):
        if self.failure is not None:
            raise self.failure
        self._path.write_bytes(self._engine.blobs.stored[blob_hash])
        yield self._path


@pytest.fixture
def bucket(carrying, tmp_path):
    made = MemoryBucket(carrying.clock.now)
    carrying.files = Files(carrying, tmp_path)
    carrying.storage.targets["archive"] = BucketTarget("archive", made, carrying.files, carrying.clock)
    return made


async def test_a_bucket_has_the_file_under_its_job_with_type_and_name(carrying, bucket):
    job_id = await job_to(carrying, Named("archive"))
    delivery = await the(carrying, job_id)
    (key,) = bucket.kept
    assert key == f"{job_id}/{delivery.file_name}"
    kept = bucket.kept[key]
    assert (kept.data, kept.content_type, kept.filename) == (b"image:swapped", "image/png", delivery.file_name)
    assert delivery.place == f"s3://memory/{key}"


async def test_a_bucket_that_does_not_answer_gets_it_later_and_its_sentence_is_for_the_log_alone(
    carrying, bucket, logged
):
    bucket.failure = StorageUnreachableError("away", reason="PutObject: AccessDenied", is_refusal=True)
    job_id = await job_to(carrying, Named("archive"))
    delivery = await the(carrying, job_id)
    assert (delivery.state, delivery.reason, delivery.last_status) == (
        DeliveryState.PENDING,
        Reason.UNREACHABLE,
        None,
    )
    assert "AccessDenied" in str(logged)
    bucket.failure = None
    await carrying.pass_time(SCHEDULE_SECONDS[1])
    assert (await the(carrying, job_id)).state is DeliveryState.DELIVERED


async def test_parts_that_a_killed_put_of_the_same_file_left_are_dropped_and_nobody_else_s(
    carrying, bucket, monkeypatch
):
    monkeypatch.setattr(bucket_target, "LEAST_IN_PARTS_BYTES", 5)
    bucket.failure = StorageUnreachableError("away", reason="EndpointConnectionError")
    job_id = await job_to(carrying, Named("archive"))
    key = (await the(carrying, job_id)).key
    bucket.failure = None
    bucket.unfinished = {key: carrying.clock.now(), "others/file.bin": 0.0}
    await carrying.pass_time(SCHEDULE_SECONDS[1])
    assert bucket.unfinished == {"others/file.bin": 0.0}


async def test_a_bucket_in_which_parts_cannot_be_seen_has_the_file_all_the_same(carrying, bucket, monkeypatch):
    monkeypatch.setattr(bucket_target, "LEAST_IN_PARTS_BYTES", 5)
    asking = bucket._ask

    def ask(name, key):
        asking(name, key)
        if name == "abort_unfinished":
            raise StorageUnreachableError("away", reason="AccessDenied", is_refusal=True)

    bucket._ask = ask
    job_id = await job_to(carrying, Named("archive"))
    assert (await the(carrying, job_id)).state is DeliveryState.DELIVERED
    assert ("abort_unfinished", (await the(carrying, job_id)).key) in bucket.asked


async def test_a_disk_that_is_full_costs_no_attempt(carrying, bucket):
    carrying.files.failure = StorageFullError("There is no room left.")
    job_id = await job_to(carrying, Named("archive"))
    assert (await the(carrying, job_id)).attempts == 0
    carrying.files.failure = None
    await carrying.pass_time(AGAIN_SECONDS)
    assert (await the(carrying, job_id)).state is DeliveryState.DELIVERED


async def test_a_file_that_is_gone_is_not_put_into_a_bucket(carrying, bucket):
    carrying.files.failure = FileNotFoundError()
    job_id = await job_to(carrying, Named("archive"))
    assert (await the(carrying, job_id)).reason is Reason.EXPIRED
    assert bucket.kept == {}


# ---- the dead and the living


async def test_one_dead_host_leaves_room_for_others(carrying):
    carrying.storage.black_holes.add("dead.example.net")
    for number in range(MAX_PER_HOST + 3):
        owner = f"owner-{number % 4}"
        await job_to(carrying, Urls((f"https://dead.example.net/{number}",)), owner=owner)
    assert carrying.storage.most_under_way == MAX_PER_HOST
    alive = await job_to(carrying, Urls((URL,)))
    assert (await the(carrying, alive)).state is DeliveryState.DELIVERED


async def test_one_owner_has_a_quarter_of_the_places(carrying):
    for number in range(MAX_PER_OWNER + 2):
        host = f"hole-{number}.example.net"
        carrying.storage.black_holes.add(host)
        await job_to(carrying, Urls((f"https://{host}/",)), owner="k-eve")
    assert carrying.storage.most_under_way == MAX_PER_OWNER
    alive = await job_to(carrying, Urls((URL,)))
    assert (await the(carrying, alive)).state is DeliveryState.DELIVERED


async def test_a_host_that_does_not_answer_rests_and_the_wait_costs_no_attempt(carrying):
    carrying.storage.script["store.example.net"] = [DOWN, DOWN, DOWN, CREATED]
    jobs = [await job_to(carrying, Urls((f"{URL}{number}",))) for number in range(5)]
    assert len(carrying.storage.puts) == 3
    await carrying.pass_time(REST_SECONDS - 1)
    assert len(carrying.storage.puts) == 3
    await carrying.pass_time(1)
    await carrying.pass_time(300)
    states = [(await the(carrying, job_id)).state for job_id in jobs]
    assert states == [DeliveryState.DELIVERED] * 5


# ---- the real guard


class Network:
    """Names as a test says, and nobody at any address; who is dialled is kept."""

    def __init__(self):
        self.addresses = ["93.184.215.14"]
        self.dialled = []

    async def resolve(self, _host, _port):
        return self.addresses

    async def dial(self, address, port, _timeout_seconds):
        self.dialled.append((address, port))
        raise ConnectionRefusedError


@pytest.fixture
async def guarded(carrying):
    """The engine with the guard and the sender of the gateway itself, and a network that leads nowhere."""
    network = carrying.network = Network()
    policy = UrlPolicy.from_settings(UrlMode.PUBLIC, ())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    how = {"policy": lambda: policy, "resolver": network.resolve, "dialer": network.dial, "tls": context}
    carrying.deliveries._guard = UrlFetcher(carrying.blobs, **how)
    carrying.carrier._uploader = UrlPutter(carrying.blobs, GuardedSender(clock=carrying.clock, **how))
    return carrying


@pytest.mark.parametrize("addresses", [["10.0.0.7"], ["127.0.0.1"], ["93.184.215.14", "::1"], ["169.254.169.254"]])
async def test_a_url_whose_name_leads_to_a_private_address_is_refused_at_submission(guarded, addresses):
    guarded.network.addresses = addresses
    with pytest.raises(InvalidInputError, match="leads where we do not go") as refused:
        await guarded.deliveries.wish(Urls((URL,)), "local", field="deliver_to")
    assert refused.value.field == "deliver_to"
    assert guarded.network.dialled == []


@pytest.mark.parametrize(
    "url", ["https://10.0.0.7/x", "https://[::1]/x", "https://127.0.0.1/x", "http://store.example.net/x"]
)
async def test_a_url_that_is_private_by_its_text_is_refused_before_anybody_is_asked(guarded, url):
    guarded.network.resolve = None
    with pytest.raises(InvalidInputError, match="refused"):
        await guarded.deliveries.wish(Urls((url,)), "local")


async def test_a_name_that_leads_to_a_private_address_by_the_second_attempt_is_not_dialled(guarded):
    job_id = await job_to(guarded, Urls((URL,)))
    await guarded.settle()
    assert guarded.network.dialled == [("93.184.215.14", 443)]
    guarded.network.addresses = ["10.0.0.7"]
    await guarded.pass_time(SCHEDULE_SECONDS[1])
    delivery = await the(guarded, job_id)
    assert (delivery.attempts, delivery.reason) == (2, Reason.UNREACHABLE)
    assert guarded.network.dialled == [("93.184.215.14", 443)]


async def test_a_gateway_that_takes_no_urls_puts_nothing_to_any(carrying):
    carrying.deliveries._guard = None
    with pytest.raises(InvalidInputError, match="puts nothing to URLs"):
        await carrying.deliveries.wish(Urls((URL,)), "local")
