import asyncio
import socket

import httpcore2
import pytest
from structlog.testing import capture_logs

from gateway.blobs import dialing
from gateway.blobs.dialing import MAX_ANSWERS, MAX_TRIED, GuardedBackend, SystemResolver, resolve_overrides
from gateway.errors import SourceUnreachableError
from gateway.safety import UNREACHABLE, Endpoint, UrlMode, UrlPolicy, listener_endpoints, parse_url

GOOD = "93.184.216.34"
GOOD_V6 = "2606:2800:220:1::1"


class FakeResolver:
    """Answers from a table; a list of lists answers differently each time."""

    def __init__(self, **names):
        self.names = {name.replace("_", "."): answers for name, answers in names.items()}
        self.asked = []

    async def __call__(self, host, port):
        self.asked.append(host)
        answers = self.names[host]
        if isinstance(answers, BaseException):
            raise answers
        return answers.pop(0) if answers and isinstance(answers[0], list) else answers


class FakeDialer:
    """Remembers who was dialled; addresses in ``dead`` do not answer."""

    def __init__(self, *dead):
        self.dialled = []
        self.budgets = []
        self.dead = dead

    async def __call__(self, address, port, timeout_seconds):
        self.dialled.append((address, port))
        self.budgets.append(timeout_seconds)
        if address in self.dead:
            raise httpcore2.ConnectError
        return httpcore2.AsyncMockStream([])


async def connect(resolver, dialer, url="https://files.example.com/a", policy=None, **options):
    policy = policy or UrlPolicy()
    safe = parse_url(url, policy)
    backend = GuardedBackend(safe, policy, resolver=resolver, dialer=dialer, **options)
    return await backend.connect_tcp(safe.host, safe.port, timeout=6.0)


async def test_checked_address_is_dialled_and_the_name_is_asked_once():
    resolver, dialer = FakeResolver(files_example_com=[GOOD]), FakeDialer()
    await connect(resolver, dialer)
    assert resolver.asked == ["files.example.com"]
    assert dialer.dialled == [(GOOD, 443)]


async def test_second_answer_of_a_rebinding_name_is_judged_anew_for_the_next_hop():
    resolver, dialer = FakeResolver(files_example_com=[[GOOD], ["127.0.0.1"]]), FakeDialer()
    await connect(resolver, dialer)
    with pytest.raises(SourceUnreachableError):
        await connect(resolver, dialer)
    assert dialer.dialled == [(GOOD, 443)]


@pytest.mark.parametrize(
    "answers",
    [
        ["127.0.0.1"],  # 127.0.0.1.nip.io, or a CNAME to something inside
        [GOOD, "10.0.0.1"],
        ["10.0.0.1", GOOD],
        [GOOD, "fd00::1"],
        ["64:ff9b::a9fe:a9fe"],
        ["::ffff:10.0.0.1"],
        ["::ffff:93.184.216.34"],
        ["fe80::1%2"],
        [],
        [GOOD] * 500,
        ["files.example.com"],
        ["169.254.169.254"],
    ],
)
async def test_bad_answers_are_refused_without_a_single_packet(answers):
    dialer = FakeDialer()
    with pytest.raises(SourceUnreachableError) as caught:
        await connect(FakeResolver(files_example_com=answers), dialer)
    assert caught.value.message == UNREACHABLE
    assert dialer.dialled == []


@pytest.mark.parametrize(
    "failure", [socket.gaierror(-2, "unknown"), UnicodeError("label too long"), TimeoutError(), OSError("no route")]
)
async def test_failed_look_up_has_the_same_sentence(failure):
    with pytest.raises(SourceUnreachableError) as caught:
        await connect(FakeResolver(files_example_com=failure), FakeDialer())
    assert caught.value.message == UNREACHABLE


async def test_slow_name_is_given_up():
    async def never(_host, _port):
        await asyncio.Event().wait()

    with pytest.raises(SourceUnreachableError):
        await connect(never, FakeDialer(), dns_timeout_seconds=0.001)


async def test_next_address_is_tried_when_one_is_dead_and_they_share_the_time():
    dialer = FakeDialer(GOOD_V6)
    await connect(FakeResolver(files_example_com=[GOOD_V6, GOOD]), dialer)
    assert dialer.dialled == [(GOOD_V6, 443), (GOOD, 443)]
    assert sum(dialer.budgets) <= 6.0


async def test_few_addresses_are_tried_however_many_there_are():
    addresses = [f"93.184.216.{number}" for number in range(MAX_ANSWERS)]
    dialer = FakeDialer(*addresses)
    with pytest.raises(SourceUnreachableError):
        await connect(FakeResolver(files_example_com=addresses), dialer)
    assert dialer.dialled == [(address, 443) for address in addresses[:MAX_TRIED]]


