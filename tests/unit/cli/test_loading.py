from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from gateway.cli.loading import loading


def test_nothing_is_collected_while_modules_are_loaded_and_what_they_made_is_left_out_of_later_collections():
    gc.unfreeze()
    with loading():
        assert not gc.isenabled()
        assert gc.get_freeze_count() == 0
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
    gc.unfreeze()


def test_a_module_that_fails_leaves_the_collector_on():
    with pytest.raises(ImportError), loading():
        raise ImportError
    assert gc.isenabled()
    gc.unfreeze()


def test_a_gateway_starts_without_what_only_few_need():
    """Each of these is a tenth of a start or more, and is loaded when it is asked for, or in other processes."""
    late = ("numpy", "av", "onnxruntime", "gateway.api.openapi.vocabulary", "gateway.moderation.model")
    code = f"import gateway.cli, gateway.serving, sys; print([name for name in {late} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
