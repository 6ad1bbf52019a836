"""For clients that speak plain HTTP: without it each of them reads the authorities of the web, 15 ms of processor time."""

from __future__ import annotations

import ssl

#: As ``verify=``. It trusts nobody, so that nothing is reached over TLS with it.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
