"""Who may knock, who calls, and what they may do. Decisions only: values in, a verdict out; ``app.py`` acts on them.

In open mode there is no key, so a request must prove that it does not come from a stranger's web page:

- **Host** names this machine, PUBLIC_URL's host or one of ALLOWED_HOSTS, else 421. A page that rebinds its own name to
  127.0.0.1 still sends its own name.
- What **changes** anything carries no foreign ``Origin`` and no ``Sec-Fetch-Site`` of another site or port, else 403.
- What **reads** an owner's things is refused to foreign pages too, unless a person follows a link; and no answer carries
  CORS headers unless CORS_ORIGINS lists the page's origin.
- A request that came through a **proxy** nobody configured gets 403: behind one, every stranger looks like loopback.

In keys mode a key stands for all that, or the admin token; browsers send it for nobody by themselves. A WebSocket's
``Origin`` is checked in both modes, because browsers ask nobody before they open one. Sources: RFC 9110 (Host,
Authorization), RFC 6454 (Origin), W3C Fetch Metadata, RFC 7239 (Forwarded).

Whose key it is that somebody presents is asked in ``gatekeeper.py``.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Self
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from gateway.accounts import Key, Keyholder, Scope, User, looks_like_a_key
from gateway.errors import ForbiddenError, InvalidInputError, InvalidKeyError, MisdirectedError, UnauthorizedError
from gateway.settings import LOOPBACK_NAMES, Settings
from gateway.workflow_rules import NodeRules

#: The owner in open mode, and whoever has the admin token.
LOCAL_OWNER: Final = "local"
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

#: What we agree to on a WebSocket, and how a page offers its key beside it.
SUBPROTOCOL: Final = "gateway.v1"
BEARER_SUBPROTOCOL: Final = "gateway.bearer."
#: RFC 6750 section 2.1: what a Bearer token is made of; the admin token may be any visible ASCII.
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,512}")
_NEEDS_KEY: Final = "This needs a key: Authorization: Bearer <key>, or X-API-Key: <key>."
_NEEDS_ADMIN: Final = "This needs the admin token, or a key with scope admin: Authorization: Bearer <token>."
_HOST: Final = re.compile(r"(?P<name>\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::(?P<port>[0-9]{1,5}))?")
_LAST_PORT: Final = 65_535
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_FOREIGN_SITES: Final = frozenset({"cross-site", "same-site"})
#: What a proxy adds. One is enough to show that there was one: some name the client in X-Real-IP alone.
_PROXY_HEADERS: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
#: Node of RFC 7239 section 6 that is an address: [v6], v4, each with a port or without; bare v6 as X-Forwarded-For has it.
_NODE: Final = re.compile(r'"?(?:\[(?P<v6>[^\]]*)\]|(?P<v4>[0-9.]+))(?::[0-9]{1,5})?"?|(?P<bare>[0-9a-fA-F:.]+)')


class Access(Enum):
    """Who may use an endpoint."""

    #: Anybody, in every mode: pages, readiness, links that carry their own secret.
    PUBLIC = "public"
    #: The owner: everybody in open mode; in keys mode whoever has a key with scope ``jobs``, or the admin token.
    OWNER = "owner"
    #: Whoever has a key with scope ``jobs``, in every mode. The admin token is none: it is nobody's account.
    KEY = "key"
    #: Whoever has the admin token or a key with scope ``admin``, in every mode.
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    #: Whose jobs these are: the id of the key, ``local`` without one.
    owner: str
    #: Who shares fairly with whom: the owner, in open mode the client's address.
    submitter: str
    is_admin: bool
    #: The key that was presented, and whose it is; None in open mode, and with the admin token.
    key: Key | None = None
    user: User | None = None

    @property
    def node_rules(self) -> NodeRules | None:
        """What the key says of the node classes in its own workflows; None where that is nothing, and without a key."""
        return None if self.key is None else self.key.node_rules


@dataclass(frozen=True, slots=True)
class Doors:
    """The rules, worked out once from the settings."""

    is_open: bool
    #: Host names served, lower case; None serves every one.
    hosts: frozenset[str] | None
    #: Origins of pages that may do everything, lower case: CORS_ORIGINS.
    cors_origins: frozenset[str]
    #: Origin of PUBLIC_URL.
    public_origin: str | None
    proxies: tuple[IPv4Network | IPv6Network, ...]
    admin_token: bytes | None

    @classmethod
    def from_settings(cls, settings: Settings, admin_token: str | None) -> Self:
        """The rules that the settings make.

        Raises:
            ValueError: TRUSTED_PROXIES names something that is no address and no CIDR.
        """
        public = urlsplit(settings.public_url or "")
        named = {host.lower().strip("[]") for host in settings.allowed_hosts}
        is_open = settings.auth == "open"
        hosts = named | ({public.hostname} if public.hostname else set()) | (LOOPBACK_NAMES if is_open else set())
        return cls(
            is_open=is_open,
            # "*" says in keys mode what saying nothing says; open mode has no such thing.
            hosts=frozenset(hosts) if is_open or (named and "*" not in named) else None,
            cors_origins=frozenset(origin.lower().rstrip("/") for origin in settings.cors_origins),
            public_origin=f"{public.scheme}://{public.netloc}".lower() if public.netloc else None,
            proxies=tuple(ip_network(proxy, strict=False) for proxy in settings.trusted_proxies),
            admin_token=admin_token.encode() if admin_token else None,
        )

    # ------------------------------------------------------------------------------------------- before the router

    def require_way_in(self, headers: Headers, peer: str | None) -> None:
        """The request names us, and came on a way that we know.

        Raises:
            ForbiddenError: through a proxy that nobody configured, in open mode.
            MisdirectedError: the Host is not ours.
            InvalidInputError: more than one Host.
        """
        is_forwarded = any(name in headers for name in _PROXY_HEADERS)
        if self.is_open and is_forwarded and not self._is_proxy(peer):
            raise ForbiddenError(
                "This came through a proxy that is not configured: set GATEWAY_TRUSTED_PROXIES to the proxy's address, "
                "or GATEWAY_AUTH=keys."
            )
        hosts = headers.getlist("host")
        if len(hosts) > 1:
            raise InvalidInputError("The request has more than one Host header.")
        if self.hosts is None:
            return
        name = host_name(hosts[0]) if hosts else None
        if name not in self.hosts:
            raise MisdirectedError(
                "This host name is not served here; GATEWAY_PUBLIC_URL or GATEWAY_ALLOWED_HOSTS can add it."
            )

    def require_own_page(self, headers: Headers) -> None:
        """What changes something does not come from a stranger's page (open mode).

        Raises:
            ForbiddenError: it does.
        """
        if self.is_open and self._is_foreign(headers):
            raise ForbiddenError("A page of another origin may not do this.")

    def require_reader(self, headers: Headers) -> None:
        """An owner's things are read by the owner's programs and pages, or by following a link (open mode).

        Raises:
            ForbiddenError: a stranger's page asked.
        """
        is_followed_link = headers.get("sec-fetch-mode") == "navigate" and "origin" not in headers
        if self.is_open and not is_followed_link and self._is_foreign(headers):
            raise ForbiddenError("A page of another origin may not read this.")

    def require_socket_origin(self, headers: Headers) -> None:
        """A WebSocket is opened by a program, or by a page of ours (both modes).

        Raises:
            ForbiddenError: the Origin is foreign or ``null``.
        """
        if "origin" in headers and not self._is_known_origin(headers):
            raise ForbiddenError("A page of another origin may not open this.")

    def cors_origin(self, headers: Headers) -> str | None:
        """The page's origin, when CORS_ORIGINS lists it."""
        origin = headers.get("origin")
        return origin if origin is not None and origin.lower() in self.cors_origins else None

    # -------------------------------------------------------------------------------------------- at each endpoint

    def presented(self, headers: Headers, subprotocols: Sequence[str] = ()) -> str | None:
        """What somebody shows to be let in: one Bearer token, or one X-API-Key; None when nothing is shown.

        A page cannot set headers of a WebSocket, but subprotocols: ``gateway.bearer.<base64url of the key>``, and
        beside it ``gateway.v1``, which is what we agree to, so that the key is not sent back.

        Raises:
            UnauthorizedError: several are shown, or it is of another form.
        """
        authorization, api_key = headers.getlist("authorization"), headers.getlist("x-api-key")
        offered = [
            name.removeprefix(BEARER_SUBPROTOCOL) for name in subprotocols if name.startswith(BEARER_SUBPROTOCOL)
        ]
        shown = len(authorization) + len(api_key) + len(offered)
        if not shown:
            return None
        if shown > 1:
            raise UnauthorizedError("Send one key, in one header: Authorization: Bearer <key>, or X-API-Key: <key>.")
        if offered:
            return _offered_token(offered[0], subprotocols)
        scheme, _, token = authorization[0].partition(" ") if authorization else ("bearer", "", api_key[0])
        token = token.strip(" ")
        if scheme.lower() != "bearer" or _TOKEN.fullmatch(token) is None:
            raise UnauthorizedError(_NEEDS_KEY)
        return token

    def matters(self, access: Access, presented: str | None) -> bool:
        """Whether it makes a difference who presents what.

        Open mode asks nobody for a key; there one that is shown is asked about when it is meant to be one of ours.
        """
        if access is Access.OWNER and self.is_open:
            return presented is not None and looks_like_a_key(presented)
        return access is not Access.PUBLIC

    def is_admin_token(self, presented: str | None) -> bool:
        """Whether it is the admin token."""
        if self.admin_token is None or presented is None:
            return False
        return hmac.compare_digest(presented.encode(), self.admin_token)

    def stranger(self, headers: Headers, peer: str | None, *, is_admin: bool) -> Caller | None:
        """Who calls without a key: the one owner, where there is one; None for a stranger in keys mode."""
        if self.is_open:
            return Caller(LOCAL_OWNER, self.client_address(headers, peer), is_admin)
        return Caller(LOCAL_OWNER, LOCAL_OWNER, is_admin=True) if is_admin else None

    def require_access(self, access: Access, caller: Caller | None, *, has_shown: bool) -> None:
        """The caller may use an endpoint of this access.

        Args:
            access: the endpoint's.
            caller: who was found; None for nobody.
            has_shown: something was presented.

        Raises:
            UnauthorizedError: a key is needed and none was shown.
            InvalidKeyError: what was shown is not what it needs, and no key.
            ForbiddenError: the key may not do this; or this gateway has no admin token.
        """
        if access is Access.PUBLIC:
            return
        if access is Access.ADMIN and self.admin_token is None and not has_shown:
            raise ForbiddenError("This gateway was started without an admin token.")
        if caller is None or (access is Access.ADMIN and caller.key is None and not caller.is_admin):
            raise InvalidKeyError if has_shown else UnauthorizedError(_sentence(access))
        if caller.key is None:
            if access is Access.KEY:
                raise InvalidKeyError if has_shown else UnauthorizedError(_NEEDS_KEY)
            return
        needed = Scope.ADMIN if access is Access.ADMIN else Scope.JOBS
        if not caller.key.may(needed):
            raise ForbiddenError(f"This needs a key with the scope {needed.value}.")

    def client_address(self, headers: Headers, peer: str | None) -> str:
        """The client's address: the peer's, or the last one before our own proxies.

        X-Forwarded-For stands before Forwarded: a proxy has to write the first, or to take it away.
        """
        if not self._is_proxy(peer):
            return peer or LOCAL_OWNER
        nearest = peer or LOCAL_OWNER
        # From the right, because everything left of the last hop that is not ours was written by that hop.
        for hop in reversed(_hops(headers)):
            address = _node_address(hop)
            if address is None:  # "unknown", hidden or nonsense: what is left of it says nothing about us
                break
            nearest = str(address)
            if not self._is_ours(address):
                break
        return nearest

    def _is_proxy(self, peer: str | None) -> bool:
        if peer is None or not self.proxies:
            return False
        address = _address(peer)
        return address is not None and self._is_ours(address)

    def _is_ours(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self.proxies if network.version == address.version)

    def _is_foreign(self, headers: Headers) -> bool:
        if "origin" in headers:
            return not self._is_known_origin(headers)
        return headers.get("sec-fetch-site") in _FOREIGN_SITES

    def _is_known_origin(self, headers: Headers) -> bool:
        origins = headers.getlist("origin")
        if len(origins) != 1:
            return False
        origin = origins[0].lower()
        if origin in self.cors_origins or origin == self.public_origin:
            return True
        # "Site" forgives a subdomain and a port; where the browser says that much, the origin must be listed.
        if headers.get("sec-fetch-site") in _FOREIGN_SITES:
            return False
        return _is_same_host(origin, headers.get("host", ""))


