from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis.strategies import ip_addresses

from gateway.addresses import is_never, is_public

# What ipaddress.is_global of Python 3.11.7 calls global, and what it is.
NOT_PUBLIC_BUT_CALLED_GLOBAL = [
    "192.0.0.192",
    "168.63.129.16",
    "192.88.99.1",
    "224.0.0.1",
    "239.255.255.250",
    "::127.0.0.1",
    "::ffff:100.64.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "fec0::1",
    "3fff::1",
    "5f00::1",
    "100:0:0:1::1",
    "ff0e::1",
]


@pytest.mark.parametrize("text", NOT_PUBLIC_BUT_CALLED_GLOBAL)
def test_addresses_that_python_calls_global_are_not_public(text):
    assert not is_public(ip_address(text))


@pytest.mark.parametrize(
    "text", ["1.1.1.1", "100.63.255.255", "100.128.0.0", "172.32.0.1", "2a00:1450::1", "2606:4700::1"]
)
def test_addresses_beside_the_holes_are_public(text):
    assert is_public(ip_address(text))


@pytest.mark.parametrize(
    "text",
    [
        "169.254.169.254",
        "168.63.129.16",
        "192.0.0.192",
        "100.100.100.200",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.251",
        "::",
        "::2",
        "::ffff:10.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "fe80::1",
        "fe80::1%2",
        "fd00::1%eth0",
        "fd00:ec2::254",
        "ff02::1",
    ],
)
def test_metadata_link_local_and_embedded_addresses_are_never_allowed(text):
    assert is_never(ip_address(text))


@pytest.mark.parametrize("text", ["127.0.0.1", "::1", "10.0.0.1", "192.168.1.1", "fd12:3456::1", "8.8.8.8"])
def test_what_an_operator_may_list_is_not_among_the_never(text):
    assert not is_never(ip_address(text))


@given(ip_addresses())
def test_nothing_public_is_private_loopback_link_local_or_reserved(address):
    if is_public(address):
        flags = ("private", "loopback", "link_local", "reserved", "multicast", "unspecified")
        assert not any(getattr(address, f"is_{flag}") for flag in flags)


@given(ip_addresses(v=4))
def test_no_ipv4_address_hides_in_a_public_ipv6_form(address):
    for template in ("::{}", "::ffff:{}", "::ffff:0:{}", "64:ff9b::{}", "64:ff9b:1::{}"):
        assert not is_public(ip_address(template.format(address)))
    packed = address.packed.hex()
    assert not is_public(ip_address(f"2002:{packed[:4]}:{packed[4:]}::1"))
    assert not is_public(ip_address(f"2001:0:{packed[:4]}:{packed[4:]}::1"))
