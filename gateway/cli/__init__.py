"""The command line: ``comfygate serve | demo | submit | jobs | upstreams``.

``serve`` and ``demo`` run a gateway here; everything else speaks HTTP to one (``--url``). What goes wrong is one sentence
with the remedy on standard error and an exit status other than 0.
"""

from __future__ import annotations

from gateway.cli.loading import loading

with loading():
    from gateway.cli.app import main

__all__ = ["main"]
