"""Where files go, when they are tried again, what they are called there."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit import MediaFacts, MediaKind
from gateway.delivering import (
    MAX_FILE_NAME,
    MAX_REFUSALS,
    MAX_URLS,
    Answer,
    Chosen,
    Delivery,
    DeliveryState,
    Named,
    Reason,
    Upload,
    Urls,
    file_names,
    is_by_its_client,
    judge,
    planned,
    read_destination,
    sealed_url,
    shown_place,
    shown_wish,
    to_named,
    to_urls,
)
from gateway.errors import InvalidInputError
from gateway.job import Job, JobResult, JobState
from gateway.outbox import MAX_ATTEMPTS, MAX_RETRY_AFTER_SECONDS, SCHEDULE_SECONDS, Again, Dead, Delivered

NOW = 1_750_248_000.0
FACTS = MediaFacts(MediaKind.IMAGE, "image/png", ".png", 4, 4, 1, None, None, has_audio=False, video_codec=None)
URL = "https://store.example.net/a/b.png?X-Amz-Signature=secret"
WAITING = Delivery(
    "dlv_1",
    "job",
    "local",
    0,
    "asset",
    "a.png",
    None,
    "store.example.net:443",
    None,
    DeliveryState.PENDING,
    0,
    NOW,
    NOW,
)
TO_TARGET = replace(WAITING, target="archive", host="target:archive")


def job_with(*names, extra=None, output_name="holiday"):
    results = tuple(
        JobResult(f"asset-{number}", "b" * 64, 5, FACTS, f"{output_name}_{number:032}.png", name=name)
        for number, name in enumerate(names)
    )
    return Job(
        "job", "local", "ann", "faceswap", "face_swap", "t", "v", JobState.SUCCEEDED, 0, {}, {}, output_name, NOW, NOW, NOW,
        results=results, extra=extra or {},
    )  # fmt: skip


def to_two():
    return {"deliver_to": to_urls(["aa", "bb"], ["https://h/1", "https://h/2"], ["h:443", "h:443"])}


def answered(status, after=None):
    return Answer(Reason.ANSWERED, status, after)


def judged(answer, attempts=0, delivery=WAITING):
    return judge(replace(delivery, attempts=attempts), answer, NOW, lambda: 0.5)


# ---- the schedule


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_what_was_taken_is_delivered(status):
    assert judged(answered(status)) == Delivered()


@pytest.mark.parametrize(
    "answer", [answered(500), answered(429), answered(408), answered(425), Answer(Reason.TIMED_OUT)]
)
def test_what_may_pass_is_tried_by_the_whole_schedule(answer):
    for made in range(MAX_ATTEMPTS - 1):
        assert judged(answer, made) == Again(NOW + SCHEDULE_SECONDS[made + 1])
    assert judged(answer, MAX_ATTEMPTS - 1) == Dead()


@pytest.mark.parametrize("status", [301, 307, 400, 403, 404, 410])
def test_what_a_url_refuses_is_tried_a_few_times(status):
    verdicts = [judged(answered(status), made) for made in range(MAX_REFUSALS)]
    assert [type(verdict) for verdict in verdicts] == [Again] * (MAX_REFUSALS - 1) + [Dead]


@pytest.mark.parametrize("status", [301, 403, 404])
def test_what_a_target_refuses_is_tried_by_the_whole_schedule(status):
    assert isinstance(judged(answered(status), MAX_ATTEMPTS - 2, TO_TARGET), Again)
    assert judged(answered(status), MAX_ATTEMPTS - 1, TO_TARGET) == Dead()


@pytest.mark.parametrize("reason", [Reason.NO_TARGET, Reason.EXPIRED, Reason.INTERNAL])
def test_what_no_attempt_can_mend_is_given_up_at_once(reason):
    assert judged(Answer(reason), 0, TO_TARGET) == Dead()


@given(st.floats(0, 1e9), st.integers(0, MAX_ATTEMPTS - 2), st.floats(0, 1))
def test_patience_is_kept_up_to_a_day_and_never_cut_short(after, made, chance):
    verdict = judge(replace(WAITING, attempts=made), answered(503, after), NOW, lambda: chance)
    assert isinstance(verdict, Again)
    delay = verdict.at - NOW
    assert delay >= min(after, MAX_RETRY_AFTER_SECONDS) - 1e-6
    assert delay <= max(1.1 * SCHEDULE_SECONDS[made + 1], MAX_RETRY_AFTER_SECONDS) + 1e-6


# ---- what clients say


def test_a_name_a_url_and_several_are_told_apart():
    assert read_destination(None, "f") is None
    assert read_destination("archive", "f") == Named("archive")
    assert read_destination(URL, "f") == Urls((URL,))
    assert read_destination([URL, URL], "f") == Urls((URL, URL))


@pytest.mark.parametrize(
    "value", ["", "Archive", "../x", "a b", "x" * 33, 5, True, {}, [], [1], [URL] * (MAX_URLS + 1), "s3:/x", "ärchiv"]
)
def test_what_is_neither_is_refused_with_its_field(value):
    with pytest.raises(InvalidInputError) as refused:
        read_destination(value, "gateway.deliver_to")
    assert refused.value.field == "gateway.deliver_to"


def test_urls_are_not_printed():
    assert "secret" not in f"{Urls((URL,))!r} {Upload(URL, 'b', 1, 'image/png', 'a.png')!r}"


def test_of_a_url_host_and_path_are_shown():
    assert shown_place(URL) == "https://store.example.net/a/b.png"


# ---- what is planned


def test_each_output_has_its_url_and_what_is_surplus_says_so():
    one, two, three = planned(job_with(None, "b.png", "c.png", extra=to_two()), NOW)
    assert [one.place, two.place, three.place] == ["https://h/1", "https://h/2", None]
    assert [one.state, two.state] == [DeliveryState.PENDING] * 2
    assert (three.state, three.reason, three.next_at) == (DeliveryState.FAILED, Reason.NO_URL, None)
    assert len({one.id, two.id, three.id}) == 3


def test_a_target_takes_every_output_below_its_job():
    job = job_with("a.png", "b.png", extra={"deliver_to": to_named("archive", Chosen.KEY)})
    assert [delivery.key for delivery in planned(job, NOW)] == ["job/a.png", "job/b.png"]
    assert {delivery.host for delivery in planned(job, NOW)} == {"target:archive"}
    assert shown_wish(job) == "archive"
    assert not is_by_its_client(job)


def test_a_job_without_a_destination_has_no_deliveries():
    assert planned(job_with("a.png"), NOW) == ()
    assert shown_wish(job_with()) is None


def test_what_is_kept_of_urls_shows_no_query():
    job = job_with("a.png", extra=to_two())
    assert shown_wish(job) == ["https://h/1", "https://h/2"]
    assert [sealed_url(job, position) for position in range(3)] == ["aa", "bb", None]
    assert is_by_its_client(job)


# ---- names


def test_a_name_never_holds_the_link_that_opens_the_file():
    assert file_names(job_with(None)) == ("holiday.png",)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("cat.png", "cat.png"),
        ("../../etc/passwd", "passwd.png"),
        ("a\\b\\c.png", "c.png"),
        (".ssh", "ssh.png"),
        ("..", "output.png"),
        ("nul\x00l.png", "nul_l.png"),
        ("Bäume 1.png", "B_ume_1.png"),
    ],
)
def test_a_name_is_made_harmless(name, wanted):
    assert file_names(job_with(name)) == (wanted,)


@given(st.lists(st.text(max_size=150), max_size=8))
def test_names_are_always_harmless_and_no_two_alike(names):
    made = file_names(job_with(*names))
    assert len({name.lower() for name in made}) == len(names)
    for name in made:
        assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name)
        assert name.endswith(".png")
        assert len(name) <= MAX_FILE_NAME + 8 * len("8-")


def test_names_that_differ_in_case_alone_are_told_apart():
    assert file_names(job_with("a.png", "A.png", "3-a.png", "a.png")) == ("a.png", "2-A.png", "3-a.png", "4-a.png")
