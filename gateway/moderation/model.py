"""A classifier of the operator's, run by onnxruntime on a thread of its own.

One session, one picture at a time: it takes as many threads as it is given, and two runs side by side would only share them.
What it is shown are numbers of a fixed shape, never a file of a client's. No weights come with the gateway, and none are
looked for anywhere but at the path that the settings name.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from gateway.moderation.card import Card, CardError, read_card
from gateway.moderation.tensors import score_of, tensor_of
from gateway.screening import CheckFailedError, Opinion

#: A classifier of this size gains little from more, and the gateway has other work.
_THREADS: Final = 2
_ONLY_ERRORS: Final = 3
_KINDS: Final = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_RANK: Final = 4


class ModelError(Exception):
    """The classifier cannot be used; the sentence says what to put right."""


class ModelCheck:
    """``gateway.interfaces.SafetyCheck`` by a model. Made by ``open``; one event loop.

    Args:
        session: of onnxruntime.
        card: how it is spoken to.
        timeout_seconds: for one picture, once it is its turn.
    """

    name = "model"

    def __init__(self, session: Any, card: Card, *, timeout_seconds: float) -> None:
        self._session = session
        self._card = card
        self._timeout_seconds = timeout_seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="safety-model")
        self._turn = asyncio.Lock()
        #: A run that did not stop when it was told to.
        self._stuck: asyncio.Future[float] | None = None

    @classmethod
    def open(cls, path: Path, *, timeout_seconds: float) -> Self:
        """Load a model and the card beside it, and try both on a black picture. Blocks for as long as loading takes.

        Raises:
            ModelError: with the sentence for the operator.
        """
        card = _card_beside(path)
        session = _session(path)
        _refuse_other_inputs(session, card)
        check = cls(session, card, timeout_seconds=timeout_seconds)
        try:
            check.score(Image.new("RGB", (card.width, card.height)))
        except CheckFailedError as error:
            raise ModelError(f"The model and its card do not fit: {error}.") from error
        return check

    def score(self, picture: Image.Image, options: Any = None) -> float:
        """What the model says of an RGB picture, 0 to 1. Blocks. Raises CheckFailedError."""
        [given] = self._session.get_inputs()
        tensor: npt.NDArray[Any] = tensor_of(picture, self._card).astype(_KINDS[given.type], copy=False)
        try:
            [output] = self._session.run([self._card.output], {given.name: tensor}, options)
        # onnxruntime raises a dozen classes of its own that share nothing but this; each means that there is no answer.
        except Exception as error:
            raise CheckFailedError(f"the model cannot be run ({type(error).__name__})") from error
        return score_of(output, self._card)

    async def look(self, picture: Path, *, reference: str) -> Opinion:
        """What the model says of a PNG file. Raises CheckFailedError."""
        del reference
        async with self._turn:
            if self._stuck is not None and not self._stuck.done():
                raise CheckFailedError("an earlier run does not end")
            return Opinion(await self._run(picture))

    async def _run(self, picture: Path) -> float:
        from onnxruntime import RunOptions

        options = RunOptions()
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._score_file, picture, options)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await asyncio.shield(running)
        except TimeoutError:
            raise CheckFailedError(f"the model took longer than {self._timeout_seconds:g} s") from None
        finally:
            if not running.done():
                await self._stop(running, options)

    async def _stop(self, running: asyncio.Future[float], options: Any) -> None:
        """Have a run end between two of its nodes; one that does not is left alone, and no other is begun behind it."""
        options.terminate = True
        running.add_done_callback(_forget)
        await asyncio.wait({running}, timeout=self._timeout_seconds)
        self._stuck = running

    def _score_file(self, picture: Path, options: Any) -> float:
        with Image.open(picture, formats=["PNG"]) as image:
            return self.score(image.convert("RGB"), options)

    async def close(self) -> None:
        """Let the thread end by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _forget(running: asyncio.Future[float]) -> None:
    """Whoever wanted to know is gone: what it raised is nobody's any more."""
    if not running.cancelled():
        running.exception()


def card_path(model: Path) -> Path:
    """Where the card of a model lies."""
    return model.with_suffix(".toml")


def _card_beside(model: Path) -> Card:
    path = card_path(model)
    try:
        return read_card(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"There is no card beside the model: {path.name} is to say how it is spoken to.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"The card {path.name} cannot be read.") from error
    except CardError as error:
        raise ModelError(f"The card {path.name} is no good: {error}.") from error


def _session(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError("A model needs onnxruntime: pip install 'comfygate[safety]'.") from error
    if not path.is_file():
        raise ModelError("There is no such file.")
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _THREADS
    options.inter_op_num_threads = 1
    options.log_severity_level = _ONLY_ERRORS
    # Threads that wait by turning in circles would take the processor from the event loop.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    # As in score; a truncated or foreign file is among them.
    except Exception as error:
        raise ModelError(f"It cannot be loaded as an ONNX model ({type(error).__name__}).") from error


def _refuse_other_inputs(session: Any, card: Card) -> None:
    """Refuse what a card cannot speak to: the shapes that a model names itself are held against it."""
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise ModelError(f"The model has {len(inputs)} inputs; expected one, a batch of pictures.")
    [given] = inputs
    if given.type not in _KINDS:
        raise ModelError(f"The model's input is a {given.type}; expected one of {', '.join(_KINDS)}.")
    outputs = [output.name for output in session.get_outputs()]
    if card.output not in outputs:
        raise ModelError(f"The model has no output {card.output!r}; it has {', '.join(map(repr, outputs))}.")
    sides = (card.height, card.width)
    wanted = (1, 3, *sides) if card.layout == "nchw" else (1, *sides, 3)
    if len(given.shape) != _RANK or any(
        isinstance(told, int) and told != side for told, side in zip(given.shape, wanted, strict=True)
    ):
        raise ModelError(f"The model's input has the shape {given.shape}, and its card makes {list(wanted)}.")
