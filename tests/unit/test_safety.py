import json
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis.strategies import characters, one_of, sampled_from, text

from gateway.errors import InvalidInputError, SourceUnreachableError
from gateway.safety import (
    MAX_URL_LENGTH,
    UNREACHABLE,
    AddressVerdict,
    Endpoint,
    RefusedPlaceError,
    UrlMode,
    UrlPolicy,
    judge_address,
    listener_endpoints,
    named_endpoints,
    parse_url,
    redirect_url,
    spell_bytes,
)

CORPUS = json.loads((Path(__file__).parents[1] / "corpus" / "ssrf.json").read_text())
PUBLIC = UrlPolicy()


def listed(*entries, mode=UrlMode.PUBLIC, refused=()):
    return UrlPolicy.from_settings(mode, entries, refused)


def accepts(url, policy=PUBLIC, **options):
    try:
        parse_url(url, policy, **options)
    except InvalidInputError:
        return False
    return True


def verdict(address, url="https://example.com/", policy=PUBLIC):
    return judge_address(address, parse_url(url, policy), policy)


# ------------------------------------------------------------------------------------------------------------ the text


@pytest.mark.parametrize("case", CORPUS, ids=[f"{case['cat']}: {case['url'][:60]!a}" for case in CORPUS])
def test_corpus_verdict(case):
    assert accepts(case["url"]) is (case["expect"] == "accept")


# The one left out is a relative reference: it leads back to the host it came from.
REFUSED = [case["url"] for case in CORPUS if case["expect"] == "reject" and case["url"] != "example.com/x.png"]


@pytest.mark.parametrize("location", REFUSED, ids=lambda url: ascii(url[:40]))
def test_refused_urls_of_the_corpus_stay_refused_as_redirects(location):
    start = parse_url("https://example.com/a", PUBLIC)
    with pytest.raises(SourceUnreachableError):
        redirect_url(start, 302, location.encode("utf-8"), PUBLIC, https_only=False)


def test_refusal_names_the_field_and_repeats_nothing_of_the_url():
    with pytest.raises(InvalidInputError) as caught:
        parse_url("https://10.0.0.1/secret?token=1", PUBLIC, field="image_url")
    assert caught.value.field == "image_url"
    assert "10.0.0.1" not in caught.value.message
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("url", "is_place"),
    [
        ("https://10.0.0.1/", True),
        ("https://[fd00::1]/", True),
        ("https://localhost/", True),
        ("https://metadata.google.internal/", True),
        ("https://example.com:8443/", True),
        ("https://127.1/", False),
        ("https://a@example.com/", False),
        ("https://example.com/ x", False),
        ("http://example.com/", False),
        ("ftp://example.com/", False),
    ],
)
def test_a_place_that_is_refused_is_told_from_a_text_that_is(url, is_place):
    with pytest.raises(InvalidInputError) as refused:
        parse_url(url, PUBLIC, https_only=True)
    assert isinstance(refused.value, RefusedPlaceError) is is_place


def test_parts_go_on_the_wire_as_they_were_sent():
    url = parse_url("https://EXAMPLE.com/a%20b/../c?x=1&y=%2F#frag", PUBLIC)
    assert (url.scheme, url.host, url.port) == ("https", "example.com", 443)
    assert url.target == "/a%20b/../c?x=1&y=%2F"
    assert url.host_header == "example.com"


def test_path_outside_ascii_is_percent_encoded_utf8():
    assert parse_url("https://example.com/ф?q=ü", PUBLIC).target == "/%D1%84?q=%C3%BC"


def test_query_without_path_gets_one():
    assert parse_url("https://example.com?x=1", PUBLIC).target == "/?x=1"


def test_ipv6_host_stands_in_brackets_in_the_host_field_only():
    url = parse_url("https://[2606:4700:0:0::1111]/", PUBLIC)
    assert url.host == "2606:4700::1111"
    assert url.host_header == "[2606:4700::1111]"


def test_longest_url_passes_and_one_more_character_does_not():
    base = "https://example.com/"
    assert accepts(base + "a" * (MAX_URL_LENGTH - len(base)))
    assert not accepts(base + "a" * (MAX_URL_LENGTH - len(base) + 1))


def test_target_is_not_shown_in_the_repr():
    assert "secret" not in repr(parse_url("https://example.com/?token=secret", PUBLIC))


