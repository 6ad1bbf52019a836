"""What a data directory must hold after a process died in it, wherever it died."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from blake3 import blake3

from gateway.events import EventKind
from gateway.holding import DATABASE
from tests.chaos.crash_points.house import DAY, TURN_SECONDS, TURNS, House
from tests.chaos.crash_points.life import CREDITS, ORDER, Notes
from tests.fakes.upstream import Prompt

ENDED = {"succeeded", "failed", "canceled"}


class Inspection:
    """The next process on the directory."""

    def __init__(self, folder: Path, notes: Notes) -> None:
        self.folder = folder
        self.notes = notes
        self.house = House(folder, notes.now)
        self.house.on_run = self.run  # before it opens: work is given out from then on

    async def inspect(self) -> None:
        """Raises AssertionError."""
        self.require_sound_database()
        await self.house.open()
        try:
            self.require_nothing_half_done()
            await self.require_pool()
            await self.require_template()
            await self.require_files()
            self.require_sound_ledger()
            self.require_sound_outbox()
            self.require_sound_consents()
            self.require_sound_deliveries()
            await self.require_one_order()
            await self.require_all_end()
            await self.require_all_told()
            self.require_sound_ledger()
            self.require_sound_outbox()
            self.require_sound_consents()
            await self.house.deliver()
            assert self.rows("SELECT id FROM deliveries WHERE state <> 'delivered'") == [], "a result went nowhere"
            self.require_sound_deliveries()
            self.require_balance()
            await self.require_nothing_left()
        finally:
            await self.house.close()
        self.require_sound_database()

    # ------------------------------------------------------------------------------------------------ the bytes alone

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        path = self.folder / "data" / DATABASE
        if not path.exists():
            return []
        with closing(sqlite3.connect(path)) as connection:
            return connection.execute(statement).fetchall()

    def require_sound_database(self) -> None:
        assert self.rows("PRAGMA integrity_check") in ([], [("ok",)])
        assert self.rows("PRAGMA foreign_key_check") == []

    def on_disk(self) -> dict[str, Path]:
        root = self.folder / "data" / "blobs"
        return {path.name: path for path in root.glob("??/*")}

    def require_nothing_half_done(self) -> None:
        data = self.folder / "data"
        assert list((data / "blobs" / "parts").iterdir()) == [], "a part was left"
        assert list((data / "scratch").iterdir()) == [], "scratch was left"
        files = self.on_disk()
        for name, path in files.items():
            assert blake3(path.read_bytes()).hexdigest() == name, "a file is not what its name says"
        for name, size in self.rows("SELECT DISTINCT blob, size_bytes FROM assets"):
            assert name in files, "an asset has no bytes"
            assert files[name].stat().st_size == size

    def require_sound_ledger(self) -> None:
        """Purses are the sum of entries; each paid job has its hold, and each ended one the end that befits it."""
        purses = "SELECT user_id, subscription, monthly, permanent FROM purses ORDER BY user_id"
        sums = "SELECT user_id, sum(subscription), sum(monthly), sum(permanent) FROM ledger GROUP BY user_id ORDER BY user_id"
        assert self.rows(purses) == self.rows(sums), "credits came from nowhere, or went there"
        hold = "SELECT 1 FROM ledger WHERE job_id = jobs.id AND kind = 'hold' AND -permanent = credit_cost"
        unheld = f"SELECT id FROM jobs WHERE (credit_cost > 0) <> EXISTS ({hold})"  # noqa: S608 - ours
        assert self.rows(unheld) == [], "a paid job has no hold"
        ends = "SELECT 1 FROM ledger WHERE job_id = jobs.id AND kind IN ('charge', 'refund')"
        open_ended = f"SELECT id FROM jobs WHERE finished_at IS NULL AND EXISTS ({ends})"  # noqa: S608 - ours
        assert self.rows(open_ended) == [], "a hold ended before its job"
        befits = f"{ends} AND kind = CASE state WHEN 'succeeded' THEN 'charge' ELSE 'refund' END"
        unsettled = f"SELECT id FROM jobs WHERE credit_cost > 0 AND finished_at IS NOT NULL AND NOT EXISTS ({befits})"  # noqa: S608 - ours
        assert self.rows(unsettled) == [], "an ended job's hold has not ended as it"
        lost = (
            "SELECT job_id FROM ledger AS held WHERE kind = 'hold' AND job_id NOT IN (SELECT id FROM jobs) AND NOT EXISTS "
            "(SELECT 1 FROM ledger WHERE job_id = held.job_id AND kind IN ('charge', 'refund'))"
        )
        assert self.rows(lost) == [], "a hold without a job"

    def require_sound_outbox(self) -> None:
        """Each job that has ended has its one message, no other has; and each message that waits will be found."""
        message = "SELECT 1 FROM webhook_messages WHERE job_id = jobs.id"
        # In one statement, for jobs end meanwhile. That no job has two is promised by the table.
        wrong = f"SELECT id FROM jobs WHERE (finished_at IS NOT NULL) <> EXISTS ({message})"  # noqa: S608 - ours
        assert self.rows(wrong) == [], "an end is told to nobody, or a job that has not ended"
        first = "(SELECT min(next_at) FROM webhook_messages WHERE endpoint = webhook_endpoints.id)"
        late = f"SELECT id FROM webhook_endpoints WHERE coalesce(next_at > {first}, {first} IS NOT NULL)"  # noqa: S608 - ours
        assert self.rows(late) == [], "a message that waits is never looked for"

    def require_sound_deliveries(self) -> None:
        """Each result of a job that succeeded has its one delivery; of each that is over, its event, and the bytes elsewhere."""
        made = "(SELECT count(*) FROM deliveries WHERE job_id = jobs.id)"
        due = "CASE state WHEN 'succeeded' THEN json_array_length(results) ELSE 0 END"
        wrong = f"SELECT id FROM jobs WHERE {made} <> {due}"  # noqa: S608 - ours
        assert self.rows(wrong) == [], "a result has no delivery, or something else has one"
        over = "(SELECT count(*) FROM deliveries WHERE job_id = jobs.id AND state = 'delivered')"
        told = "(SELECT count(*) FROM events WHERE job_id = jobs.id AND kind = 'uploaded')"
        assert self.rows(f"SELECT id FROM jobs WHERE {over} <> {told}") == [], "a delivery was not told, or twice"  # noqa: S608 - ours
        there = "SELECT place, blob FROM deliveries JOIN assets ON assets.id = asset_id WHERE state = 'delivered'"
        for place, blob in self.rows(there):
            data = (self.house.elsewhere / place.rpartition("/")[2]).read_bytes()
            assert blake3(data).hexdigest() == blob, "what was delivered is something else"

    def require_sound_consents(self) -> None:
        """What was said of a job was begun with it and completed with its end; orders said nothing."""
        ends_alike = "(ended_at IS NULL) = (finished_at IS NULL) AND coalesce(consents.state, jobs.state) = jobs.state"
        record = f"SELECT 1 FROM consents WHERE job_id = jobs.id AND {ends_alike}"  # noqa: S608 - ours
        wrong = f"SELECT id FROM jobs WHERE (dialect <> 'order') <> EXISTS ({record})"  # noqa: S608 - ours
        assert self.rows(wrong) == [], "a consent was lost, or does not know its job's end"
        orphans = "SELECT job_id FROM consents WHERE ended_at IS NULL AND job_id NOT IN (SELECT id FROM jobs)"
        assert self.rows(orphans) == [], "a consent without a job"

    async def require_all_told(self) -> None:
        """What waits in the outbox is sent, once each."""
        house = self.house
        waiting = {name for (name,) in self.rows("SELECT id FROM webhook_messages WHERE state = 'pending'")}
        house.clock.advance(2 * DAY)  # the process that died may have been ahead of its last note
        courier = asyncio.create_task(house.courier.run(), name="courier")
        for _ in range(TURNS):
            if self.rows("SELECT id FROM webhook_messages WHERE state = 'pending'") == []:
                break
            await asyncio.sleep(TURN_SECONDS)
        await house.courier.stop()
        await courier
        told = [delivery.message_id for _, delivery in house.receivers.asked]
        assert sorted(told) == sorted(waiting), "an end was not told, or twice"

    def require_balance(self) -> None:
        """All has ended: what is left of the grant is what did not succeed."""
        charged = self.rows("SELECT count(*) FROM ledger WHERE kind = 'charge'")[0][0]
        for (left,) in self.rows("SELECT permanent FROM purses"):
            assert left == CREDITS - charged, "a job cost something else than its price"

    # --------------------------------------------------------------------------------------------- what was answered

    async def require_one_order(self) -> None:
        """Whoever asks again a minute later gets the same job, or the one that was not made."""
        keys = self.rows("SELECT id FROM api_keys")
        if "order" not in self.notes.asked or not keys or "sweep" in self.notes.asked:
            return
        self.house.clock.advance(60)
        job_id = await self.house.order(keys[0][0], ORDER)
        assert self.notes.answered.get("order", {"job": job_id})["job"] == job_id, "the order was done twice"
        assert len(self.rows(f"SELECT id FROM jobs WHERE output_name = '{ORDER}'")) == 1, "there are two"  # noqa: S608 - ours

    async def require_pool(self) -> None:
        asked, answered = self.notes.asked, self.notes.answered
        body = (await self.house.ask("GET", "/-/upstreams")).json
        shown = {one["name"]: one["draining"] for one in body["upstreams"]}
        for name in ("gpu-1", "gpu-2"):
            if f"remove {name}" in answered:
                assert name not in shown, "an upstream came back"
            elif f"add {name}" in answered and f"remove {name}" not in asked:
                assert name in shown, "an upstream was forgotten"
                assert shown[name] or f"drain {name}" not in answered, "an upstream is no longer drained"

    async def require_template(self) -> None:
        if (said := self.notes.answered.get("edit")) is not None:
            assert await self.house.store.template("faceswap_image", said["version"]) is not None

    async def require_files(self) -> None:
        for what, said in self.notes.answered.items():
            verb, _, name = what.partition(" ")
            if verb == "finish" and f"purge {name}" not in self.notes.asked and "sweep" not in self.notes.asked:
                answer = await self.house.ask("GET", said["url"])
                assert (answer.status, answer.body) == (200, said["content"].encode()), "a result was lost"
            if verb == "purge":
                assert (await self.house.ask("GET", self.notes.answered[f"finish {name}"]["url"])).status == 404
                assert await self.house.state(self.notes.answered[f"submit {name}"]["job"]) == "answer 404"

    async def require_all_end(self) -> None:
        """Every job ends as it must, once; none that was acknowledged is missing."""
        await self.give_all_a_chance()
        states = dict(self.rows("SELECT id, state FROM jobs"))
        assert set(states.values()) <= ENDED, "a job does not end"
        for what, said in self.notes.answered.items():
            verb, _, name = what.partition(" ")
            if verb != "submit" or f"purge {name}" in self.notes.asked:
                continue
            assert said["job"] in states, "an acknowledged job is gone"
            if f"cancel {name}" in self.notes.answered:
                assert states[said["job"]] == "canceled", "an acknowledged cancel was forgotten"
            elif f"cancel {name}" not in self.notes.asked:
                assert states[said["job"]] == "succeeded", "an acknowledged job failed"
        for job_id in states:
            events = await self.house.store.events_after(job_id, 0)
            assert [event.number for event in events] == list(range(1, len(events) + 1))
            ends = [event.is_terminal for event in events if event.kind is not EventKind.UPLOADED]
            assert ends == [False] * (len(ends) - 1) + [True]

    def run(self, prompt: Prompt) -> None:
        prompt.start()
        prompt.succeed(self.house.result_node(), f"image:after all {prompt.job_id}".encode())

    async def give_all_a_chance(self) -> None:
        """Upstreams that do what they are asked, and time."""
        house = self.house
        if "gpu-1" not in house.upstreams:
            body = json.dumps({"url": "http://gpu-1:8188", "name": "gpu-1"}).encode()
            await house.ask("POST", "/-/upstreams", body, content_type="application/json", **house.admin)

        house.dispatcher.wake()
        for (job_id,) in self.rows("SELECT id FROM jobs"):
            house.clock.advance(7)
            await house.until_row_ends(job_id)

    async def require_nothing_left(self) -> None:
        """Once all retention is over the sweep leaves only what the store knows of, and at last nothing."""
        house = self.house
        for days in (2, 40):
            house.clock.advance(days * DAY)
            await house.keeper.sweep()
            await house.keeper.sweep_strays()
            known = {name for (name,) in self.rows("SELECT hash FROM blobs")}
            assert set(self.on_disk()) == known == set(), "bytes were left"
        assert self.rows("SELECT id FROM jobs") == [], "a job was left"
        assert self.rows("SELECT id FROM assets") == [], "an asset was left"
        kept = self.rows("SELECT count(*) FROM consents")[0][0]
        assert kept >= len(self.notes.answered.keys() & {f"submit {name}" for name in ("first", "fourth", "paid")})
        house.clock.advance(366 * DAY)
        await house.keeper.sweep()
        assert self.rows("SELECT job_id FROM consents") == [], "a consent was left"