async def test_literal_is_dialled_without_asking_anybody():
    resolver, dialer = FakeResolver(), FakeDialer()
    await connect(resolver, dialer, url=f"https://[{GOOD_V6}]/")
    assert (resolver.asked, dialer.dialled) == ([], [(GOOD_V6, 443)])


async def test_upstream_known_by_name_is_refused_by_its_address():
    policy = UrlPolicy.from_settings(UrlMode.PUBLIC, ("10.0.0.0/8",), (Endpoint("gpu1.lan", 8188),))
    resolver, dialer = FakeResolver(alias_lan=["10.0.0.7"], gpu1_lan=["10.0.0.7"], nas_lan=["10.0.0.8"]), FakeDialer()
    for url in ("http://alias.lan:8188/", "http://10.0.0.7:8188/", "http://gpu1.lan:8188/"):
        with pytest.raises(SourceUnreachableError):
            await connect(resolver, dialer, url=url, policy=policy)
    assert dialer.dialled == []
    await connect(resolver, dialer, url="http://nas.lan:8188/", policy=policy)
    assert dialer.dialled == [("10.0.0.8", 8188)]


async def test_upstream_name_that_does_not_resolve_refuses_nobody():
    policy = UrlPolicy(refused=(Endpoint("gpu1.example.com", 443),))
    resolver = FakeResolver(files_example_com=[GOOD], gpu1_example_com=socket.gaierror())
    dialer = FakeDialer()
    await connect(resolver, dialer, policy=policy)
    assert dialer.dialled == [(GOOD, 443)]


async def test_own_listener_is_refused_behind_a_name():
    policy = UrlPolicy.from_settings(UrlMode.PUBLIC, ("127.0.0.0/8",), listener_endpoints("0.0.0.0", 8000))
    dialer = FakeDialer()
    with pytest.raises(SourceUnreachableError):
        await connect(FakeResolver(me_lan=["127.0.0.1"]), dialer, url="http://me.lan:8000/", policy=policy)
    assert dialer.dialled == []


async def test_no_other_host_port_or_socket_can_be_asked_for():
    policy = UrlPolicy()
    dialer = FakeDialer()
    backend = GuardedBackend(
        parse_url("https://files.example.com/", policy),
        policy,
        resolver=FakeResolver(files_example_com=[GOOD], other_example_com=[GOOD]),
        dialer=dialer,
    )
    for attempt in (
        backend.connect_tcp("other.example.com", 443),
        backend.connect_tcp("files.example.com", 444),
        backend.connect_unix_socket("/var/run/docker.sock"),
    ):
        with pytest.raises(SourceUnreachableError):
            await attempt
    assert dialer.dialled == []


async def test_log_has_host_address_and_verdict_and_no_path_or_query():
    with capture_logs() as lines:
        await connect(FakeResolver(files_example_com=[GOOD]), FakeDialer(), url="https://files.example.com/p?token=t")
        with pytest.raises(SourceUnreachableError):
            await connect(FakeResolver(files_example_com=["10.0.0.1"]), FakeDialer())
    good, bad = lines
    assert (good["host"], good["address"], good["verdict"]) == ("files.example.com", GOOD, "public")
    assert (bad["address"], bad["verdict"]) == ("10.0.0.1", "refused: not a public address")
    assert "token" not in str(lines)


async def test_override_stands_before_the_system_and_is_judged_like_any_answer():
    resolver = SystemResolver(resolve_overrides(["Files.example.com=127.0.0.1", "files.example.com = ::1"]))
    assert await resolver("files.example.com", 443) == ("127.0.0.1", "::1")
    with pytest.raises(SourceUnreachableError):
        await connect(resolver, FakeDialer())
    resolver.close()


async def test_system_resolver_asks_in_threads_of_its_own(monkeypatch):
    import threading

    seen = {}

    def getaddrinfo(host, port, **options):
        seen.update(host=host, port=port, thread=threading.current_thread().name)
        family = socket.AF_INET
        return [(family, 1, 6, "", (GOOD, port)), (family, 1, 6, "", (GOOD, port))]

    monkeypatch.setattr(dialing.socket, "getaddrinfo", getaddrinfo)
    resolver = SystemResolver()
    assert await resolver("files.example.com", 443) == [GOOD]
    assert seen["host"] == b"files.example.com"
    assert seen["thread"].startswith("resolver")
    resolver.close()


@pytest.mark.parametrize("pair", ["", "name", "=1.2.3.4", "name="])
def test_malformed_override_is_refused(pair):
    with pytest.raises(ValueError, match="name=address"):
        resolve_overrides([pair])