@given(text(max_size=60))
@settings(max_examples=60)
@example("https://[::1%]/")
@example("https://[/")
@example("https://example.com:99999999999999999999/")
@example("https://\ud800.com/")
def test_no_text_raises_anything_but_a_refusal(url):
    for policy in (PUBLIC, listed("10.0.0.0/8", "localhost")):
        accepts(url, policy)
        accepts("https://" + url, policy)


HOST_SOUP = text(alphabet=one_of(sampled_from("0123456789.x:[]@%-_a"), characters(max_codepoint=0x3000)), max_size=24)


@given(HOST_SOUP)
@settings(max_examples=60)
def test_whatever_passes_without_a_list_is_https_on_443_to_a_public_literal_or_a_dotted_name(host):
    try:
        url = parse_url(f"https://{host}/", PUBLIC)
    except InvalidInputError:
        return
    assert (url.scheme, url.port, url.needs_listed) == ("https", 443, False)
    assert url.literal is not None or "." in url.host
    assert url.literal is None or judge_address(url.host, url, PUBLIC) is AddressVerdict.PUBLIC


# ------------------------------------------------------------------------------------------------------------ the list


def test_off_refuses_every_url():
    assert not accepts("https://example.com/a.png", UrlPolicy(mode=UrlMode.OFF))


def test_allowlist_mode_refuses_what_is_not_listed():
    policy = listed("media.example.com", mode=UrlMode.ALLOWLIST)
    assert accepts("https://media.example.com/a.png", policy)
    assert not accepts("https://example.com/a.png", policy)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9000/x", "https://127.0.0.1/x", "http://localhost:9000/x", "http://nas.lan/x"]
)
def test_listed_network_allows_http_any_port_and_local_names(url):
    assert not accepts(url)
    assert accepts(url, listed("127.0.0.0/8"))


def test_name_that_needs_a_listed_address_is_held_to_it():
    policy = listed("192.168.0.0/16")
    assert verdict("192.168.1.2", "http://nas.lan:8080/", policy) is AddressVerdict.LISTED
    assert verdict("93.184.216.34", "http://nas.lan:8080/", policy) is AddressVerdict.NOT_LISTED
    assert verdict("93.184.216.34", "https://example.com/", policy) is AddressVerdict.PUBLIC
    assert verdict("10.0.0.1", "https://example.com/", policy) is AddressVerdict.NOT_PUBLIC


def test_listed_name_may_have_a_private_address_but_no_other_name_may():
    policy = listed("NAS.lan.")
    assert verdict("192.168.1.2", "http://nas.lan:8080/", policy) is AddressVerdict.LISTED
    assert not accepts("http://other.lan/", policy)
    assert verdict("192.168.1.2", "https://example.com/", policy) is AddressVerdict.NOT_PUBLIC


def test_https_only_wins_over_the_list():
    assert not accepts("http://127.0.0.1/x", listed("127.0.0.0/8"), https_only=True)
    assert accepts("https://127.0.0.1:8443/x", listed("127.0.0.0/8"), https_only=True)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "168.63.129.16",
        "192.0.0.192",
        "0.0.0.0",
        "::ffff:10.0.0.1",
        "fe80::1%2",
        "64:ff9b::a9fe:a9fe",
        "224.0.0.1",
    ],
)
def test_listing_everything_opens_no_metadata_or_link_local_address(address):
    everything = listed("0.0.0.0/0", "::/0", "example.com")
    assert verdict(address, policy=everything) is AddressVerdict.NEVER


def test_listing_everything_opens_no_metadata_name():
    everything = listed("0.0.0.0/0", "::/0", "metadata.google.internal")
    assert not accepts("http://metadata.google.internal/", everything)


@pytest.mark.parametrize("address", ["", "localhost", "127.1", "0x7f.0.0.1", "1.2.3.4.5", "example.com"])
def test_answer_that_is_no_address_is_refused(address):
    assert verdict(address, policy=listed("0.0.0.0/0")) is AddressVerdict.MALFORMED


def test_malformed_list_entry_is_named():
    with pytest.raises(InvalidInputError, match=r"10\.0\.0\.0/99"):
        listed("10.0.0.0/99")


# ------------------------------------------------------------------------------------------- our own and the upstreams


def test_own_listener_is_refused_whatever_is_listed_and_its_neighbour_port_is_not():
    policy = listed("127.0.0.0/8", refused=listener_endpoints("127.0.0.1", 8000))
    assert not accepts("http://127.0.0.1:8000/", policy)
    assert accepts("http://127.0.0.1:8001/", policy)
    assert verdict("127.0.0.1", "http://localhost:8000/", policy) is AddressVerdict.OWN


