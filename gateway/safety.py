"""Which URLs a client may hand us, and which addresses they may lead to; how a limit is spelled.

Decides only: no name is resolved and nothing is dialled here; ``blobs/fetch.py`` does both and asks this module about
the URL, about every address that the name resolves to, and about every redirect.

Public addresses are reached over https on port 443 and nothing else. Plain http, other ports, names without a dot and
special-use names are for what the operator listed (``GATEWAY_URL_ALLOWLIST``: networks and host names). Link-local and
metadata addresses, our own listeners and the upstreams are refused whatever is listed.

Sources: RFC 3986, RFC 6761, RFC 9110 section 15.4, and the WHATWG URL standard for what makes a host an IPv4 address.
The tables of addresses stand in ``addresses.py``.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final
from urllib.parse import quote, urljoin

from gateway.addresses import IPAddress, IPNetwork, holds, is_never, is_public, networks
from gateway.errors import InvalidInputError, SourceUnreachableError

MAX_URL_LENGTH: Final = 2048
MAX_REDIRECTS: Final = 3
HTTPS_PORT: Final = 443
_LAST_PORT: Final = 65535
#: RFC 1035's 255 bytes, without the length byte of the first label and the root's.
_LONGEST_NAME: Final = 253
_DEFAULT_PORTS: Final = {"http": 80, "https": HTTPS_PORT}
#: Statuses that mean "ask there with GET"; any other 3xx is an error.
_REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})

#: The one sentence for everything that went wrong after the URL itself was found good. It must not tell a blocked
#: address from a closed port or a missing file, or callers could map the network behind us.
UNREACHABLE: Final = "The file behind this URL could not be fetched."

_METADATA_NAMES: Final = frozenset(
    {"metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal"}
)
#: Last labels that no public name has: RFC 6761 and 9476, RFC 8375, ICANN's collision names, and habits of clusters.
_SPECIAL_LAST_LABELS: Final = frozenset(
    {"alt", "arpa", "example", "internal", "invalid", "local", "localhost", "onion", "test"}
    | {"corp", "home", "intranet", "lan", "localdomain", "mail", "private", "workgroup"}
    | {"consul", "docker", "domain", "svc"}
)
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER_LABEL: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT: Final = re.compile(r"0|[1-9][0-9]{0,4}")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_URL: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<target>[^#]*)(?:#.*)?", re.DOTALL
)


class RefusedPlaceError(InvalidInputError):
    """A URL that is written as it should be, and leads where we do not go: a literal address, a port, a special name."""


class UrlMode(StrEnum):
    """What URL inputs may reach."""

    OFF = "off"
    #: Only what is listed.
    ALLOWLIST = "allowlist"
    #: Public addresses and what is listed.
    PUBLIC = "public"


class AddressVerdict(StrEnum):
    """What is thought of one address; only PUBLIC and LISTED may be dialled. The words go to the log."""

    PUBLIC = "public"
    LISTED = "listed"
    NOT_LISTED = "refused: not listed"
    NOT_PUBLIC = "refused: not a public address"
    NEVER = "refused: link-local, metadata or multicast"
    OWN = "refused: a listener of ours or an upstream"
    MALFORMED = "refused: not an address"

    @property
    def is_allowed(self) -> bool:
        """Whether the address may be dialled."""
        return self in {AddressVerdict.PUBLIC, AddressVerdict.LISTED}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A place that URL inputs never reach: a listener of ours, or an upstream."""

    #: An IP network, or the lower-case host name of an upstream, which the fetcher resolves before it compares.
    host: IPNetwork | str
    port: int


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """What the operator allows."""

    mode: UrlMode = UrlMode.PUBLIC
    networks: tuple[IPNetwork, ...] = ()
    #: Lower case, no trailing dot.
    host_names: frozenset[str] = frozenset()
    refused: tuple[Endpoint, ...] = ()

    @classmethod
    def from_settings(cls, mode: UrlMode, allow_list: tuple[str, ...], refused: tuple[Endpoint, ...] = ()) -> UrlPolicy:
        """The policy that the settings describe.

        Args:
            mode: GATEWAY_URL_INPUTS.
            allow_list: GATEWAY_URL_ALLOWLIST, one entry each: "192.168.0.0/16", "10.1.2.3", "::1" or "nas.lan".
            refused: our own listeners and the upstreams.

        Raises:
            InvalidInputError: an entry is neither a network nor a host name.
        """
        networks: list[IPNetwork] = []
        names: set[str] = set()
        for entry in allow_list:
            text = entry.strip().lower()
            try:
                networks.append(ip_network(text, strict=False))
            except ValueError:
                name = text.removesuffix(".")
                if not _is_host_name(name):
                    raise InvalidInputError(
                        f"{entry!r} is neither a network nor a host name.", field="url_allowlist"
                    ) from None
                names.add(name)
        return cls(mode=mode, networks=tuple(networks), host_names=frozenset(names), refused=refused)


