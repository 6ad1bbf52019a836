"""The cURL lines of published documents, run as they stand."""

from __future__ import annotations

import asyncio
import shlex
import shutil
from pathlib import Path

import httpx

from tests.tools.faceswap_client import parts
from tests.tools.plain_http import NO_TLS
from tests.tools.waiting import PATIENCE_SECONDS


async def run_line(line: str, folder: Path) -> bytes:
    """Run a line in a shell, as a reader of the document would; what it prints."""
    if shutil.which("curl") is None:
        return (await run_without_curl(shlex.split(line), folder))[0]
    return await _run(line.rstrip() + " --silent --show-error --noproxy '*'", folder)


async def run_line_for_status(line: str, folder: Path) -> tuple[int, bytes]:
    """The same, with the status of the answer."""
    if shutil.which("curl") is None:
        content, status = await run_without_curl(shlex.split(line), folder)
        return status, content
    told = await _run(line.rstrip() + " --silent --show-error --noproxy '*' --write-out '\\n%{http_code}'", folder)
    content, _, status = told.rpartition(b"\n")
    return int(status), content


async def _run(line: str, folder: Path) -> bytes:
    process = await asyncio.create_subprocess_shell(
        line, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out


async def run_without_curl(words: list[str], folder: Path) -> tuple[bytes, int]:
    """The same where no curl is installed: the few options of these lines over httpx; content and status."""
    url = next(word for word in words[1:] if word.startswith("http://"))
    form = [_after(words, index).partition("=") for index, word in enumerate(words) if word == "-F"]
    headers = dict(_after(words, index).split(": ", 1) for index, word in enumerate(words) if word == "-H")
    body = next((_after(words, index).encode() for index, word in enumerate(words) if word == "-d"), b"")
    files = {name: Path(value[1:]) for name, _, value in form if value.startswith("@")}
    fields = {name: value for name, _, value in form if not value.startswith("@")}
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS, trust_env=False, verify=NO_TLS) as client:
        if form:
            answer = await client.post(url, data=fields, files=parts(**files))
        elif "-X" in words:
            answer = await client.request(_after(words, words.index("-X")), url, content=body, headers=headers)
        else:
            answer = await client.get(url)
    if "-O" in words:
        await asyncio.to_thread((folder / url.rpartition("/")[2]).write_bytes, answer.content)
        return b"", answer.status_code
    return answer.content, answer.status_code


def _after(words: list[str], index: int) -> str:
    return words[index + 1]
