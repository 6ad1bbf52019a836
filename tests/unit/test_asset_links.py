"""A link opens one file until its moment, and nothing else opens anything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.asset_links import LIFE_SECONDS, AssetLinks

NOW = 1_750_258_800.5
LINKS = AssetLinks(bytes(32))


def test_a_link_opens_what_it_was_made_for_until_its_moment():
    link = LINKS.make("a", now=NOW)
    assert link.expires_at == int(NOW) + LIFE_SECONDS
    assert link.query == f"expires={link.expires_at}&signature={link.signature}"
    assert LINKS.opens("a", str(link.expires_at), link.signature, now=link.expires_at - 0.5)
    assert not LINKS.opens("a", str(link.expires_at), link.signature, now=link.expires_at)


def test_a_link_promises_no_more_than_the_file_lasts():
    assert LINKS.make("a", now=NOW, until=NOW + 10).expires_at == int(NOW + 10)
    assert LINKS.make("a", now=NOW, until=NOW + 1e6).expires_at == int(NOW) + LIFE_SECONDS


def test_another_file_moment_or_key_is_refused():
    link = LINKS.make("a", now=NOW)
    assert not LINKS.opens("b", str(link.expires_at), link.signature, now=NOW)
    assert not LINKS.opens("a", str(link.expires_at + 1), link.signature, now=NOW)
    assert not LINKS.opens("a", f"0{link.expires_at}", link.signature, now=NOW)
    assert not LINKS.opens("a", str(link.expires_at), link.signature[:-1], now=NOW)
    assert not AssetLinks(b"k" * 32).opens("a", str(link.expires_at), link.signature, now=NOW)


@given(
    st.text(),
    st.text() | st.from_regex(r"[0-9]{1,12}"),
    st.text() | st.binary().map(lambda data: data.decode("latin-1")),
)
def test_no_text_opens_anything_or_breaks(asset_id, expires, signature):
    assert not LINKS.opens(asset_id, expires, signature, now=NOW)
    assert not LINKS.opens("\ud800", expires, signature, now=NOW)