@dataclass(frozen=True, slots=True)
class SafeUrl:
    """A URL whose text is beyond doubt; what its host resolves to is still to be judged."""

    scheme: str
    #: Lower case; an IPv6 literal stands without brackets.
    host: str
    port: int
    #: Path and query as they go on the wire; ASCII. Never logged.
    target: str = field(repr=False)
    #: The host, when it is a literal.
    literal: IPAddress | None = None
    #: Only a listed address will do: the scheme, the port or the name is not one for public places.
    needs_listed: bool = False

    @property
    def host_header(self) -> str:
        """What the Host field carries."""
        host = f"[{self.host}]" if isinstance(self.literal, IPv6Address) else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse_url(text: str, policy: UrlPolicy, *, field: str | None = None, https_only: bool = False) -> SafeUrl:
    """What a URL input says, once its text has been found unambiguous and allowed.

    A host name passes here without having been resolved; a literal address has been judged fully.

    Args:
        text: the URL exactly as the client sent it; nothing is trimmed or mended.
        policy: what the operator allows.
        field: the request field, for the error.
        https_only: refuse http even where the allow-list permits it.

    Raises:
        RefusedPlaceError: its text is sound, and leads where we do not go; a sentence for the client as well.
        InvalidInputError: with a sentence for the client.
    """
    if policy.mode is UrlMode.OFF:
        raise InvalidInputError("This gateway takes no URLs; upload the file instead.", field=field)
    try:
        return _judge(_split(text), policy, https_only=https_only)
    except _RefusedError as error:
        kind = RefusedPlaceError if isinstance(error, _RefusedPlaceError) else InvalidInputError
        raise kind(f"The URL was refused: {error}.", field=field) from None


def redirect_url(
    current: SafeUrl, status: int, location: bytes | None, policy: UrlPolicy, *, https_only: bool
) -> SafeUrl:
    """Where a redirect leads, judged like a URL that a client sent.

    Raises:
        SourceUnreachableError: no redirect that we follow, or one to a place that we do not go.
    """
    if status not in _REDIRECT_STATUSES or not location:
        raise SourceUnreachableError(UNREACHABLE)
    try:
        text = location.decode("utf-8")
        # Before urljoin sees it: that one drops tabs, newlines and leading spaces without a word.
        _refuse_odd_characters(text)
        target = parse_url(_absolute(current, text), policy, https_only=https_only)
    except (InvalidInputError, _RefusedError, ValueError) as error:
        raise SourceUnreachableError(UNREACHABLE) from error
    if current.scheme == "https" and target.scheme == "http":
        raise SourceUnreachableError(UNREACHABLE)
    return target


def _absolute(current: SafeUrl, reference: str) -> str:
    """A Location as a URL. What has a scheme stays as it is: urljoin reads "https://?" as relative to an https base."""
    if _SCHEME.match(reference):
        return reference
    if reference.startswith("//"):
        return f"{current.scheme}:{reference}"
    return urljoin(f"{current.scheme}://{current.host_header}{current.target}", reference)


