from dataclasses import replace

import pytest
from starlette.datastructures import Headers

from gateway.api.auth import Doors, host_name
from gateway.errors import ForbiddenError
from gateway.settings import from_mapping
from tests.tools.asgi import TOKEN, Socket, ask, make

DOORS = Doors.from_settings(from_mapping({}), TOKEN)
BEARER = f"Bearer {TOKEN}"
JOB = "/-/jobs/019a0000-0000-7000-8000-000000000001"


# ------------------------------------------------------------------------------------------------------------ open mode


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "LOCALHOST", "127.0.0.1:1", "[::1]:8000", "faces.example.org"]
)
async def test_open_mode_serves_loopback_names_and_the_public_host(host):
    app, _ = make(public_url="https://faces.example.org")
    assert (await ask(app, "GET", "/health", host=host)).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "localhost:8000:1",
        "localhost:65536",
        "localhost:99999",
        "localhost@evil",
        "",
        "[::1",
        "localhost\t",
    ],
)
async def test_open_mode_answers_421_to_another_host_and_does_nothing(host):
    app, service = make()
    service.put()
    answer = await ask(app, "DELETE", JOB, host=host)
    assert (answer.status, answer.json["code"]) == (421, "misdirected_request")
    assert not service.stored[JOB.rpartition("/")[2]].is_terminal


FOREIGN_PAGES = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://localhost:3000"},
    {"origin": "http://127.0.0.1:8000"},
    {"origin": "file://"},
    {"origin": "http://localhost:8000.evil.example"},
    {"sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "same-site"},
    {"origin": "http://localhost:8000", "sec_fetch_site": "cross-site"},
]


@pytest.mark.parametrize("page", FOREIGN_PAGES)
async def test_a_foreign_page_neither_starts_nor_cancels_nor_reads(page):
    app, service = make()
    service.put()
    for method, path in (("POST", "/face-swap"), ("DELETE", JOB), ("GET", JOB), ("GET", "/-/jobs")):
        answer = await ask(app, method, path, **page)
        assert (answer.status, answer.json["code"]) == (403, "forbidden"), (method, path)
        assert not any(name.startswith("access-control") for name in answer.headers)
    assert not service.stored[JOB.rpartition("/")[2]].is_terminal
    assert len(service.stored) == 1


@pytest.mark.parametrize(
    "page",
    [
        {},
        {"origin": "http://localhost:8000"},
        {"origin": "http://localhost:8000", "sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "none"},
        {"origin": "https://faces.example.org"},
    ],
)
async def test_programs_and_our_own_page_may_cancel(page):
    app, service = make(public_url="https://faces.example.org")
    service.put()
    assert (await ask(app, "DELETE", JOB, **page)).status == 200


async def test_following_a_link_from_another_site_opens_what_it_points_to():
    app, service = make()
    service.put()
    answer = await ask(app, "GET", JOB, sec_fetch_site="cross-site", sec_fetch_mode="navigate")
    assert answer.status == 200


@pytest.mark.parametrize(
    "header", ["forwarded", "x_forwarded_for", "x_forwarded_host", "x_forwarded_proto", "x_real_ip"]
)
async def test_an_unknown_proxy_is_told_what_to_set(header):
    app, _ = make()
    answer = await ask(app, "GET", "/status/x", **{header: "for=1.2.3.4"})
    assert answer.status == 403
    assert "GATEWAY_TRUSTED_PROXIES" in answer.json["detail"]


async def test_behind_a_known_proxy_the_client_is_the_last_hop_that_is_not_ours():
    doors = Doors.from_settings(from_mapping({"trusted_proxies": "127.0.0.1, 10.0.0.0/8"}), TOKEN)

    def seen(**headers: str) -> str:
        return doors.client_address(Headers({k.replace("_", "-"): v for k, v in headers.items()}), "127.0.0.1")

    assert seen(x_forwarded_for="6.6.6.6, 203.0.113.9, 10.1.1.1") == "203.0.113.9"
    assert seen(forwarded='for=6.6.6.6, for="[2001:db8::1]:4711"') == "2001:db8::1"
    assert seen(x_forwarded_for="203.0.113.9, nonsense") == "127.0.0.1"
    assert seen(x_forwarded_for="203.0.113.9, 10.1.1.1", forwarded="for=6.6.6.6") == "203.0.113.9"
    assert seen(x_forwarded_for="10.2.2.2, 10.1.1.1") == "10.2.2.2", "a client of our own network"
    assert seen() == "127.0.0.1"
    assert doors.client_address(Headers({"x-forwarded-for": "6.6.6.6"}), "203.0.113.9") == "203.0.113.9"


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ('for="203.0.113.9:4711"', "203.0.113.9"),
        ("For=203.0.113.9;proto=https;by=10.0.0.1", "203.0.113.9"),
        ("proto=https; for=203.0.113.9, for=10.1.1.1", "203.0.113.9"),
        ('for="[2001:db8::1]"', "2001:db8::1"),
        # The nearest hop hides its client: what the client wrote before it must not be taken for the answer.
        ("for=6.6.6.6, for=unknown", "127.0.0.1"),
        ("for=6.6.6.6, for=_hidden", "127.0.0.1"),
        ("for=6.6.6.6, proto=https", "127.0.0.1"),
        ('for=6.6.6.6, host="a, b"', "127.0.0.1"),
        ("xfor=6.6.6.6", "127.0.0.1"),
        ("for=", "127.0.0.1"),
        ('for="6.6.6.6"6"', "127.0.0.1"),
    ],
)
def test_only_what_the_nearest_hop_says_of_its_client_counts(forwarded, client):
    doors = Doors.from_settings(from_mapping({"trusted_proxies": "127.0.0.1, 10.0.0.0/8"}), TOKEN)
    assert doors.client_address(Headers({"forwarded": forwarded}), "127.0.0.1") == client