def host_name(host: str) -> str | None:
    """The name in a Host header, lower case and without brackets; None when it is malformed."""
    match = _HOST.fullmatch(host)
    if match is None or int(match["port"] or 0) > _LAST_PORT:
        return None
    return match["name"].lower().strip("[]")


def _is_same_host(origin: str, host: str) -> bool:
    """Whether an origin (http or https: a proxy may have taken TLS off) is the host and port that was asked."""
    scheme, separator, authority = origin.partition("://")
    default = _DEFAULT_PORTS.get(scheme)
    theirs, ours = _HOST.fullmatch(authority), _HOST.fullmatch(host.lower())
    if not separator or default is None or theirs is None or ours is None:
        return False
    return (theirs["name"], int(theirs["port"] or default)) == (ours["name"], int(ours["port"] or default))


def _hops(headers: Headers) -> list[str]:
    """Who was in between as the proxies name them, the client first. RFC 7239 section 4 for Forwarded."""
    if lines := headers.getlist("x-forwarded-for"):
        return [part.strip() for line in lines for part in line.split(",")]
    # A comma in quotes would split an element in two, and neither half would be an address: that ends the chain there.
    return [_for_parameter(element) for line in headers.getlist("forwarded") for element in line.split(",")]


def _for_parameter(element: str) -> str:
    """The node behind ``for=`` of one element; "" when the hop did not name it."""
    parameters = (parameter.partition("=") for parameter in element.split(";"))
    return next((value.strip() for name, _, value in parameters if name.strip().lower() == "for"), "")


def _node_address(node: str) -> IPv4Address | IPv6Address | None:
    match = _NODE.fullmatch(node)
    return _address(match["v6"] or match["v4"] or match["bare"] or "") if match else None


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # A listener on :: sees IPv4 clients as ::ffff:a.b.c.d.
    return getattr(address, "ipv4_mapped", None) or address


def _offered_token(encoded: str, subprotocols: Sequence[str]) -> str:
    if SUBPROTOCOL not in subprotocols:
        raise UnauthorizedError(f"Offer the subprotocol {SUBPROTOCOL} beside the one with the key.")
    try:
        token = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True).decode("ascii")
    except ValueError:
        token = ""
    if _TOKEN.fullmatch(token) is None:
        raise UnauthorizedError(_NEEDS_KEY)
    return token


def caller_of(holder: Keyholder) -> Caller:
    """Who calls with a key."""
    key = holder.key
    return Caller(key.id, key.id, key.may(Scope.ADMIN), key, holder.user)


def _sentence(access: Access) -> str:
    return _NEEDS_ADMIN if access is Access.ADMIN else _NEEDS_KEY
