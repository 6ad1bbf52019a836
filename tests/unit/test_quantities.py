"""Numbers that a template works out (``quantities.py``)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit import MediaFacts, MediaKind
from gateway.binding import check_parameters
from gateway.errors import InvalidInputError, TemplateError
from gateway.quantities import check_quantities, derived_value, promise_of, work_facts
from gateway.template import load_template

ROOT = Path(__file__).parents[2]
PHOTO = MediaFacts(MediaKind.IMAGE, "image/jpeg", ".jpg", 1200, 900, 1, None, None, has_audio=False, video_codec=None)


def shipped(name):
    folder = ROOT / "workflows" / name
    return load_template(name, (folder / "template.toml").read_text(), (folder / "graph.json").read_text())


LANCZOS, MODEL = shipped("image_upscale_lanczos"), shipped("image_upscale_model")
CREATION, FILM, SWAP = shipped("image_creation"), shipped("video_creation"), shipped("faceswap_image")


def filled(template, **given):
    return check_parameters(template, given, draw=lambda least, most: most)


def promised(template, parameters, facts):
    return promise_of(template, template.outputs["result"], parameters, facts)


def refusal(template, facts=None, **given):
    with pytest.raises(InvalidInputError) as caught:
        check_quantities(template, filled(template, **given), facts or {})
    return caught.value


@pytest.mark.parametrize("template", [LANCZOS, MODEL])
def test_enlarged_picture_is_promised_to_the_pixel(template):
    promise = promised(template, filled(template, scale_factor=3), {"target": PHOTO})
    assert (promise.kind, promise.width, promise.height) == (MediaKind.IMAGE, 3600, 2700)
    assert (promise.frames, promise.fps) == (None, None)


def test_swap_promises_nothing_but_its_kind():
    promise = promised(SWAP, filled(SWAP), {"target": PHOTO})
    assert (promise.kind, promise.width, promise.frames) == (MediaKind.IMAGE, None, None)


def test_film_is_promised_in_frames():
    promise = promised(FILM, filled(FILM, prompt="waves", duration=5, fps=30, width=640, height=384), {})
    assert (promise.kind, promise.width, promise.height, promise.frames, promise.fps) == (
        MediaKind.VIDEO, 640, 384, 150, 30,
    )  # fmt: skip


@given(st.integers(1, 10), st.integers(8, 25))
def test_model_makes_as_many_frames_as_it_can_make_and_no_fewer_than_are_kept(duration, fps):
    parameters = filled(FILM, prompt="waves", duration=duration, fps=fps)
    made = derived_value(FILM, FILM.derived["made_frames"].entry, parameters, {})
    kept = derived_value(FILM, FILM.derived["kept_frames"].entry, parameters, {})
    assert kept == duration * fps
    assert made % 8 == 1
    assert kept <= made < kept + 8


def test_picture_that_would_be_too_large_is_refused_by_the_factor():
    check_quantities(LANCZOS, filled(LANCZOS, scale_factor=4), {"target": PHOTO})
    large = dataclasses.replace(PHOTO, width=5000, height=4000)
    error = refusal(LANCZOS, {"target": large}, scale_factor=2)
    assert error.field == "scale_factor"
    assert "10000x8000" in error.message
    assert "64,000,000" in error.message
    long = dataclasses.replace(PHOTO, width=8000, height=10)
    assert refusal(LANCZOS, {"target": long}, scale_factor=3).field == "scale_factor"
    check_quantities(LANCZOS, filled(LANCZOS, scale_factor=2), {"target": long})


def test_too_many_frames_and_pixels_are_refused_by_their_first_number():
    error = refusal(FILM, prompt="waves", duration=10, fps=30)
    assert (error.field, "257 at most, not 300" in error.message) == ("duration", True)
    assert refusal(FILM, prompt="waves", width=1280, height=1280).field == "width"
    check_quantities(CREATION, filled(CREATION, prompt="x", width=2048, height=2048), {})


def test_number_that_cannot_be_worked_out_is_the_templates_fault():
    with pytest.raises(TemplateError, match=r"target\.width"):
        promised(LANCZOS, filled(LANCZOS), {})


def test_work_is_what_is_made_else_the_target():
    made = work_facts(FILM, filled(FILM, prompt="waves", duration=2, fps=10), {}, "target")
    assert (made.width, made.height, made.frames) == (768, 512, 20)
    assert (made.fps, made.duration_seconds) == (10, 2.0)
    assert work_facts(LANCZOS, filled(LANCZOS), {"target": PHOTO}, "target").width == 2400
    assert work_facts(SWAP, filled(SWAP), {"target": PHOTO}, "target") is PHOTO
    assert work_facts(SWAP, filled(SWAP), {}, "target") is None