@pytest.mark.parametrize(
    ("hop", "client"),
    [("203.0.113.9:4711", "203.0.113.9"), ("[2001:db8::1]:4711", "2001:db8::1"), ("2001:db8::1", "2001:db8::1")],
)
def test_a_port_behind_the_address_is_left_off(hop, client):
    doors = Doors.from_settings(from_mapping({"trusted_proxies": "127.0.0.1"}), TOKEN)
    assert doors.client_address(Headers({"x-forwarded-for": hop}), "127.0.0.1") == client


def test_a_proxy_that_comes_as_a_mapped_address_is_known_too():
    doors = Doors.from_settings(from_mapping({"trusted_proxies": "10.0.0.0/8"}), TOKEN)
    named = Headers({"x-forwarded-for": "::ffff:203.0.113.9"})
    assert doors.client_address(named, "::ffff:10.1.1.1") == "203.0.113.9"
    assert doors.client_address(named, "::ffff:11.1.1.1") == "::ffff:11.1.1.1"


async def test_host_of_a_proxy_is_not_taken_for_the_host_that_was_asked():
    app, _ = make(trusted_proxies="127.0.0.1")
    answer = await ask(app, "GET", "/health", host="evil.example", x_forwarded_host="localhost")
    assert answer.status == 421


async def test_cors_is_off_unless_an_origin_is_listed():
    app, service = make()
    service.put()
    answer = await ask(app, "GET", JOB)
    assert not any(name.startswith("access-control") for name in answer.headers)
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


async def test_a_listed_origin_may_do_everything_and_is_named_in_the_answer():
    page = "https://app.example.org"
    edge, service = make(cors_origins="https://other.example, https://app.example.org/")
    service.put()

    preflight = await ask(edge, "OPTIONS", JOB, origin=page, access_control_request_method="DELETE")
    assert (preflight.status, preflight.headers["access-control-allow-origin"]) == (204, page)
    assert "DELETE" in preflight.headers["access-control-allow-methods"]
    known = await ask(edge, "GET", "/health", origin=page, sec_fetch_site="cross-site")
    assert (known.status, known.headers["access-control-allow-origin"]) == (200, page)
    assert known.headers["vary"] == "Origin"
    for answer in (preflight, known):
        assert "access-control-allow-credentials" not in answer.headers
    read = await ask(edge, "GET", JOB, origin=page, sec_fetch_site="cross-site", sec_fetch_mode="cors")
    assert (read.status, read.headers["access-control-allow-origin"]) == (200, page)
    refused = await ask(edge, "GET", "/status/nobody", origin=page)
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (404, page), "the page may read why"
    other = await ask(edge, "DELETE", JOB, origin="https://evil.example")
    assert other.status == 403
    assert "access-control-allow-origin" not in other.headers
    foreign_preflight = await ask(
        edge, "OPTIONS", JOB, origin="https://evil.example", access_control_request_method="DELETE"
    )
    assert not any(name.startswith("access-control") for name in foreign_preflight.headers)
    assert (await ask(edge, "DELETE", JOB, origin=page, sec_fetch_site="cross-site")).status == 200


