"""What the demo prints for the v1 API: a key, which that API wants in open mode too, and lines that use it.

A key's text is kept nowhere, so each start gives the demo's key a new one. The pictures of the swap are the portraits that
``demo_media`` takes from packages, as they lie on the web in the repositories of those packages, at a tag.
"""

from __future__ import annotations

import json
from typing import Final

from gateway.accounts import Key, KeyKind
from gateway.engine.accounts import PAGE, Accounts, NewKey
from gateway.engine.credits import Credits
from gateway.ledger import Purse

NAME: Final = "demo"
#: What there is to spend at each start.
CREDITS: Final = 100
FACE_URL: Final = "https://raw.githubusercontent.com/matplotlib/matplotlib/v3.10.0/lib/matplotlib/mpl-data/sample_data/grace_hopper.jpg"
TARGET_URL: Final = "https://raw.githubusercontent.com/scikit-image/scikit-image/v0.25.2/skimage/data/astronaut.png"


async def fresh_key(accounts: Accounts, credits_of: Credits) -> str:
    """The text of the demo's key, whose user has ``CREDITS``; the text before it opens nothing any more.

    Raises:
        GatewayError: it cannot be stored.
    """
    known = await _key(accounts)
    made = NewKey(name=NAME, kind=KeyKind.TEST)
    told = await (accounts.create_key(made) if known is None else accounts.rotate_key(known.id))
    user = told.holder.user
    missing = CREDITS - (await credits_of.account(user.id)).balance.total
    if missing > 0:
        await credits_of.grant(user.name, Purse.PERMANENT, missing)
    return told.text


async def _key(accounts: Accounts) -> Key | None:
    after = ""
    while holders := await accounts.keys(after=after, limit=PAGE):
        for holder in holders:
            if holder.key.name == holder.user.name == NAME and holder.key.revoked_at is None:
                return holder.key
        after = holders[-1].key.id
    return None


def lines(url: str, key: str) -> str:
    """Commands for a shell: what the key has to spend, and a swap that is waited for.

    Args:
        url: of the gateway, without a slash at its end.
        key: its text.
    """
    swap = json.dumps({"type": "image", "source_url": FACE_URL, "target_url": TARGET_URL})
    return (
        f'curl -sS {url}/api/v1/me -H "Authorization: Bearer {key}"\n'
        f'curl -sS "{url}/api/v1/swaps?wait=true" -H "Authorization: Bearer {key}" \\\n'
        f"  -H \"Content-Type: application/json\" -d '{swap}'"
    )