def judge_address(address: str, url: SafeUrl, policy: UrlPolicy) -> AddressVerdict:
    """Whether one address, as the resolver spelled it, may be dialled for this URL.

    Endpoints in ``policy.refused`` that stand under a host name are not looked at here: see ``named_endpoints``.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return AddressVerdict.MALFORMED
    return _refusal(parsed, url, policy) or _permission(parsed, url, policy)


def _refusal(parsed: IPAddress, url: SafeUrl, policy: UrlPolicy) -> AddressVerdict | None:
    """What no list can lift."""
    if is_never(parsed):
        return AddressVerdict.NEVER
    if any(
        not isinstance(end.host, str) and end.port == url.port and holds(end.host, parsed) for end in policy.refused
    ):
        return AddressVerdict.OWN
    return None


def _permission(parsed: IPAddress, url: SafeUrl, policy: UrlPolicy) -> AddressVerdict:
    if url.host in policy.host_names or any(holds(network, parsed) for network in policy.networks):
        return AddressVerdict.LISTED
    if policy.mode is not UrlMode.PUBLIC or url.needs_listed:
        return AddressVerdict.NOT_LISTED
    return AddressVerdict.PUBLIC if is_public(parsed) else AddressVerdict.NOT_PUBLIC


def named_endpoints(url: SafeUrl, policy: UrlPolicy) -> tuple[str, ...]:
    """Names of refused endpoints on this URL's port: their addresses have to be compared with the URL's."""
    return tuple(sorted({end.host for end in policy.refused if isinstance(end.host, str) and end.port == url.port}))


def listener_endpoints(host: str, port: int, local_addresses: tuple[str, ...] = ()) -> tuple[Endpoint, ...]:
    """The endpoints of a listener of ours.

    Args:
        host: the address it is bound to; a wildcard stands for loopback and every local address.
        port: its port.
        local_addresses: the addresses of this machine's interfaces, used for a wildcard only.
    """
    try:
        bound = ip_address(host)
    except ValueError:
        return (Endpoint(host.lower(), port),)
    if not bound.is_unspecified:
        return (Endpoint(ip_network(bound), port),)
    return tuple(Endpoint(network, port) for network in networks("127.0.0.0/8", "::1/128", *local_addresses))


def spell_bytes(size_bytes: int) -> str:
    """A limit as people write it: "25 MiB"."""
    for unit, name in ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB")):
        if size_bytes >= unit and size_bytes % unit == 0:
            return f"{size_bytes // unit} {name}"
    return f"{size_bytes} bytes"


class _RefusedError(Exception):
    """Half a sentence about a URL; ``parse_url`` makes it whole."""


class _RefusedPlaceError(_RefusedError):
    """The same about where it leads, not about how it is written."""


@dataclass(frozen=True, slots=True)
class _Parts:
    scheme: str
    host: str
    port: int
    target: str
    literal: IPAddress | None


def _split(text: str) -> _Parts:
    if len(text) > MAX_URL_LENGTH:
        raise _RefusedError(f"it is longer than {MAX_URL_LENGTH} characters")
    _refuse_odd_characters(text)
    match = _URL.fullmatch(text)
    if match is None:
        raise _RefusedError("it does not have the form https://host/path")
    scheme = match["scheme"].lower()
    if scheme not in _DEFAULT_PORTS:
        raise _RefusedError("its scheme is not https")
    host, port = _split_authority(match["authority"], _DEFAULT_PORTS[scheme])
    target = match["target"]
    if not target.startswith("/"):
        target = "/" + target
    literal = _literal(host)
    bare = str(literal) if literal is not None else host
    # Non-ASCII goes on the wire as percent-encoded UTF-8, as browsers send it; ASCII stays as it is.
    wire = "".join(char if char.isascii() else quote(char) for char in target)
    return _Parts(scheme=scheme, host=bare, port=port, target=wire, literal=literal)


def _refuse_odd_characters(text: str) -> None:
    # Cc, Cf, Cs, Co, Cn and Zs, Zl, Zp: what parsers drop, trim or do not show.
    if any(char == "\\" or unicodedata.category(char)[0] in "CZ" for char in text):
        raise _RefusedError("it holds a space, a backslash or a character that cannot be seen")


def _split_authority(authority: str, default_port: int) -> tuple[str, int]:
    if not authority.isascii() or "@" in authority or "%" in authority:
        raise _RefusedError("its host holds a user name, an escape or a character outside ASCII")
    host, colon, port_text = authority, "", ""
    if authority.startswith("["):
        host, bracket, rest = authority.partition("]")
        host += bracket
        colon, port_text = rest[:1], rest[1:]
        if colon not in {"", ":"}:
            raise _RefusedError("its host is malformed")
    elif ":" in authority:
        host, colon, port_text = authority.partition(":")
    if not colon:
        return host.lower(), default_port
    if not _PORT.fullmatch(port_text) or not 1 <= int(port_text) <= _LAST_PORT:
        raise _RefusedError("its port is malformed")
    return host.lower(), int(port_text)


def _literal(host: str) -> IPAddress | None:
    """The address that a host is, or None for a name; anything between the two is refused."""
    if host.startswith("["):
        try:
            return IPv6Address(host[1:-1])
        except ValueError:
            raise _RefusedError("its IPv6 address is malformed") from None
    if not _is_host_name(host):
        raise _RefusedError("its host is malformed")
    if not _NUMBER_LABEL.fullmatch(host.rpartition(".")[2]):
        return None
    # Everything that ends in a number is an address to some resolver: 127.1, 0x7f.1, 2130706433.
    try:
        return IPv4Address(host)
    except ValueError:
        raise _RefusedError("its IPv4 address is not written as four decimal numbers") from None


def _is_host_name(host: str) -> bool:
    return 0 < len(host) <= _LONGEST_NAME and all(_LABEL.fullmatch(label) for label in host.split("."))


def _judge(parts: _Parts, policy: UrlPolicy, *, https_only: bool) -> SafeUrl:
    if parts.host in _METADATA_NAMES:
        raise _RefusedPlaceError("its host is not one to fetch from")
    if https_only and parts.scheme != "https":
        raise _RefusedError("its scheme is not https")
    objection = _objection(parts)
    if objection is None and policy.mode is not UrlMode.PUBLIC:
        objection = "its host is not on this gateway's list"
    if objection is not None and parts.host not in policy.host_names and not policy.networks:
        raise _RefusedPlaceError(objection)
    url = SafeUrl(
        scheme=parts.scheme,
        host=parts.host,
        port=parts.port,
        target=parts.target,
        literal=parts.literal,
        needs_listed=objection is not None,
    )
    if parts.literal is not None and not judge_address(parts.host, url, policy).is_allowed:
        raise _RefusedPlaceError(objection or "its host is not one to fetch from")
    return url


def _objection(parts: _Parts) -> str | None:
    """Why a URL is not one for public places; None when it is."""
    if parts.scheme != "https":
        return "its scheme is not https"
    if parts.port != HTTPS_PORT:
        return f"its port is not {HTTPS_PORT}"
    if parts.literal is not None:
        return None
    labels = parts.host.split(".")
    if len(labels) == 1 or labels[-1] in _SPECIAL_LAST_LABELS:
        return "its host is not a public name"
    return None
