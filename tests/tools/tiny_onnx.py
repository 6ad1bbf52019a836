"""Classifiers of a few hundred bytes in the ONNX format, written byte by byte: nothing is trained, nothing is shipped.

The encoder knows the handful of messages that such a model needs. Source of the field numbers: onnx.proto of ONNX 1.17.
"""

from __future__ import annotations

import struct
from pathlib import Path

FLOAT, INT64, FLOAT16 = 1, 7, 10
#: Logits of [harmless, flagged] from the means of red, green, blue: a picture that is mostly red is flagged.
RED_WEIGHTS = ((0.0, 12.0), (0.0, -12.0), (0.0, -12.0))
RED_BIAS = (0.0, -4.0)

CARD = """
[input]
width = 8
height = 8
mean = [0.0, 0.0, 0.0]
std = [1.0, 1.0, 1.0]

[output]
name = "logits"
flagged = [1]
activation = "softmax"
"""


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _node(kind: str, inputs: list[str], output: str) -> bytes:
    return b"".join(_bytes(1, name) for name in inputs) + _bytes(2, output) + _bytes(4, kind)


def _tensor(name: str, shape: tuple[int, ...], values: list[float], kind: int) -> bytes:
    dims = b"".join(_number(1, side) for side in shape)
    raw = struct.pack(f"<{len(values)}{'e' if kind == FLOAT16 else 'f'}", *values)
    return dims + _number(2, FLOAT16 if kind == FLOAT16 else FLOAT) + _bytes(8, name) + _bytes(9, raw)


def _value(name: str, shape: tuple[int | str, ...], kind: int = FLOAT) -> bytes:
    dims = b"".join(_bytes(1, _number(1, side) if isinstance(side, int) else _bytes(2, side)) for side in shape)
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, kind) + _bytes(2, dims)))


def model(
    *,
    shape: tuple[int | str, ...] = ("batch", 3, "height", "width"),
    kind: int = FLOAT,
    weights: tuple[tuple[float, ...], ...] = RED_WEIGHTS,
    bias: tuple[float, ...] = RED_BIAS,
    inputs: int = 1,
) -> bytes:
    """A model: the mean of each channel, times weights, plus bias."""
    classes = len(bias)
    nodes = [
        _node("GlobalAveragePool", ["pixels"], "pooled"),
        _node("Flatten", ["pooled"], "means"),
        _node("MatMul", ["means", "weights"], "weighed"),
        _node("Add", ["weighed", "bias"], "logits"),
    ]
    flat = [value for row in weights for value in row]
    graph = b"".join(_bytes(1, node) for node in nodes) + _bytes(2, "tiny")
    graph += _bytes(5, _tensor("weights", (3, classes), flat, kind)) + _bytes(
        5, _tensor("bias", (classes,), list(bias), kind)
    )
    graph += _bytes(11, _value("pixels", shape, kind))
    graph += b"".join(_bytes(11, _value(f"other{number}", ("batch", 1), kind)) for number in range(1, inputs))
    graph += _bytes(12, _value("logits", ("batch", classes), kind))
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _number(2, 13))


def write(folder: Path, data: bytes | None = None, card: str = CARD) -> Path:
    """A model with its card in a folder."""
    path = folder / "red.onnx"
    path.write_bytes(model() if data is None else data)
    path.with_suffix(".toml").write_text(card, encoding="utf-8")
    return path
