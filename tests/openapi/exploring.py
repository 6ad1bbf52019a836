"""Examples of every operation of the OpenAPI document, sent to a gateway; every answer held against the document.

What is sent is schemathesis' own: values that fit the document and values that do not, one operation after the other. To
get behind the first check, some of what it makes is replaced by what is there: ids, links, pictures, URLs that answer.
An answer is wrong when it is 500, or a 5xx that is not described; when its status, type, headers or body are not those
of the document; or when it has a field that nobody described (``tests/tools/conformance.py``).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.transport.serialization import Binary

from gateway.api.dialects import DIALECTS
from tests.openapi.house import UPLOAD, House
from tests.tools.conformance import conformance

TIMEOUT_SECONDS = 90
WANTED_CHECKS = {
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
}
#: Fields that are files, or URLs of files, and the kinds that fit.
KINDS = {
    **dict.fromkeys(("image", "source_image", "source_url", "image_url", "target_image", "target_image_url"), "image"),
    **dict.fromkeys(("video", "video_url", "target_video"), "video"),
}
#: What is put where nothing made up would ever fit: a graph that runs, and what a template takes.
VALID = {
    "workflow": {
        "1": {"class_type": "LoadImage", "inputs": {"image": UPLOAD}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "copy"}},
    },
    "inputs": {"target": UPLOAD, "face": UPLOAD},
}
#: Made up, they are refused nearly always, and what stands beside them is not looked at.
OPTIONAL = {"consent", "extra_data", "gateway", "metadata", "priority", "webhook_url"}
#: The first of these that an answer to a create holds is the job.
JOB_FIELDS = ("prompt_id", "task_id", "ticket_id", "id")


@dataclass
class Report:
    """What came of one operation."""

    label: str
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0
    #: What was wrong, as a person can read it.
    fault: str = ""


@dataclass(frozen=True)
class Wishes:
    """What of an example is replaced."""

    names_what_is_there: bool
    has_valid_files: bool
    answers_at_once: bool
    shows_key: bool
    #: Which of the things that are there is named.
    place: int


ONE_IN_SIXTEEN = st.integers(0, 15).map(lambda number: number == 15)
WISHES = st.builds(
    Wishes,
    names_what_is_there=st.booleans(),
    has_valid_files=st.booleans(),
    # A stream that is waited for takes a second, what is answered at once a millisecond.
    answers_at_once=ONE_IN_SIXTEEN.map(lambda at: not at),
    shows_key=ONE_IN_SIXTEEN.map(lambda at: not at),
    place=st.integers(0, 11),
)


def explored(
    house: House, *, examples: int, number: int = 0, wanted: Callable[[str], bool] = lambda _: True
) -> Iterator[Report]:
    """What came of each operation.

    Args:
        house: where they are sent.
        examples: how many of each at most; of an operation that takes nothing there is one.
        number: seed of the examples.
        wanted: which operations, by label: "POST /face-swap".
    """
    # Who is let in is tried by ``Wishes``: with both headers that can hold a key, nobody ever is.
    document = {**house.document, "servers": [], "paths": without_security(house.document["paths"])}
    schema = schemathesis.openapi.from_dict(document)
    schema.config.base_url = house.gateway.url
    load_all_checks()
    checks = [check for check in CHECKS.get_all() if check.__name__ in WANTED_CHECKS]
    assert {check.__name__ for check in checks} == WANTED_CHECKS
    with requests.Session() as session:
        session.trust_env = False
        operations = [found.ok() for found in schema.get_all_operations()]
        # What deletes comes last: what it deletes is asked for by the others.
        for operation in sorted(operations, key=lambda operation: operation.method.upper() == "DELETE"):
            if wanted(operation.label):
                yield Trial(house, session, checks).of(operation, examples, number)


def without_security(paths: dict[str, Any]) -> dict[str, Any]:
    """The same paths, as if they were open."""
    return {
        path: {method: {**operation, "security": []} for method, operation in item.items()}
        for path, item in paths.items()
    }


@dataclass
class Trial:
    """One operation on trial."""

    house: House
    session: requests.Session
    checks: Iterable[Any]

    def of(self, operation: Any, examples: int, number: int) -> Report:
        report = Report(operation.label)
        begun = time.perf_counter()
        cases = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in GenerationMode))

        @seed(number)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )
        @given(case=cases, wishes=WISHES)
        def try_one(case: Any, wishes: Wishes) -> None:
            self._prepare(case, wishes)
            headers = {"X-API-Key": self.house.key} if wishes.shows_key else {}
            answer = case.call(session=self.session, headers=headers, timeout=TIMEOUT_SECONDS)
            report.statuses[answer.status_code] += 1
            self._tidy(case, answer)
            self._judge(case, answer)

        try:
            try_one()
        except BaseExceptionGroup as faults:  # what schemathesis found wrong with one answer
            report.fault = "\n".join(map(str, faults.exceptions))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told with its operation
            report.fault = f"{type(error).__name__}: {error}"
        report.seconds = time.perf_counter() - begun
        return report

    def _prepare(self, case: Any, wishes: Wishes) -> None:
        if wishes.names_what_is_there:
            for name in case.path_parameters or {}:
                choices = next(
                    (of for part, of in self.house.known.items() if f"{{{name}}}" in part and part in case.path), None
                )
                if choices is not None:
                    case.path_parameters[name] = choices[wishes.place % len(choices)]
        body = case.body
        if not isinstance(body, dict):
            return
        if wishes.has_valid_files:
            self._put_files(body)
            if wishes.place % 2:
                for name in OPTIONAL & body.keys():
                    del body[name]
            body.update({name: deepcopy(value) for name, value in VALID.items() if isinstance(body.get(name), dict)})
        if wishes.answers_at_once and case.operation.label == "POST /face-swap":
            body["return_prompt_id_only"] = "true"
        if case.operation.label == "POST /-/upstreams" and "://" in str(body.get("url")):
            # It would be dialled.
            body["url"] = self.house.nowhere

    def _put_files(self, body: dict[str, Any]) -> None:
        """Bytes where there are bytes, URLs where there are URLs: of what is a picture, a GIF or a video."""
        kind = {"video": "video", "gif": "gif"}.get(str(body.get("type")), "image")
        if any(isinstance(value, Binary) for value in body.values()):
            # In a form, what is no text is sent as a file, and a file that nobody asked for is refused.
            for name in [name for name, value in body.items() if not isinstance(value, Binary | str)]:
                del body[name]
        for name, value in body.items():
            wanted = KINDS.get(name, kind if name == "target_url" else None)
            if wanted is not None and isinstance(value, Binary):
                body[name] = Binary(self.house.files[wanted])
            elif wanted is not None and isinstance(value, str):
                body[name] = self.house.urls[wanted]
            elif isinstance(value, dict):
                self._put_files(value)
            elif isinstance(value, list):
                for inner in value:
                    if isinstance(inner, dict):
                        self._put_files(inner)

    def _tidy(self, case: Any, answer: Any) -> None:
        """Give up the job that was made, so that those behind it are not kept waiting; take out what was put into the pool."""
        if case.method != "POST" or answer.status_code not in {200, 201, 202}:
            return
        if "json" not in answer.headers.get("content-type", [""])[0]:
            return
        told = answer.json()
        key = {"X-API-Key": self.house.key}
        if case.operation.label == "POST /-/upstreams":
            name = requests.utils.quote(told["name"], safe="")
            self.session.delete(f"{self.house.gateway.url}/-/upstreams/{name}", headers=key, timeout=TIMEOUT_SECONDS)
        elif not case.operation.label.startswith("POST /-/"):
            job = next((told[name] for name in JOB_FIELDS if name in told), None)
            if job is not None:
                self.session.delete(f"{self.house.gateway.url}/-/jobs/{job}", headers=key, timeout=TIMEOUT_SECONDS)

    def _judge(self, case: Any, answer: Any) -> None:
        status = answer.status_code
        assert status < 500 or status in {503, 507}, f"{status}: {answer.text[:500]}"
        case.validate_response(answer, checks=list(self.checks))
        headers = {name.lower(): values[0] for name, values in answer.headers.items()}
        path = requests.utils.unquote(urlsplit(answer.request.url).path)
        conformance(DIALECTS).check(case.method, path, status, headers, answer.content)
