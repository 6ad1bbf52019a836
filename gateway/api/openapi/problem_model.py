"""The shape of an error that belongs to no dialect, or that was asked for as a problem (RFC 9457)."""

from __future__ import annotations

from gateway.api.openapi.vocabulary import Model


class Problem(Model):
    """An error, by RFC 9457, with our code and field beside its members."""

    type: str
    """Always `about:blank`."""
    title: str
    """What the status is called."""
    status: int
    detail: str
    """A sentence for people."""
    code: str
    """A word for programs."""
    field: str | None = None
    """The field of the request that is at fault, where there is one."""
    request_id: str
    """As in `X-Request-ID`."""
