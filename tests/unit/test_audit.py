from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import audit
from gateway.audit import MOST_DRIFT, Keeps, MediaFacts, MediaKind, Promise, Survey, broken_promise, wrong_look
from gateway.errors import NoFaceFoundError, ResultInvalidError, ResultUnchangedError

CLIP = MediaFacts(MediaKind.VIDEO, "video/mp4", ".mp4", 641, 361, 240, Fraction(30000, 1001), 8.008, True, "h264")
STILL = replace(
    CLIP, kind=MediaKind.IMAGE, frames=1, fps=None, duration_seconds=None, has_audio=False, video_codec=None
)
MOVING_GIF = MediaFacts(MediaKind.GIF, "image/gif", ".gif", 641, 361, 24, Fraction(24), 1.0, False, None)
PHOTO = MediaFacts(MediaKind.IMAGE, "image/png", ".png", 641, 361, 1, None, None, False, None)


@pytest.mark.parametrize("facts", [CLIP, MOVING_GIF, PHOTO])
def test_facts_survive_the_store(facts):
    assert MediaFacts.from_json(json.loads(json.dumps(facts.to_json()))) == facts


def test_a_rate_is_stored_exactly():
    assert CLIP.to_json()["fps"] == "30000/1001"


def test_facts_of_no_known_kind_are_refused():
    with pytest.raises(ValueError, match="hologram"):
        MediaFacts.from_json(CLIP.to_json() | {"kind": "hologram"})


@pytest.mark.parametrize(
    ("target", "found"),
    [
        (CLIP, CLIP),
        (CLIP, replace(CLIP, width=642, height=362)),
        (CLIP, replace(CLIP, fps=Fraction(2997, 100))),
        (replace(CLIP, has_audio=False), CLIP),
        (MOVING_GIF, replace(MOVING_GIF, fps=Fraction(25))),
        (MOVING_GIF, replace(CLIP, frames=24, fps=Fraction(24), has_audio=False)),
        (CLIP, replace(MOVING_GIF, frames=240, fps=Fraction(100, 3))),
        (PHOTO, PHOTO),
    ],
    ids=["same", "even", "rate rounded", "audio added", "gif delay", "gif to video", "video to gif", "still"],
)
def test_what_a_faithful_upstream_may_do_is_no_finding(target, found):
    assert audit.wrong_facts(target, found) == ()


@pytest.mark.parametrize(
    ("target", "found", "what", "words"),
    [
        (CLIP, replace(CLIP, frames=239), Keeps.FRAMES, "240 frames, got 239"),
        (CLIP, replace(CLIP, width=512, height=512), Keeps.SIZE, "641x361 pixels, got 512x512"),
        (CLIP, replace(CLIP, width=640, height=360), Keeps.SIZE, "got 640x360"),
        (PHOTO, replace(PHOTO, width=642, height=362), Keeps.SIZE, "got 642x362"),
        (CLIP, replace(CLIP, fps=Fraction(30)), Keeps.FPS, "29.97 frames per second, got 30"),
        (CLIP, replace(CLIP, fps=None), Keeps.FPS, "got a still"),
        (MOVING_GIF, replace(MOVING_GIF, fps=Fraction(50)), Keeps.FPS, "got 50"),
        (CLIP, replace(CLIP, has_audio=False), Keeps.AUDIO, "without audio"),
    ],
)
def test_a_broken_promise_is_found_and_said(target, found, what, words):
    [finding] = audit.wrong_facts(target, found)
    assert finding.what is what
    assert words in finding.sentence
    assert isinstance(finding.to_error(), ResultInvalidError)
    assert audit.wrong_facts(target, found, frozenset(Keeps) - {what}) == ()


def test_a_content_filters_answer_breaks_every_promise_at_once():
    """ReActor cuts a flagged video to one black frame of 512x512."""
    filtered = replace(CLIP, width=512, height=512, frames=1, fps=Fraction(1), has_audio=False)
    assert {finding.what for finding in audit.wrong_facts(CLIP, filtered)} == set(Keeps)


def test_the_limit_is_twice_what_a_plain_re_encode_moves():
    assert audit.movement_limit(20, palette=False) == pytest.approx(2 * 4.28)
    assert audit.movement_limit(None, palette=True) == pytest.approx(2 * 5.25)


def test_the_limit_never_falls_as_the_encoder_gets_coarser():
    limits = [audit.movement_limit(crf, palette=False) for crf in (None, *range(52))]
    assert limits == sorted(limits)


def test_a_crf_in_between_takes_the_next_higher_figure():
    assert audit.movement_limit(25, palette=False) == audit.movement_limit(28, palette=False)


def test_movement_up_to_the_limit_is_no_change():
    assert not audit.is_changed(8.56, 8.56)
    assert audit.is_changed(8.57, 8.56)


