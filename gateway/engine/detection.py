"""What is known of faces that somebody had counted: reports in the blob store, and who would count them now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Final

from gateway.audit import MediaKind
from gateway.engine.streams import closing
from gateway.faces import FaceReport, read_report
from gateway.interfaces import Blobs, Capabilities
from gateway.template import Template
from gateway.values import preferred

#: Parameter of a detection template that says which detector is asked.
DETECTOR: Final = "detector"


async def read_faces(blobs: Blobs, blob_hash: str) -> FaceReport | None:
    """A report that lies in the blob store; None when it is gone."""
    try:
        async with closing(blobs.stream(blob_hash)) as pieces:
            data = b"".join([piece async for piece in pieces])
    except FileNotFoundError:
        return None
    return read_report(data)


def detectors(templates: Iterable[Template], able_for: Callable[[Template], Sequence[Capabilities]]) -> tuple[str, ...]:
    """Names of the detectors by which faces would be found now, the most preferred first.

    An upstream takes the best one that it has. Who wants them all to be found by one names it as the job's parameter.

    Args:
        templates: that serve.
        able_for: what the upstreams can do that work now and have all that a template needs.
    """
    found: dict[str, int] = {}
    for template in templates:
        parameter = template.parameters.get(DETECTOR)
        if parameter is None or parameter.place is None or not _tells_faces(template):
            continue
        for capabilities in able_for(template):
            offered = capabilities.classes.get(parameter.place.node_class, {}).get(parameter.place.input_name)
            if (name := preferred(parameter.entry, offered)) is not None:
                ranks = [rank for rank, wanted in enumerate(parameter.entry.prefer) if fnmatchcase(name, wanted)]
                found[name] = min(ranks, default=len(parameter.entry.prefer))
    return tuple(sorted(found, key=lambda name: (found[name], name)))


def _tells_faces(template: Template) -> bool:
    return any(output.kind is MediaKind.FACES for output in template.outputs.values())
