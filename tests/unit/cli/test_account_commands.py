"""What a command line can say that no gateway is asked about."""

from __future__ import annotations

import pytest

from gateway.cli.accounts import create_key, rotate
from gateway.cli.client import ClientError


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e308])
def test_times_that_are_no_numbers_are_a_sentence(number, tmp_path):
    with pytest.raises(ClientError, match="--expires-in-days is a number"):
        create_key(name="a", expires_in_days=number, data_dir=tmp_path / "none")
    with pytest.raises(ClientError, match="--overlap-hours is a number"):
        rotate("a", overlap_hours=number, data_dir=tmp_path / "none")
    assert not list(tmp_path.iterdir())
