"""Which addresses are public, and which are refused whatever an operator lists.

Tables and two questions; ``safety.py`` asks them. The tables are ours because ``ipaddress.is_global`` changes with
Python's patch release and calls cloud metadata services, multicast and NAT64 global. For IPv6 the allocated unicast
space is allowed and holes are cut into it, which covers every way of embedding an IPv4 address at once.

Sources: the IANA special-purpose address registries for IPv4 and IPv6, and the cloud vendors' own documents for the
metadata services that stand among public addresses.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network


def networks(*texts: str) -> tuple[IPNetwork, ...]:
    """The networks that these texts name."""
    return tuple(ip_network(text) for text in texts)


_NOT_PUBLIC_V4: Final = networks(
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",  # Azure's wire server: a public address that only a guest of Azure reaches
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",  # holds 192.0.0.192, Oracle's metadata service
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
)
_UNICAST_V6: Final = IPv6Network("2000::/3")
_NOT_PUBLIC_V6: Final = networks("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")

#: Refused even when listed: metadata services, link-local, multicast, "this host", and every form of IPv6 address that
#: carries an IPv4 one, so that listing a wide IPv6 network opens no back door to these.
_NEVER: Final = networks(
    "0.0.0.0/8",
    "100.100.100.200/32",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "192.0.0.192/32",
    "224.0.0.0/4",
    "255.255.255.255/32",
    "::/128",
    "::ffff:0:0/96",
    "::ffff:0:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "2001::/32",
    "2002::/16",
    "fd00:ec2::254/128",
    "fd20:ce::254/128",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
)
#: IPv4-compatible addresses, deprecated; ::1 lies in it and is the one that can be listed.
_V4_COMPATIBLE: Final = IPv6Network("::/96")
_LOOPBACK_V6: Final = IPv6Address("::1")


def is_public(address: IPAddress) -> bool:
    """Whether the address is one that anybody on the Internet can reach."""
    if isinstance(address, IPv4Address):
        return not any(holds(network, address) for network in _NOT_PUBLIC_V4)
    return address in _UNICAST_V6 and not any(holds(network, address) for network in _NOT_PUBLIC_V6)


def is_never(address: IPAddress) -> bool:
    """Whether the address is refused whatever the operator listed."""
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return True
        if address in _V4_COMPATIBLE:
            return address != _LOOPBACK_V6
    return any(holds(network, address) for network in _NEVER)


def holds(network: IPNetwork, address: IPAddress) -> bool:
    """Whether the address lies in the network; False across versions."""
    return network.version == address.version and address in network
