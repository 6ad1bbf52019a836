"""Deleting on one upstream what nobody needs any more, through the routes that the node pack adds to a ComfyUI.

ComfyUI itself deletes nothing. The pack lists what lies in our own folder there, so nothing has to be remembered here: what
an earlier run, a kill or an outage left is found as well. What is still needed the store knows; it is asked while nobody
can begin to count on the files in question.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import structlog

from gateway.comfy import answers
from gateway.interfaces import AskInUse, Cleaning
from gateway.upstreams.client import Answer, UpstreamClient
from gateway.upstreams.staging import ROOT, Staging

log = structlog.get_logger(__name__)

LIST_PATH: Final = "/comfygate/files"
CLEAN_PATH: Final = "/comfygate/clean"
TOKEN_HEADER: Final = "Comfygate-Token"  # noqa: S105 - the name of the header
#: Pages of one pass, a thousand files each; the rest waits for the next pass.
MAX_PAGES: Final = 100
#: Deleting a thousand files on a slow disk.
ANSWER_SECONDS: Final = 60.0
_HASH: Final = re.compile(r"[0-9a-f]{64}(?![0-9a-f])")
_FORBIDDEN: Final = 403
#: What a ComfyUI says to a route that it has not; 401 where somebody before it wants a token of his own.
_NO_ROUTE: Final = frozenset({401, 404, 405})
_GONE: Final = frozenset({"gone", "was_not_there"})


@dataclass(frozen=True, slots=True)
class _Left:
    """A file of ours there."""

    type: str
    subfolder: str
    filename: str
    #: The input that it is, by its hash, or the prompt that made it; "" for neither.
    of: str

    def as_json(self) -> dict[str, str]:
        return {"type": self.type, "subfolder": self.subfolder, "filename": self.filename}

    @property
    def is_input(self) -> bool:
        return self.type == "input"


class Cleaner:
    """Cleans our folder on one upstream.

    Args:
        name: of the upstream.
        client: calls it.
        staging: knows which inputs are believed to be there.
        folder: ours, below each of its folders.
        token: that it wants; None: nobody has told us one.
    """

    def __init__(self, name: str, client: UpstreamClient, staging: Staging, folder: str, token: str | None) -> None:
        self._name = name
        self._client = client
        self._staging = staging
        self._folder = folder
        self._gateway = folder.removeprefix(f"{ROOT}/")
        self._token = token
        self.state = Cleaning.UNKNOWN if token else Cleaning.NO_TOKEN

    async def tidy(self, in_use: AskInUse) -> int:
        """Delete what is not in use; how many files went. Raises ConnectionError."""
        if self._token is None:
            return 0
        deleted, after = 0, None
        for _ in range(MAX_PAGES):
            page = await self._ask(LIST_PATH, {"gateway": self._gateway, "after": after})
            if page is None:
                break
            files = [left for entry in _list(page.get("files")) if (left := self._left(entry)) is not None]
            prompts = [one for one in page.get("prompts") or () if isinstance(one, str)]
            deleted += await self._clean(files, prompts, in_use)
            if not files or page.get("has_more") is not True:
                break
            after = files[-1].as_json()
        if deleted:
            log.info("upstream_cleaned", upstream=self._name, files=deleted)
        return deleted

    async def _clean(self, files: Sequence[_Left], told: Sequence[str], in_use: AskInUse) -> int:
        """Args: files: that lie there; told: prompts of which its history tells."""
        hashes = {left.of for left in files if left.is_input and left.of}
        prompts = {left.of for left in files if not left.is_input and left.of} | set(told)
        with self._staging.withheld(hashes) as ours:
            used = await in_use(ours, prompts)
            doomed = [left for left in files if left.of not in used and not (left.of in hashes and left.of not in ours)]
            ended = [prompt for prompt in told if prompt not in used]
            if not doomed and not ended:
                return 0
            # Before it is asked: an answer that is lost proves nothing.
            self._staging.forget({left.of for left in doomed if left.is_input})
            named = [left.as_json() for left in doomed]
            answer = await self._ask(CLEAN_PATH, {"gateway": self._gateway, "files": named, "prompts": ended})
        results = [entry.get("result") for entry in _list((answer or {}).get("files"))]
        if kept := sum(result not in _GONE for result in results):
            log.warning("upstream_keeps_files", upstream=self._name, files=kept)
        return results.count("gone")

    def _left(self, entry: Mapping[str, Any]) -> _Left | None:
        """A file as the upstream names it; None where that is not below our folder, whatever it says."""
        kind, subfolder, filename = entry.get("type"), entry.get("subfolder"), entry.get("filename")
        if not isinstance(kind, str) or not isinstance(subfolder, str) or not isinstance(filename, str):
            return None
        if subfolder != self._folder and not subfolder.startswith(f"{self._folder}/"):
            return None
        if kind == "input":
            found = _HASH.match(filename)
            return _Left(kind, subfolder, filename, found.group() if found else "")
        return _Left(kind, subfolder, filename, subfolder.removeprefix(self._folder).strip("/").partition("/")[0])

    async def _ask(self, path: str, value: Mapping[str, object]) -> Mapping[str, Any] | None:
        """What it answers; None where it does not do that, and ``state`` says why."""
        headers = {TOKEN_HEADER: self._token or ""}
        answer = await self._client.post(path, value, answer_seconds=ANSWER_SECONDS, headers=headers)
        said = _object(answer)
        if said is not None:
            self.state = Cleaning.WORKS
        elif answer.status == _FORBIDDEN:
            self.state = Cleaning.REFUSED
        elif answer.status in _NO_ROUTE:
            self.state = Cleaning.NO_ROUTE
        else:
            raise ConnectionError(f"it did not answer as the node pack does (HTTP {answer.status})")
        return said


def _object(answer: Answer) -> Mapping[str, Any] | None:
    if answer.status != answers.OK:
        return None
    try:
        value = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) and isinstance(value.get("files"), list) else None


def _list(value: object) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
