"""Which URLs and files are taken, and what arrives at a receiver on loopback that fails as storages do."""

from __future__ import annotations

import hashlib
import socket
import tracemalloc

import pytest

from comfy_nodes import uploading
from comfy_nodes.uploading import FAILED, UPLOADED, RefusedUrlError, Target, check_file, check_url, send
from tests.fakes.put_receiver import Receiver

LISTED = {uploading.HOSTS_VARIABLE: "Bucket.example.com, store.example.com:9000 [2001:db8::1]"}
LOOPBACK = {uploading.HOSTS_VARIABLE: "127.0.0.1:9000", uploading.LOOPBACK_VARIABLE: "1"}


@pytest.mark.parametrize(
    ("url", "target"),
    [
        (
            "https://bucket.example.com/a/b.mp4?X-Sig=1&x=2",
            Target(True, "bucket.example.com", 443, "/a/b.mp4?X-Sig=1&x=2"),
        ),
        ("https://BUCKET.example.com:443", Target(True, "bucket.example.com", 443, "/")),
        ("https://store.example.com:9000/k", Target(True, "store.example.com", 9000, "/k")),
        ("https://[2001:db8::1]/k", Target(True, "2001:db8::1", 443, "/k")),
    ],
)
def test_what_is_listed_may_be_called(url, target):
    assert check_url(url, LISTED) == target


@pytest.mark.parametrize(
    "url",
    [
        "",
        None,
        7,
        "bucket.example.com/k",
        "//bucket.example.com/k",
        "http://bucket.example.com/k",
        "ftp://bucket.example.com/k",
        "file:///etc/passwd",
        "https:///k",
        "https://bucket.example.com:8443/k",
        "https://bucket.example.com:99999/k",
        "https://store.example.com/k",
        "https://other.example.com/k",
        "https://bucket.example.com.evil.example/k",
        "https://evil.example/bucket.example.com",
        "https://user@bucket.example.com/k",
        "https://bucket.example.com@evil.example/k",
        "https://bucket.example.com:443@evil.example/k",
        "https://bucket.example.com\\@evil.example/k",
        "https://bucket.example.com/k#part",
        "https://bucket.example.com/k\r\nHost: evil.example",
        "https://bucket.example.com/k k",
        "https://bucket.example.com/\u00e9",
        "https://bucket.example.com./k",
        "https://169.254.169.254/latest",
        "http://127.0.0.1:9000/k",
        "https://bucket.example.com/" + "k" * uploading.MAX_URL_CHARACTERS,
    ],
)
def test_nothing_else_is(url):
    with pytest.raises(RefusedUrlError) as told:
        check_url(url, LISTED)
    assert "evil" not in str(told.value)


def test_without_a_list_nothing_is_called_and_the_sentence_says_what_to_set():
    with pytest.raises(RefusedUrlError, match=uploading.HOSTS_VARIABLE):
        check_url("https://bucket.example.com/k", {})


def test_http_is_for_tests_on_this_machine():
    assert check_url("http://127.0.0.1:9000/k", LOOPBACK).port == 9000
    for environment in (
        {uploading.HOSTS_VARIABLE: "127.0.0.1:9000"},
        {**LOOPBACK, uploading.LOOPBACK_VARIABLE: "yes"},
        {**LOOPBACK, uploading.HOSTS_VARIABLE: "127.0.0.1"},
    ):
        with pytest.raises(RefusedUrlError):
            check_url("http://127.0.0.1:9000/k", environment)
    with pytest.raises(RefusedUrlError, match="https"):
        check_url("http://10.0.0.5:9000/k", {**LOOPBACK, uploading.HOSTS_VARIABLE: "10.0.0.5:9000"})


def test_files_of_the_given_folders_are_taken_and_no_others(tmp_path):
    output, outside = tmp_path / "output", tmp_path / "secret.txt"
    (output / "gateway").mkdir(parents=True)
    (output / "gateway" / "out.mp4").write_bytes(b"x")
    outside.write_text("not yours")
    (output / "link.mp4").symlink_to(outside)
    roots = [str(output)]
    assert check_file(str(output / "gateway" / "out.mp4"), roots) == str(output / "gateway" / "out.mp4")
    for path in (
        outside,
        output / ".." / "secret.txt",
        output / "link.mp4",
        output,
        output / "gateway",
        output / "missing.mp4",
        "/etc/passwd",
        "/dev/zero",
    ):
        with pytest.raises(RefusedUrlError):
            check_file(str(path), roots)


# ---- sending


@pytest.fixture
def receiver():
    with Receiver() as made:
        yield made


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "out.mp4"
    path.write_bytes(bytes(range(256)) * 9000)
    return path


def target_of(receiver):
    return Target(False, "127.0.0.1", receiver.port, "/bucket/key?X-Signature=s3cret")


