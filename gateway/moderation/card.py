"""What stands beside a classifier: how a picture becomes its input, and what its output means.

The card is a TOML file with the model's name and the suffix ``.toml``; ``docs/safety.md`` tells its fields. It is read
strictly: a wrong mean or a wrong index makes a classifier that lets everything pass, and says nothing.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

#: Pictures are handed over with a longer side of at most this; an input that is larger would only be blown up.
LARGEST_SIDE: Final = 1024


class CardError(Exception):
    """The card is no good; the sentence says where."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _Input(_Strict):
    width: int = Field(ge=1, le=LARGEST_SIDE)
    height: int = Field(ge=1, le=LARGEST_SIDE)
    layout: Literal["nchw", "nhwc"] = "nchw"
    channels: Literal["rgb", "bgr"] = "rgb"
    fit: Literal["stretch", "pad"] = "stretch"
    mean: tuple[float, float, float] = Field(strict=False)
    std: tuple[float, float, float] = Field(strict=False)


class _Output(_Strict):
    name: str = Field(min_length=1, max_length=200)
    flagged: tuple[int, ...] = Field(min_length=1, max_length=1000, strict=False)
    activation: Literal["softmax", "sigmoid", "none"]


class _Card(_Strict):
    input: _Input
    output: _Output


@dataclass(frozen=True, slots=True)
class Card:
    """How a classifier is spoken to."""

    width: int
    height: int
    #: "nchw" or "nhwc".
    layout: str
    #: "rgb" or "bgr".
    channels: str
    #: "stretch" to width and height, or "pad" with black to their shape. Nothing is ever cut off.
    fit: str
    #: Per channel in the order of ``channels``; of values from 0 to 1.
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    output: str
    #: Indices of the output that speak against a picture.
    flagged: tuple[int, ...]
    #: "softmax", "sigmoid" or "none".
    activation: str


def read_card(text: str) -> Card:
    """The card that a TOML file holds. Raises CardError."""
    try:
        card = _Card.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise CardError(f"it is no TOML: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CardError(f"{where}: {first['msg']}") from error
    given, told = card.input, card.output
    if 0.0 in given.std:
        raise CardError("input.std: nothing can be divided by 0")
    if min(told.flagged) < 0 or len(set(told.flagged)) < len(told.flagged):
        raise CardError("output.flagged: expected different indices from 0 on")
    return Card(
        width=given.width,
        height=given.height,
        layout=given.layout,
        channels=given.channels,
        fit=given.fit,
        mean=given.mean,
        std=given.std,
        output=told.name,
        flagged=told.flagged,
        activation=told.activation,
    )
