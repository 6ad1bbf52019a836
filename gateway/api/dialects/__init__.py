"""The APIs that clients speak; ``app.py`` serves whatever stands in ``DIALECTS``.

To add one: a module (or package) beside this file with the five pure translations

====================  ===============================================================
request → submission  the client's fields as a ``Submission``
job → body            its answer about a job
event → frame         what a stream says, or nothing
error → body          its envelope, for every status
state → word          one for each ``JobState``
====================  ===============================================================

and thin handlers ``(request, call) -> response`` below them, out of the steps that a ``Call`` has; a ``Dialect`` that
names its endpoints, prefixes, envelope and words; its entry in the list here; golden files in
``tests/dialects/<name>/``; its section in ``docs/dialects.md``. ``tests/contract/test_dialects.py`` then runs over it
without being touched; ``tests/contract/fifth_dialect.py`` shows a whole one. Dialects do not import one another.
"""

from __future__ import annotations

from typing import Final

from gateway.api.dialects.backserv import DIALECT as BACKSERV
from gateway.api.dialects.comfy_v2 import DIALECT as COMFY_V2
from gateway.api.dialects.faceswap import DIALECT as FACESWAP
from gateway.api.dialects.swaps_v1 import DIALECT as SWAPS_V1
from gateway.api.dialects.swiftswap import DIALECT as SWIFTSWAP
from gateway.api.window import Dialect

DIALECTS: Final[tuple[Dialect, ...]] = (FACESWAP, SWIFTSWAP, BACKSERV, SWAPS_V1, COMFY_V2)
