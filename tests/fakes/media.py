"""Media whose facts a test says instead of decoding them.

A "file" is a few bytes: what stands before the first colon says what it is (``video:…``, ``image:…``), anything else is
no media (``FACTS`` has them all). Two files are the same picture when the rest is the same. Unrealistic: nothing is decoded, so nothing is slow,
and every video has the same size and length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from gateway.audit import KEEPS_ALL, Comparison, Keeps, MediaFacts, MediaKind, Survey
from gateway.errors import InvalidInputError, ResultInvalidError, UnsupportedMediaError
from gateway.interfaces import Cleaned

#: What a file begins with that is sniffed as a picture.
PNG_HEAD = b"\x89PNG\r\n\x1a\n"
VIDEO = MediaFacts(
    MediaKind.VIDEO, "video/mp4", ".mp4", 640, 360, 25, Fraction(25), 1.0, has_audio=True, video_codec="h264"
)
IMAGE = MediaFacts(MediaKind.IMAGE, "image/png", ".png", 640, 360, 1, None, None, has_audio=False, video_codec=None)
#: A picture of twice the size, one that is painted, a film.
TWICE = replace(IMAGE, width=1280, height=720)
PAINTED = replace(IMAGE, width=1024, height=1024)
FILM = replace(VIDEO, width=768, height=512, frames=96, fps=Fraction(24), duration_seconds=4.0, has_audio=False)
DRAWN = replace(IMAGE, is_see_through=True)
#: A GIF with holes, and without.
CUT_OUT = MediaFacts(
    MediaKind.GIF,
    "image/gif",
    ".gif",
    640,
    360,
    5,
    Fraction(10),
    0.5,
    has_audio=False,
    video_codec=None,
    is_see_through=True,
)
SOLID = replace(CUT_OUT, is_see_through=False)
#: As ReActor's content filter leaves them.
SMALL = replace(IMAGE, width=512, height=512)
STUMP = replace(VIDEO, width=512, height=512, frames=1, fps=Fraction(25), duration_seconds=0.04)
CUT = replace(VIDEO, frames=20, duration_seconds=0.8)
SILENT = replace(VIDEO, has_audio=False)
FACTS = {
    b"silent": SILENT,
    b"video": VIDEO,
    b"image": IMAGE,
    b"twice": TWICE,
    b"painted": PAINTED,
    b"film": FILM,
    b"drawn": DRAWN,
    b"cutout": CUT_OUT,
    b"solid": SOLID,
    b"small": SMALL,
    b"stump": STUMP,
    b"cut": CUT,
}


class FakeMedia:
    """``interfaces.Media``.

    Args:
        read: the bytes behind a path.
    """

    def __init__(self, read: Callable[[Path], bytes]) -> None:
        self._read = read
        #: Bytes of a file as it lies there, where ``read`` says it in other words.
        self.size_of = lambda path: len(read(path))
        #: (all_frames,) of every comparison.
        self.compared: list[bool] = []
        #: The target of every copy, as far as one was named.
        self.likes: list[Path | None] = []

    async def probe(
        self, path: Path, *, field: str, accept: frozenset[MediaKind], size_bytes: int | None = None
    ) -> MediaFacts:
        assert size_bytes in {None, self.size_of(path)}
        facts = FACTS.get(self._read(path).partition(b":")[0])
        if facts is None:
            raise InvalidInputError("The file is no media.", field=field)
        if facts.kind not in accept:
            raise UnsupportedMediaError("Not of a kind that is accepted.", field=field)
        return facts

    async def sample(self, path: Path, into: Path, *, field: str, most: int, longest_side: int) -> Sequence[Path]:
        """A picture is its bytes; of what moves each frame is."""
        del longest_side
        data = self._read(path)
        if data.endswith(b":gaps"):
            raise InvalidInputError("The video cannot be looked at.", field=field)
        frames = FACTS[data.partition(b":")[0]].frames
        pictures = [into / f"{number:04}.png" for number in range(min(most, frames))]
        for picture in pictures:
            picture.write_bytes(data)
        return pictures

    async def compare(self, target: Path, result: Path, *, crf: int | None, all_frames: bool) -> Comparison:
        self.compared.append(all_frames)
        before, after = (self._read(path).partition(b":")[2] for path in (target, result))
        return Comparison(before != after, 90.0 if before != after else 0.0, 25 if all_frames else 10)

    async def survey(self, path: Path, *, source: Path | None) -> Survey:
        """``flat``, ``black`` and ``other`` after the colon: a plain colour, that plain colour, something else."""
        shown = self._read(path).partition(b":")[2]
        drift = None if source is None else 60.0 if shown == b"other" else 1.0
        source_is_flat = source is not None and self._read(source).endswith((b":flat", b":black"))
        return Survey(shown in {b"flat", b"black"}, drift, source_is_flat, is_black=shown == b"black")

    async def skim(self, path: Path) -> MediaFacts | None:
        """By what stands behind ``moov`` in a file that is a row of boxes."""
        return FACTS.get(self._read(path).partition(b"moov")[2].partition(b":")[0])

    async def measure(self, path: Path) -> MediaFacts | None:
        """Of what is called a picture or a video, and begins as a real one; ``broken`` behind the colon is damaged."""
        data = self._read(path)
        if data.endswith(b":broken"):
            raise ResultInvalidError("The result is no good.")
        return IMAGE if data.startswith(PNG_HEAD) else VIDEO

    async def clean(
        self,
        path: Path,
        out: Path,
        *,
        like: Path | None = None,
        keeps: frozenset[Keeps] = KEEPS_ALL,
        is_compared: bool = False,
        crf: int | None = None,
        size_bytes: int | None = None,
    ) -> Cleaned:
        """The first look at a result with ``plain`` in it shows that it is changed; at any other it shows nothing."""
        del keeps, crf
        self.likes.append(like)
        data = self._read(path)
        assert size_bytes in {None, self.size_of(path) + (self.size_of(like) if like else 0)}
        facts = FACTS.get(data.partition(b":")[0])
        if facts is None:
            raise ResultInvalidError("The result is no good.")
        out.write_bytes(data)  # noqa: ASYNC240 - a few bytes
        return Cleaned(facts, is_changed=is_compared and b"plain" in data)
