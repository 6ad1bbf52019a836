from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from gateway.audit import MOST_DRIFT
from gateway.media.surveying import survey
from gateway.sniffing import JPEG, MP4, PNG

SOURCE = (96, 64)


@pytest.fixture
def photo(studio):
    """Something with edges, shades and colours."""
    picture = Image.fromarray(studio.frames(1, SOURCE)[0])
    picture.save(studio.folder / "source.png")
    return picture


def look(studio, picture, name="result.png", **how):
    path = studio.folder / name
    picture.save(path, **how)
    return survey((path, PNG), (studio.folder / "source.png", PNG))


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("method", [Image.Resampling.LANCZOS, Image.Resampling.NEAREST, Image.Resampling.BICUBIC])
def test_an_enlarged_picture_shows_its_source(studio, photo, factor, method):
    found = look(studio, photo.resize((SOURCE[0] * factor, SOURCE[1] * factor), method))
    assert not found.is_flat
    assert found.drift < 1.0


def test_texture_and_colours_that_a_model_made_are_no_other_picture(studio, photo):
    redrawn = photo.resize((192, 128), Image.Resampling.BICUBIC).filter(ImageFilter.UnsharpMask(3, 200))
    shifted = redrawn.point(lambda level: min(level * 1.05 + 4, 255))
    assert look(studio, shifted).drift < MOST_DRIFT / 2


@pytest.mark.parametrize("change", [ImageOps.flip, ImageOps.invert, lambda picture: Image.new("RGB", picture.size)])
def test_another_picture_does_not_show_it(studio, photo, change):
    assert look(studio, change(photo.resize((192, 128)))).drift > MOST_DRIFT


def test_source_is_taken_upright_and_without_its_alpha_as_a_worker_takes_it(studio):
    upright = Image.fromarray(studio.frames(1, SOURCE)[0])
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    source = studio.folder / "phone.jpg"
    turned.save(source, exif=exif, quality=95)
    result = studio.folder / "result.png"
    upright.resize((192, 128), Image.Resampling.LANCZOS).save(result)
    assert survey((result, PNG), (source, JPEG)).drift < 3.0
    transparent = studio.folder / "logo.png"
    upright.putalpha(0)
    upright.save(transparent)
    assert survey((result, PNG), (transparent, PNG)).drift < 1.0


def test_a_picture_of_one_colour_is_flat_and_one_with_a_dot_is_not(studio):
    red = Image.new("RGB", SOURCE, (200, 10, 10))
    red.save(studio.folder / "source.png")
    found = look(studio, red)
    assert (found.is_flat, found.source_is_flat, found.drift) == (True, True, 0.0)
    dotted = red.copy()
    dotted.putpixel((3, 3), (0, 0, 255))
    assert not look(studio, dotted).is_flat


def test_black_is_told_from_other_plain_colours(studio, photo):
    assert look(studio, Image.new("RGB", SOURCE, (3, 0, 2))).is_black
    assert not look(studio, Image.new("RGB", SOURCE, (0, 0, 9))).is_black
    assert not look(studio, photo).is_black


def test_a_black_video_is_flat_and_one_that_fades_in_is_not(studio):
    black = [np.zeros((64, 96, 3), np.uint8)] * 12
    found = survey((studio.video("black.mp4", black), MP4), None)
    assert found.is_flat
    assert found.is_black
    lit = [*black[:11], studio.frames(1, SOURCE)[0]]
    assert not survey((studio.video("lit.mp4", lit), MP4), None).is_flat
