"""Prices follow what was measured, never round down to nothing, and nothing declared counts."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit import MediaFacts, MediaKind
from gateway.pricing import PricePer, Pricing, least_price, price_of
from gateway.template import load_template

ROOT = Path(__file__).resolve().parents[2]

FIVE_A_SECOND = Pricing(5, PricePer.SECOND)


def moving(seconds, width=1280, height=720, kind=MediaKind.VIDEO):
    return MediaFacts(
        kind, "video/mp4", ".mp4", width, height, 25, Fraction(25), seconds, has_audio=False, video_codec="h264"
    )


PHOTO = MediaFacts(MediaKind.IMAGE, "image/png", ".png", 9000, 9000, 1, None, None, has_audio=False, video_codec=None)


@pytest.mark.parametrize(
    ("seconds", "width", "height", "cost"),
    [
        (10, 1280, 720, 50),
        (10, 720, 1280, 50),
        (10.0000001, 1280, 720, 50),
        (9.9999999, 1280, 720, 50),
        (10.01, 1280, 720, 51),
        (10, 640, 360, 13),  # a quarter of the pixels, rounded up
        (10, 1920, 1080, 113),
        (0.04, 64, 48, 1),
    ],
)
def test_video_costs_seconds_by_pixels_rounded_up(seconds, width, height, cost):
    assert price_of(FIVE_A_SECOND, moving(seconds, width, height), 10) == cost


@given(st.integers(1, 100), st.floats(0.001, 3600), st.integers(16, 4096), st.integers(16, 4096))
def test_price_is_the_exact_one_rounded_up(cost, seconds, width, height):
    exact = Fraction(cost * round(1000 * seconds) * width * height, 1000 * 1280 * 720)
    price = price_of(Pricing(cost, PricePer.SECOND), moving(seconds, width, height), 10)
    assert price >= 1
    assert exact <= price < exact + 1 or price == 1


def test_price_of_a_job_is_the_same_for_every_target():
    assert price_of(Pricing(3), PHOTO, 10) == 3
    assert price_of(Pricing(3), moving(1000), 10) == 3
    assert price_of(Pricing(3, free_below_bytes=100), None, 0) == 3


def test_still_costs_the_price_of_a_job_whatever_it_is_per():
    assert price_of(FIVE_A_SECOND, PHOTO, 10) == 5


def test_target_below_the_free_size_costs_nothing_and_one_at_it_does():
    pricing = Pricing(5, PricePer.SECOND, free_below_bytes=1000)
    gif = moving(2, 320, 240, MediaKind.GIF)
    assert price_of(pricing, gif, 999) == 0
    assert price_of(pricing, gif, 1000) == 1


@given(
    pricing=st.builds(Pricing, st.integers(0, 50), st.sampled_from(PricePer), st.sampled_from([0, 1, 1000])),
    target=st.one_of(st.none(), st.just(PHOTO), st.builds(moving, st.floats(0.01, 100))),
    size_bytes=st.integers(0, 2000),
)
def test_no_job_costs_less_than_the_least_price(pricing, target, size_bytes):
    if target is not None or not pricing.free_below_bytes:
        assert price_of(pricing, target, size_bytes) >= least_price(pricing)


def test_least_price_is_that_of_a_job_or_of_its_shortest_target():
    prices = [Pricing(5), FIVE_A_SECOND, Pricing(), Pricing(5, free_below_bytes=1)]
    assert [least_price(pricing) for pricing in prices] == [5, 1, 0, 0]


def test_template_without_a_price_is_free():
    assert price_of(Pricing(0, PricePer.SECOND), moving(1000), 10) == 0


# ---- the shipped templates


@pytest.mark.parametrize(
    ("name", "target", "size_bytes", "cost"),
    [
        ("faceswap_image", PHOTO, 10, 1),
        ("faceswap_video", moving(10), 10, 10),
        ("faceswap_gif", moving(10, kind=MediaKind.GIF), 1_048_575, 0),
        ("faceswap_gif", moving(10, kind=MediaKind.GIF), 1_048_576, 10),
    ],
)
def test_shipped_templates_cost_what_was_meant(name, target, size_bytes, cost):
    assert price_of(shipped(name).pricing, target, size_bytes) == cost


@pytest.mark.parametrize("name", sorted(path.parent.name for path in ROOT.glob("workflows/*/template.toml")))
def test_page_on_credits_tells_the_price_of_each_shipped_template(name):
    found = shipped(name).pricing
    row = f"| `{name}` | {found.credits} | {found.per.value} | {found.free_below_bytes} |"
    assert row in (ROOT / "docs" / "credits.md").read_text()


def shipped(name):
    folder = ROOT / "workflows" / name
    return load_template(name, (folder / "template.toml").read_text(), (folder / "graph.json").read_text())
