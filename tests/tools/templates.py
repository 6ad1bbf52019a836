"""Templates that many engines of one process begin with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest

from gateway.engine import template_files
from gateway.template import load_template


@contextmanager
def parsed_once() -> Iterator[None]:
    """A template is a value of the texts that it is made of; parsing the shipped ones takes 10 ms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(template_files, "load_template", cache(load_template))
        yield
