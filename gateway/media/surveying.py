"""What a result looks like: whether it shows anything, and whether an enlarged still shows what its source shows.

Runs in the child process only. What the figures mean is decided in ``gateway/audit.py``; here they are measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from gateway.audit import FLAT_LEVELS, MediaKind, Survey, sampled_frames
from gateway.media import movies, stills
from gateway.media.blocks import Pixels, block_means
from gateway.sniffing import MediaType

#: Frames of a video that are looked at before it is called flat: a fade from black is no fault.
_FRAMES: Final = 16


def survey(file: tuple[Path, MediaType], source: tuple[Path, MediaType] | None) -> Survey:
    """Look at a result.

    Args:
        file: the result.
        source: the still that it enlarges.
    """
    if source is None:
        looks = {(_is_flat(frame), _is_black(frame)) for frame in _frames(*file)}
        return Survey(is_flat=all(flat for flat, _ in looks), is_black=all(black for _, black in looks))
    before, after = stills.read_upright(*source), stills.read_upright(*file)
    return Survey(_is_flat(after), _drift(before, after), _is_flat(before), _is_black(after))


def _is_flat(frame: Pixels) -> bool:
    # Each channel by itself: a picture of one red is as flat as one of one grey.
    flattened = frame.reshape(-1, 3)
    return bool(np.all(np.ptp(flattened, axis=0) <= FLAT_LEVELS))


def _is_black(frame: Pixels) -> bool:
    return bool(frame.max() <= FLAT_LEVELS)


def _frames(path: Path, kind: MediaType) -> Iterator[Pixels]:
    if kind.kind is MediaKind.IMAGE:
        yield stills.read_upright(path, kind)
        return
    wanted = set(sampled_frames(movies.count_frames(path, kind), _FRAMES))
    for index, frame in enumerate(islice(movies.read_frames(path, kind), max(wanted, default=-1) + 1)):
        if index in wanted:
            yield movies.upright_rgb(frame)


def _drift(before: Pixels, after: Pixels) -> float:
    height, width = before.shape[:2]
    # Each pixel becomes the mean of those that it became: what enlarging alone leaves as it was.
    small = np.asarray(Image.fromarray(after).resize((width, height), Image.Resampling.BOX))
    return float(np.abs(block_means(before) - block_means(small)).mean())