def test_a_listed_origin_passes_every_door_and_no_other_does():
    doors = replace(DOORS, cors_origins=frozenset({"https://app.example.org"}))
    listed = Headers({"origin": "https://app.example.org", "sec-fetch-site": "cross-site", "host": "localhost"})
    doors.require_own_page(listed)
    doors.require_reader(listed)
    doors.require_socket_origin(listed)
    for check in (DOORS.require_own_page, DOORS.require_reader, DOORS.require_socket_origin):
        with pytest.raises(ForbiddenError):
            check(listed)


# ------------------------------------------------------------------------------------------------------------ keys mode

PUBLIC = ["/", "/-/ui/index.html", "/-/ui/page.js", "/health", "/health/ready"]


@pytest.mark.parametrize("path", PUBLIC)
async def test_keys_mode_leaves_pages_and_health_open(path):
    app, _ = make(auth="keys", host="0.0.0.0")
    assert (await ask(app, "GET", path, host="any.example")).status == 200


async def test_keys_mode_shows_strangers_one_word_of_health():
    app, _ = make(auth="keys")
    assert (await ask(app, "GET", "/health")).json == {"status": "healthy"}
    assert "upstreams" in (await ask(app, "GET", "/health", authorization=BEARER)).json


async def test_keys_mode_serves_a_capability_link_without_a_key():
    app, service = make(auth="keys")
    link = service.succeed(service.put().id)
    assert (await ask(app, "GET", f"/download/{link}")).body == b"the swapped video"


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "unauthorized"),
        ("Bearer", "unauthorized"),
        (TOKEN, "unauthorized"),
        (f"Basic {TOKEN}", "unauthorized"),
        (f"Bearer {TOKEN} x", "unauthorized"),
        ("Bearer \xff\xfe", "unauthorized"),
        ("Bearer wrong", "invalid_api_key"),
    ],
)
async def test_keys_mode_wants_the_token(authorization, code):
    app, service = make(auth="keys")
    service.put()
    headers = {} if authorization is None else {"authorization": authorization}
    answer = await ask(app, "GET", JOB, **headers)
    assert (answer.status, answer.json["code"]) == (401, code)
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("authorization", [BEARER, f"bearer {TOKEN}", f"BEARER  {TOKEN}"])
async def test_keys_mode_takes_the_admin_token(authorization):
    app, service = make(auth="keys")
    service.put()
    assert (await ask(app, "GET", JOB, authorization=authorization)).status == 200


async def test_keys_mode_serves_every_host_unless_hosts_are_listed():
    listed, _ = make(auth="keys", allowed_hosts=["faces.example.org"])
    assert (await ask(listed, "GET", "/health", host="faces.example.org:443")).status == 200
    assert (await ask(listed, "GET", "/health", host="localhost")).status == 421


@pytest.mark.parametrize("mode", ["open", "keys"])
async def test_changing_the_pool_wants_the_admin_token_in_every_mode(mode):
    app, service = make(auth=mode)
    assert (await ask(app, "POST", "/-/upstreams/gpu-1/drain")).status == 401
    assert not service.members["gpu-1"].draining
    answer = await ask(app, "POST", "/-/upstreams/gpu-1/drain", authorization=BEARER)
    assert (answer.status, answer.json["draining"]) == (200, True)


# -------------------------------------------------------------------------------------------------------------- sockets


@pytest.mark.parametrize("mode", ["open", "keys"])
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000"])
async def test_a_foreign_page_opens_no_socket(mode, origin):
    app, _ = make(auth=mode)
    async with Socket(app, "/face-swap-ws", origin=origin, authorization=BEARER) as socket:
        assert (socket.first["type"], socket.first["status"]) == ("websocket.http.response.start", 403)


async def test_keys_mode_refuses_a_socket_without_a_token_before_accepting_it():
    app, _ = make(auth="keys")
    async with Socket(app, "/face-swap-ws") as socket:
        assert (socket.first["type"], socket.first["status"]) == ("websocket.http.response.start", 401)
    async with Socket(app, "/face-swap-ws", authorization=BEARER, origin="http://localhost:8000") as socket:
        assert socket.first["type"] == "websocket.accept"


def test_a_malformed_host_is_nobodys_name():
    assert host_name("a b") is None
    assert host_name("[::1]:80") == "::1"
