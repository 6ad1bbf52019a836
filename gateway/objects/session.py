"""boto3's client for one place: where its credentials come from, whom it speaks to, how long it waits.

Credentials come from boto3's usual chain: the environment (``AWS_ACCESS_KEY_ID`` and its like), profiles, roles. With an
endpoint of the operator's own the last links of that chain are left out, the roles that a machine or container of Amazon's
has: their session token would be sent to somebody else, and the metadata service is nobody's to be asked there.

What boto3 would decide by itself is decided here: no proxies and no endpoints from the environment (the URL says where to),
no retries (``s3.py`` has its own), signatures of version 4 in links too, and no checksums in trailers, which many servers do
not understand; what is sent carries its MD5 instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from gateway.object_url import ObjectUrl

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

CONNECT_SECONDS: Final = 5.0
#: Of silence, while reading and while writing.
READ_SECONDS: Final = 30.0
DEFAULT_REGION: Final = "us-east-1"
#: Roles of Amazon's own machines and containers, as botocore calls what asks for them.
_AMAZON_ROLES: Final = ("iam-role", "container-role")


class NoCredentialsFoundError(Exception):
    """Nobody says who we are; one sentence."""


def open_client(place: ObjectUrl, *, connections: int, ca_file: Path | None = None) -> S3Client:
    """A client that threads may share. Blocking: it reads files, and may ask for a role.

    Args:
        place: whom it speaks to.
        connections: at a time.
        ca_file: PEM bundle that is trusted besides boto3's authorities, or those of AWS_CA_BUNDLE.

    Raises:
        NoCredentialsFoundError: there are none, or half ones.
        OSError: the bundle cannot be read, or holds no certificate.
    """
    core = botocore.session.get_session()
    if place.endpoint is not None:
        resolver = core.get_component("credential_provider")
        for role in _AMAZON_ROLES:
            resolver.remove(role)
    session = boto3.Session(botocore_session=core)
    try:
        found = session.get_credentials()
    except BotoCoreError as error:
        raise NoCredentialsFoundError(f"the credentials cannot be read ({type(error).__name__})") from error
    if found is None:
        raise NoCredentialsFoundError("there are no credentials")
    client: S3Client = session.client(
        "s3",
        endpoint_url=place.endpoint,
        region_name=place.region or session.region_name or DEFAULT_REGION,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": place.addressing},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=connections,
            proxies={},
            ignore_configured_endpoint_urls=True,  # type: ignore[call-arg] # the stubs do not know it
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            defaults_mode="legacy",  # type: ignore[arg-type] # the stubs take it for a bool
            user_agent_extra="comfygate",
        ),
    )
    if place.endpoint is not None:
        client.meta.events.register("before-call.s3", _stay_here)
    if ca_file is not None:
        _trust(client, ca_file)
    return client


def _stay_here(context: dict[str, Any], **_: object) -> None:
    """Follow no redirect: botocore would ask Amazon's way for the bucket's region, and be sent on again without an end."""
    context.setdefault("s3_redirect", {})["redirected"] = True


def _trust(client: S3Client, ca_file: Path) -> None:
    """Trust more authorities. What boto3 takes as ``verify`` would stand in the place of all others."""
    untyped: Any = client
    manager = untyped._endpoint.http_session._manager  # noqa: SLF001 - there is no other way; a test asks a server
    manager.connection_pool_kw["ssl_context"].load_verify_locations(ca_file)
