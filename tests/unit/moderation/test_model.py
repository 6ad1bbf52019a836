"""The real onnxruntime with a classifier of a few hundred bytes that is made here: it flags what is red."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from gateway.moderation.card import read_card
from gateway.moderation.model import ModelCheck, ModelError
from gateway.screening import CheckFailedError
from tests.tools import tiny_onnx

pytest.importorskip("onnxruntime", reason="onnxruntime is not here (the extra safety)")


@pytest.fixture
def opened(tmp_path):
    def opened(data=None, card=tiny_onnx.CARD, timeout_seconds=10.0):
        return ModelCheck.open(tiny_onnx.write(tmp_path, data, card), timeout_seconds=timeout_seconds)

    return opened


@pytest.fixture
def picture(tmp_path):
    def picture(colour, size=(40, 30)):
        path = tmp_path / "picture.png"
        Image.new("RGB", size, colour).save(path)
        return path

    return picture


def test_the_classifier_has_a_few_hundred_bytes() -> None:
    assert len(tiny_onnx.model()) < 500


async def test_what_is_red_is_flagged_and_nothing_else_is(opened, picture) -> None:
    check = opened()
    scores = {}
    for colour in ("red", "green", "blue", "white", "black"):
        opinion = await check.look(picture(colour), reference="x")
        assert not opinion.is_flagged
        scores[colour] = opinion.score
    await check.close()
    assert scores.pop("red") > 0.99
    assert max(scores.values()) < 0.05


@pytest.mark.parametrize("how", [{"shape": (1, 3, 8, 8)}, {"kind": tiny_onnx.FLOAT16}])
async def test_fixed_shapes_and_half_precision_are_fed_as_they_want_it(opened, picture, how) -> None:
    check = opened(tiny_onnx.model(**how))
    assert (await check.look(picture("red"), reference="x")).score > 0.99
    assert (await check.look(picture("white"), reference="x")).score < 0.01
    await check.close()


@pytest.mark.parametrize(
    ("model", "old", "new", "words"),
    [
        ({"shape": ("batch", 3, 16, 16)}, "", "", "shape"),
        ({}, "[input]", "[input]\nlayout = 'nhwc'", "shape"),
        ({"shape": ("batch", 3, 8)}, "", "", "shape"),
        ({"inputs": 2}, "", "", "2 inputs"),
        ({"kind": tiny_onnx.INT64}, "", "", "cannot be loaded|expected one of"),
        ({}, '"logits"', '"probabilities"', "no output 'probabilities'; it has 'logits'"),
        ({}, "flagged = [1]", "flagged = [2]", "flags number 2"),
        ({"bias": (0.0, 5.0)}, '"softmax"', '"none"', "activation"),
        ({}, "flagged = [1]", "flagged = 1", "output.flagged"),
    ],
)
def test_model_and_card_that_do_not_fit_are_told_before_anything_is_looked_at(opened, model, old, new, words) -> None:
    with pytest.raises(ModelError, match=words):
        opened(tiny_onnx.model(**model), tiny_onnx.CARD.replace(old, new) if old else tiny_onnx.CARD)


def test_files_that_are_not_there_or_no_model_are_told(opened, tmp_path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        opened(b"no model")
    with pytest.raises(ModelError, match="cannot be loaded"):
        opened(tiny_onnx.model()[:200])
    path = tmp_path / "red.onnx"
    path.unlink()
    with pytest.raises(ModelError, match="no such file"):
        ModelCheck.open(path, timeout_seconds=1)
    path.with_suffix(".toml").unlink()
    with pytest.raises(ModelError, match=r"no card beside the model: red\.toml"):
        ModelCheck.open(path, timeout_seconds=1)


def test_without_onnxruntime_it_is_said_how_to_get_it(opened, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ModelError, match=r"comfygate\[safety\]"):
        opened()


# -------------------------------------------------------------------------------------------------- runs that do not end


class Slow:
    """A session whose runs end when they are told to, or not even then."""

    def __init__(self, *, obeys: bool) -> None:
        self.obeys = obeys
        self.began = threading.Event()
        self.let_go = threading.Event()

    def get_inputs(self):
        return [SimpleNamespace(name="pixels", type="tensor(float)", shape=[1, 3, 8, 8])]

    def run(self, names, feeds, options):
        self.began.set()
        while not self.let_go.wait(0.005):
            if self.obeys and options.terminate:
                raise RuntimeError("terminated")
        return [np.array([[9.0, 0.0]], np.float32)]


async def test_a_run_that_takes_too_long_is_ended_and_the_next_one_goes_on(picture) -> None:
    session = Slow(obeys=True)
    check = ModelCheck(session, read_card(tiny_onnx.CARD), timeout_seconds=0.05)
    with pytest.raises(CheckFailedError, match=r"longer than 0\.05 s"):
        await check.look(picture("green"), reference="x")
    session.let_go.set()
    assert (await check.look(picture("green"), reference="x")).score < 0.01
    await check.close()


async def test_behind_a_run_that_does_not_end_nothing_waits(picture) -> None:
    session = Slow(obeys=False)
    check = ModelCheck(session, read_card(tiny_onnx.CARD), timeout_seconds=0.05)
    with pytest.raises(CheckFailedError, match="longer than"):
        await check.look(picture("green"), reference="x")
    with pytest.raises(CheckFailedError, match="an earlier run does not end"):
        await check.look(picture("green"), reference="x")
    session.let_go.set()
    await asyncio.wait({check._stuck})
    assert (await check.look(picture("green"), reference="x")).score < 0.01
    await check.close()


async def test_a_run_whose_client_left_is_ended(picture) -> None:
    session = Slow(obeys=True)
    check = ModelCheck(session, read_card(tiny_onnx.CARD), timeout_seconds=10.0)
    looking = asyncio.create_task(check.look(picture("green"), reference="x"))
    await asyncio.to_thread(session.began.wait)
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
    assert check._stuck.done()
    assert not check._turn.locked()
    await check.close()


async def test_the_loop_goes_on_while_the_model_runs(picture) -> None:
    session = Slow(obeys=True)
    check = ModelCheck(session, read_card(tiny_onnx.CARD), timeout_seconds=10.0)
    looking = asyncio.create_task(check.look(picture("green"), reference="x"))
    await asyncio.to_thread(session.began.wait)
    assert not looking.done()  # this line is reached while the run lasts
    session.let_go.set()
    assert (await looking).score < 0.01
    await check.close()