class Waits:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self, seconds):
        self.seconds += seconds


def test_what_was_sent_is_what_arrived(receiver, file):
    ticks = []
    sent = send(
        str(file), target_of(receiver), content_type="video/mp4", on_tick=lambda done, of: ticks.append((done, of))
    )
    data = file.read_bytes()
    assert sent == (UPLOADED, len(data), hashlib.sha256(data).hexdigest(), "")
    [(_, path, headers, size, digest)] = receiver.got
    assert (path, size, digest) == ("/bucket/key?X-Signature=s3cret", len(data), sent.sha256)
    assert headers["Content-Type"] == "video/mp4"
    assert headers["Content-Length"] == str(len(data))
    assert "Transfer-Encoding" not in headers
    assert ticks[-1] == (len(data), len(data))


@pytest.mark.parametrize("failures", [[503], [500, 429], [503, 502, 504], ["drop"], ["drop", 503]])
def test_a_storage_that_fails_and_comes_back_gets_it_once_and_whole(receiver, file, failures):
    receiver.answers = list(failures)
    waits = Waits()
    sent = send(str(file), target_of(receiver), sleep=waits)
    assert (sent.status, sent.reason) == (UPLOADED, "")
    assert [got[4] for got in receiver.got if got[0] == 200] == [sent.sha256]
    assert waits.seconds == pytest.approx(sum(uploading.WAIT_SECONDS[: len(failures)]))


def test_one_that_does_not_come_back_is_left_after_four_tries(receiver, file):
    receiver.answers = [503] * 9
    sent = send(str(file), target_of(receiver), sleep=Waits())
    assert sent == (FAILED, file.stat().st_size, "", "the storage answered with status 503")
    assert len(receiver.got) == 4


@pytest.mark.parametrize("status", [301, 307, 400, 403, 404])
def test_what_will_not_go_better_is_not_tried_again_and_no_redirect_is_followed(receiver, file, status):
    receiver.answers = [status]
    sent = send(str(file), target_of(receiver), sleep=Waits())
    assert sent == (FAILED, file.stat().st_size, "", f"the storage answered with status {status}")
    assert [got[1] for got in receiver.got] == ["/bucket/key?X-Signature=s3cret"]


def test_a_refusal_that_comes_before_the_whole_file_went_is_heard_and_tried_once(receiver, tmp_path):
    large = tmp_path / "large"
    with large.open("wb") as written:
        written.truncate(64 * 1024**2)  # more than lies between the two
    receiver.answers = ["refuse", "refuse"]
    sent = send(str(large), target_of(receiver), sleep=pytest.fail)
    assert (sent.status, sent.reason) == (FAILED, "the storage answered with status 403")


def test_nobody_there_is_told_without_the_address(file):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # and does not listen; as long as it is bound nobody else does
        sent = send(str(file), Target(False, "127.0.0.1", probe.getsockname()[1], "/s3cret"), sleep=Waits())
    assert sent.status == FAILED
    assert "127" not in sent.reason
    assert "s3cret" not in sent.reason


def test_proxies_of_the_environment_are_not_used(receiver, file, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert send(str(file), target_of(receiver)).status == UPLOADED


class StopError(Exception):
    pass


def test_an_interrupt_ends_it_between_two_pieces(receiver, file):
    def stop():
        raise StopError

    with pytest.raises(StopError):
        send(str(file), target_of(receiver), check_interrupted=stop)
    assert receiver.got == []


def test_an_interrupt_ends_it_between_two_tries(receiver, file):
    receiver.answers = [503] * 9

    def later():
        if receiver.got:
            raise StopError

    with pytest.raises(StopError):
        send(str(file), target_of(receiver), check_interrupted=later, sleep=Waits())
    assert len(receiver.got) == 1


def test_memory_holds_a_piece_and_not_the_file(receiver, tmp_path):
    path = tmp_path / "large.mp4"
    with path.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    tracemalloc.start()
    try:
        assert send(str(path), target_of(receiver)).status == UPLOADED
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_a_strange_type_and_a_file_too_large_are_not_sent(receiver, file, monkeypatch):
    assert (
        send(str(file), target_of(receiver), content_type="video/mp4\r\nX: y").reason
        == "the content type cannot be read"
    )
    monkeypatch.setattr(uploading, "MAX_BYTES", 100)
    assert "larger" in send(str(file), target_of(receiver)).reason
    assert receiver.got == []


def test_certificates_are_checked(receiver, file, monkeypatch):
    """A receiver that speaks no TLS, let alone with a certificate that anybody trusts, gets nothing."""
    monkeypatch.setattr(uploading, "WAIT_SECONDS", ())
    sent = send(str(file), target_of(receiver)._replace(is_encrypted=True))
    assert sent.status == FAILED
    assert "SSL" in sent.reason
    assert receiver.got == []