@given(st.integers(0, 20_000))
def test_a_sample_is_spread_evenly_from_the_first_to_the_last_frame(count):
    sample = audit.sampled_frames(count)
    assert len(sample) == min(count, 64)
    assert list(sample) == sorted(set(sample))
    if count:
        assert (sample[0], sample[-1]) == (0, count - 1)
        gaps = np.diff(sample)
        assert gaps.size == 0 or gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("\x1b[33mCannot detect any Target, skipping swapping...\x1b[0m", "should go into"),
        ("No target face found for 2", "should go into"),
        ("[ReActor] No valid source face(s) found in the provided Index after gender filter", "face photo"),
        ("Cannot detect any Source", "face photo"),
    ],
)
def test_an_engine_that_says_why_is_believed(line, words):
    error = audit.unchanged_error(["Analyzing Source Image...", line, "--Done!--"])
    assert isinstance(error, NoFaceFoundError)
    assert words in error.message


def test_an_engine_that_says_nothing_leaves_it_open():
    assert isinstance(audit.unchanged_error([]), ResultUnchangedError)


# -------------------------------------------------------------------------------------- held back by an upstream's filter


@pytest.mark.parametrize(
    ("target", "changes", "expected"),
    [
        (CLIP, {"width": 512, "height": 512, "frames": 1}, True),
        (replace(CLIP, kind=MediaKind.GIF), {"kind": MediaKind.GIF, "width": 512, "height": 512, "frames": 1}, True),
        # One frame in, one frame out: nothing was cut.
        (replace(CLIP, frames=1), {"width": 512, "height": 512, "frames": 1}, False),
        (CLIP, {"width": 512, "height": 512}, False),
        (CLIP, {"width": 512, "frames": 1}, False),
        (CLIP, {"frames": 1}, False),
        # A still may have this size by right: its pixels say.
        (STILL, {"kind": MediaKind.IMAGE, "width": 512, "height": 512, "frames": 1}, True),
        (STILL, {"kind": MediaKind.FACES, "width": 512, "height": 512, "frames": 1}, False),
    ],
)
def test_what_a_filter_gives_instead_is_known_by_its_facts(target, changes, expected):
    assert audit.may_be_held_back(target, replace(CLIP, **changes)) is expected


def test_a_filter_that_says_so_is_believed():
    line = "\x1b[33m[ReActor] NSFW content detected with score=0.991, skipping...\x1b[0m"
    assert audit.says_held_back(["Checking for any unsafe content...", line])
    assert not audit.says_held_back(["Checking for any unsafe content..."])
    assert audit.held_back_error().code == "content_flagged"


# ------------------------------------------------------------------------------------------ what a job's numbers promise

MADE = MediaFacts(
    MediaKind.VIDEO, "video/mp4", ".mp4", 768, 512, 96, Fraction(24), 4.0, has_audio=False, video_codec="h264"
)
PROMISE = Promise(MediaKind.VIDEO, 768, 512, 96, 24)


def test_sound_that_was_wished_away_must_be_gone():
    with_sound = replace(MADE, has_audio=True)
    assert audit.kept_all_the_same(frozenset({Keeps.AUDIO}), with_sound) is not None
    assert audit.kept_all_the_same(frozenset({Keeps.AUDIO}), MADE) is None
    assert audit.kept_all_the_same(frozenset(), with_sound) is None


def test_a_kept_promise_is_nothing_to_say():
    assert broken_promise(PROMISE, MADE) is None
    assert broken_promise(PROMISE, replace(MADE, fps=Fraction(24000, 1000))) is None
    assert broken_promise(Promise(MediaKind.VIDEO), replace(MADE, width=7)) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": MediaKind.GIF}, "kind"),
        ({"width": 769}, "768x512"),
        ({"height": 256}, "768x256"),
        ({"width": 512, "height": 768}, "512x768"),
        ({"frames": 97}, "96 frames, got 97"),
        ({"fps": Fraction(25)}, "24 frames per second, got 25"),
        ({"fps": None}, "a still"),
    ],
)
def test_each_promise_that_was_broken_is_said(changes, words):
    assert words in broken_promise(PROMISE, replace(MADE, **changes))


def test_a_plain_colour_is_no_picture_unless_its_source_was_one():
    assert "one plain colour" in wrong_look(Survey(is_flat=True))
    assert wrong_look(Survey(is_flat=False)) is None
    assert wrong_look(Survey(is_flat=True, drift=0.5, source_is_flat=True)) is None


def test_another_picture_is_not_the_source_enlarged():
    assert wrong_look(Survey(is_flat=False, drift=MOST_DRIFT)) is None
    assert "does not show" in wrong_look(Survey(is_flat=False, drift=MOST_DRIFT + 0.1))


def test_facts_stored_before_transparency_was_looked_at_are_read_as_opaque():
    drawing = MediaFacts(MediaKind.IMAGE, "image/png", ".png", 6, 4, 1, None, None, False, None, is_see_through=True)
    told = drawing.to_json()
    assert MediaFacts.from_json(told) == drawing
    del told["is_see_through"]
    assert MediaFacts.from_json(told) == replace(drawing, is_see_through=False)