def test_wildcard_listener_covers_loopback_and_local_addresses():
    policy = listed("127.0.0.0/8", "::1", "10.0.0.0/8", refused=listener_endpoints("0.0.0.0", 8000, ("10.1.2.3",)))
    assert not accepts("http://127.9.9.9:8000/", policy)
    assert not accepts("http://[::1]:8000/", policy)
    assert not accepts("http://10.1.2.3:8000/", policy)
    assert accepts("http://10.1.2.4:8000/", policy)


def test_public_upstream_address_is_refused_on_its_port():
    policy = UrlPolicy(refused=(Endpoint(ip_network("93.184.216.34/32"), 443),))
    assert verdict("93.184.216.34", policy=policy) is AddressVerdict.OWN
    assert verdict("93.184.216.35", policy=policy) is AddressVerdict.PUBLIC


def test_upstreams_known_by_name_are_told_on_their_port():
    policy = listed("10.0.0.0/8", refused=(Endpoint("gpu1.lan", 8188), *listener_endpoints("gpu2.lan", 9000)))
    assert named_endpoints(parse_url("http://10.0.0.1:8188/", policy), policy) == ("gpu1.lan",)
    assert named_endpoints(parse_url("http://10.0.0.1:9000/", policy), policy) == ("gpu2.lan",)
    assert named_endpoints(parse_url("http://10.0.0.1:80/", policy), policy) == ()


# ----------------------------------------------------------------------------------------------------------- redirects


def redirected(location, status=302, policy=PUBLIC, start="https://example.com/dir/a?x=1"):
    return redirect_url(parse_url(start, policy), status, location, policy, https_only=False)


@pytest.mark.parametrize(
    ("location", "host", "target"),
    [
        (b"https://cdn.example.com/b", "cdn.example.com", "/b"),
        (b"//cdn.example.com/b", "cdn.example.com", "/b"),
        (b"/b", "example.com", "/b"),
        (b"b?y=2", "example.com", "/dir/b?y=2"),
        ("/ü".encode(), "example.com", "/%C3%BC"),
    ],
)
def test_redirect_is_resolved_against_the_url_it_came_from(location, host, target):
    url = redirected(location)
    assert (url.host, url.target) == (host, target)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_statuses_are_followed(status):
    assert redirected(b"/b", status).target == "/b"


@pytest.mark.parametrize("status", [300, 304, 305, 306, 399])
def test_other_3xx_are_not_followed(status):
    with pytest.raises(SourceUnreachableError):
        redirected(b"/b", status)


@pytest.mark.parametrize(
    "location",
    [
        None,
        b"",
        b"//169.254.169.254/",
        b"file:///etc/passwd",
        b"http://example.com/",
        b"https://10.0.0.1/",
        b"/a\tb",
        b"\n//10.0.0.1/",
        b"https:10.0.0.1/",
        b"https://user@example.com/",
        b"\xff\xfe",
        b"https://[::1]/",
        b"https://[",
        b"gopher://example.com/",
        b"\\\\10.0.0.1\\x",
    ],
)
def test_redirect_to_a_bad_place_has_the_one_sentence(location):
    with pytest.raises(SourceUnreachableError) as caught:
        redirected(location)
    assert caught.value.message == UNREACHABLE


def test_redirect_from_https_to_http_is_refused_even_between_listed_hosts():
    policy = listed("127.0.0.0/8")
    with pytest.raises(SourceUnreachableError):
        redirected(b"http://127.0.0.1:9000/b", policy=policy, start="https://127.0.0.1:8443/a")
    assert redirected(b"http://127.0.0.1:9000/b", policy=policy, start="http://127.0.0.1:8000/a").port == 9000


def test_redirect_keeps_an_ipv6_host_and_its_port():
    policy = listed("::1")
    assert redirected(b"/b", policy=policy, start="http://[::1]:9000/a").host_header == "[::1]:9000"


@pytest.mark.parametrize(
    ("size", "words"),
    [(25 * 1024**2, "25 MiB"), (1024**3, "1 GiB"), (1100 * 1024**2, "1100 MiB"), (65536, "64 KiB"), (100, "100 bytes")],
)
def test_limits_are_spelled_as_people_write_them(size, words):
    assert spell_bytes(size) == words
