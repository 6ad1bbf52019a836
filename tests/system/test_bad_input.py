"""Bad input against a whole gateway: each a clear answer (status, code, field), and nothing left behind.

"Nothing" is looked for where something could lie: the blob store with its unfinished parts, the scratch folder, and the
rows of jobs, tasks, assets, blobs and events.
"""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import pytest

from tests.tools import clips
from tests.tools.faceswap_client import ended, parts, submit
from tests.tools.gateway_process import GatewayProcess
from tests.tools.waiting import PATIENCE_SECONDS, wait_until

pytestmark = pytest.mark.system

CONCAT = b"ffconcat version 1.0\nfile '/etc/passwd'\nfile 'http://127.0.0.1:1/x.mp4'\n"
PROMPT_ID = "01a20000-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """With URL inputs as users have them: public addresses."""
    with GatewayProcess(tmp_path_factory.mktemp("bad"), {"URL_INPUTS": "public"}) as process:
        yield process


@asynccontextmanager
async def leaving_nothing(gateway: GatewayProcess):
    """Whatever happens inside, the gateway's disk and database are as before, at the latest when the answer is read."""
    before = gateway.leftovers()
    yield
    # A client that hung up is noticed a moment later.
    await wait_until(lambda: gateway.leftovers() == before, what=f"nothing but {before}", patience_seconds=10)
    log = gateway.log.read_text()
    assert "Traceback" not in log
    assert "request_failed" not in log


async def refused(
    gateway: GatewayProcess, status: int, code: str, field: str | None, *, path: str = "/face-swap", **request: Any
) -> str:
    """Post it, and see it refused so; the sentence."""
    async with leaving_nothing(gateway), gateway.client() as client:
        answer = await client.post(path, **request)
        assert answer.headers["content-type"] == "application/json"
        body = answer.json()
        assert (answer.status_code, body["code"], body["field"]) == (status, code, field), body
        assert set(body) == {"detail", "code", "field"}
        assert_sentence_is_clean(body["detail"], gateway)
    return body["detail"]


def assert_sentence_is_clean(sentence: str, gateway: GatewayProcess) -> None:
    """For people, and telling nothing of the machine."""
    assert len(sentence) > 10
    for secret in (str(gateway.folder), "Traceback", "Error(", "127.0.0.1", "/tmp", "Errno", "av."):
        assert secret not in sentence, sentence


# ------------------------------------------------------------------------------------------------------- what is missing


async def test_no_files_at_all(gateway):
    await refused(gateway, 400, "validation_error", "video", data={"output_name": "x"})
    await refused(gateway, 400, "validation_error", "video")


async def test_one_file_of_two(gateway, material):
    await refused(gateway, 400, "validation_error", "image", files=parts(video=material.clip))
    await refused(gateway, 400, "validation_error", "video", files=parts(image=material.face()))


async def test_file_of_no_bytes(gateway, material):
    files = {**parts(image=material.face()), "video": ("a.mp4", b"")}
    assert "0 bytes" in await refused(gateway, 400, "validation_error", "video", files=files)


# ------------------------------------------------------------------------------------- what is not what it says it is


@pytest.mark.parametrize(
    "content",
    [b"This is a text.\n" * 100, CONCAT, b"#EXTM3U\n/etc/passwd\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>"],
    ids=["text", "ffconcat", "playlist", "svg"],
)
async def test_text_with_the_name_of_a_video(gateway, material, content):
    files = {"video": ("target.mp4", content, "video/mp4"), **parts(image=material.face())}
    await refused(gateway, 415, "unsupported_media_type", "video", files=files)
    files = {"image": ("face.png", content, "image/png"), **parts(video=material.clip)}
    await refused(gateway, 415, "unsupported_media_type", "image", files=files)


async def test_video_without_a_picture_in_it(gateway, material, tmp_path):
    files = parts(video=clips.sound_only(tmp_path / "sound.mp4"), image=material.face())
    assert "video stream" in await refused(gateway, 400, "validation_error", "video", files=files)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
async def test_truncated_video(gateway, material, share):
    whole = material.clip.read_bytes()
    files = {"video": ("a.mp4", whole[: int(len(whole) * share)]), **parts(image=material.face())}
    await refused(gateway, 400, "validation_error", "video", files=files)


async def test_picture_and_video_in_each_other_s_place(gateway, material):
    files = parts(video=material.still, image=material.face())
    await refused(gateway, 415, "unsupported_media_type", "video", files=files)
    files = parts(video=material.clip, image=material.clip)
    await refused(gateway, 415, "unsupported_media_type", "image", files=files)


async def test_swiftswap_paths_refuse_what_does_not_belong_there(gateway, material):
    """The same checks behind other fields; what only they can tell apart is in the golden files."""
    picture, video = "/swap_image/", "/swap_video/"
    face = parts(image=material.face())
    await refused(gateway, 400, "validation_error", "image", path=picture)
    await refused(gateway, 400, "validation_error", "target_image", path=picture, files=face)
    files = {**face, **parts(target_image=material.clip)}
    assert "/swap_video/" in await refused(
        gateway, 415, "unsupported_media_type", "target_image", path=picture, files=files
    )
    files = {**face, **parts(target_video=material.still)}
    assert "/swap_image/" in await refused(
        gateway, 415, "unsupported_media_type", "target_video", path=video, files=files
    )
    files = {**face, **parts(target_image=material.still, target_video=material.clip)}
    await refused(gateway, 400, "validation_error", "target_image", path=video, files=files)
    files = {**face, "target_video": ("a.mp4", material.clip.read_bytes()[:2000])}
    await refused(gateway, 400, "validation_error", "target_video", path=video, files=files)
    files = {**face, "target_image": ("a.png", material.still.read_bytes()[:2000])}
    await refused(gateway, 400, "validation_error", "target_image", path=picture, files=files)
    files = {**face, "target_video": ("a.mp4", CONCAT)}
    await refused(gateway, 415, "unsupported_media_type", "target_video", path=video, files=files)


async def test_broken_photo(gateway, material):
    files = {"image": ("face.png", material.face().read_bytes()[:2000]), **parts(video=material.clip)}
    await refused(gateway, 400, "validation_error", "image", files=files)


@pytest.mark.parametrize("role", ["video", "image"])
async def test_nobody_in_the_picture_fails_the_job_and_says_so(gateway, material, role):
    """It is found out by doing it: the job ends failed, its half-made result is dropped."""
    files = (
        {"target_image": material.still, "image": material.faceless}
        if role == "image"
        else {"target_image": material.faceless, "image": material.face()}
    )
    async with gateway.client() as client:
        prompt_id = await submit(client, **files)
        done = await ended(client, prompt_id)
        assert (done["status"], done["code"], done["result"]) == ("FAILED", "no_face_found", None)
        assert "face" in done["error"]
        assert_sentence_is_clean(done["error"], gateway)
        assert done["progress"]["percentage"] < 100
        events = await client.get(f"/events/{prompt_id}")
        assert events.text.count("event: error") == 1
        assert "event: completed" not in events.text
    kinds = {kind for (kind,) in gateway.rows("SELECT kind FROM assets")}
    assert kinds <= {"input"}
    assert not [name for name in gateway.files() if name.startswith(("scratch", "blobs/parts"))]
    hashes = {name for (name,) in gateway.rows("SELECT hash FROM blobs")}
    assert {name.rpartition("/")[2] for name in gateway.files()} == hashes


# --------------------------------------------------------------------------------------------------------- what is too large


async def test_two_gigabytes_are_refused_by_their_announcement(gateway):
    """Before a byte of them was sent, naming the limit."""
    head = (
        f"POST /face-swap HTTP/1.1\r\nHost: 127.0.0.1:{gateway.port}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 2147483648\r\n\r\n"
    )
    async with leaving_nothing(gateway):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(head.encode())
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_SECONDS)
        length = int(re.search(rb"content-length: (\d+)", answer)[1])
        body = json.loads(await reader.readexactly(length))
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in answer.lower()
        assert (body["code"], body["field"]) == ("too_large", None)
        assert "1100 MiB" in body["detail"]
        writer.close()


async def test_client_that_leaves_in_the_middle_of_a_file(gateway, material):
    body = b'--x\r\nContent-Disposition: form-data; name="video"; filename="a.mp4"\r\n\r\n' + material.clip.read_bytes()
    head = (
        f"POST /face-swap HTTP/1.1\r\nHost: 127.0.0.1:{gateway.port}\r\n"
        f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {len(body) + 100_000_000}\r\n\r\n"
    )
    async with leaving_nothing(gateway):
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(head.encode() + body + bytes(1024 * 1024))
        await writer.drain()
        await wait_until(lambda: any("parts" in name for name in gateway.files()), what="the part to be written")
        writer.close()
        await writer.wait_closed()


# ------------------------------------------------------------------------------------------------------------------- URLs


async def test_both_a_file_and_a_url(gateway, material):
    files = parts(video=material.clip, image=material.face())
    data = {"video_url": "https://example.com/a.mp4"}
    await refused(gateway, 400, "validation_error", "video_url", files=files, data=data)
    data = {"image_url": "https://example.com/a.png"}
    await refused(gateway, 400, "validation_error", "image_url", files=files, data=data)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.mp4",
        "https://127.0.0.1/a.mp4",
        "https://2130706433/a.mp4",
        "https://0x7f.1/a.mp4",
        "https://[::1]/a.mp4",
        "https://[::ffff:127.0.0.1]/a.mp4",
        "https://localhost/a.mp4",
        "https://169.254.169.254/latest/meta-data",
        "https://10.0.0.1/a.mp4",
        "https://user@example.com/a.mp4",
        "file:///etc/passwd",
        "concat:/etc/passwd",
        "//127.0.0.1/a.mp4",
        "https://",
        "\x00",
    ],
)
async def test_url_to_where_nobody_may_reach(gateway, material, url):
    """Judged before the response begins, streamed or not, for both inputs."""
    files = parts(image=material.face())
    sentence = await refused(gateway, 400, "validation_error", "video_url", files=files, data={"video_url": url})
    data = {"video_url": url, "return_prompt_id_only": "true"}
    assert await refused(gateway, 400, "validation_error", "video_url", files=files, data=data) == sentence
    files = parts(video=material.clip)
    await refused(gateway, 400, "validation_error", "image_url", files=files, data={"image_url": url})


async def test_url_to_the_gateway_itself(gateway, material):
    data = {"video_url": f"{gateway.url}/health"}
    await refused(gateway, 400, "validation_error", "video_url", files=parts(image=material.face()), data=data)


# ------------------------------------------------------------------------------------------------------------------ words


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ("../../x", ".._.._x"),
        ("..", r"\.\."),
        ("/etc/passwd", "_etc_passwd"),
        ("a\u0000b\r\nX-Evil: 1", "a_b__X-Evil__1"),
        ("\u202egpj.x", "_gpj.x"),
        ("x" * 300, "x" * 80),
    ],
)
async def test_output_name_is_made_harmless(gateway, material, wish, expected):
    before = set(gateway.folder.parent.glob("*")) | set(gateway.folder.glob("*"))
    async with gateway.client() as client:
        files = parts(target_image=material.still, image=material.face())
        answer = await client.post("/face-swap", data={"output_name": wish, "return_prompt_id_only": "on"}, files=files)
        accepted = answer.json()
        assert re.fullmatch(expected, accepted["output_prefix"]), accepted
        done = await ended(client, accepted["prompt_id"])
        assert done["status"] == "SUCCESS", done
        assert re.fullmatch(rf"/download/{expected}_[0-9a-f]{{32}}\.png", done["result"])
        result = await client.get(done["result"])
        assert result.status_code == HTTPStatus.OK
        assert "x-evil" not in result.headers
        assert re.search(rf'filename="?{expected}', result.headers["content-disposition"])
    assert set(gateway.folder.parent.glob("*")) | set(gateway.folder.glob("*")) == before


@pytest.mark.parametrize("value", ["maybe", "2", "truefalse", "null", "\u0661"])
async def test_return_prompt_id_only_that_is_no_truth_value(gateway, material, value):
    files = parts(video=material.clip, image=material.face())
    data = {"return_prompt_id_only": value}
    await refused(gateway, 400, "validation_error", "return_prompt_id_only", files=files, data=data)


@pytest.mark.parametrize("value", ["true", "1", "yes", "on", "TRUE", " On "])
async def test_return_prompt_id_only_in_every_spelling(gateway, material, value):
    async with gateway.client() as client:
        files = parts(target_image=material.still, image=material.face())
        answer = await client.post("/face-swap", data={"return_prompt_id_only": value}, files=files)
        assert answer.json()["status"] == "QUEUED"
        await ended(client, answer.json()["prompt_id"])


async def test_unknown_text_fields_are_let_pass_and_unknown_files_are_not(gateway, material):
    async with gateway.client() as client:
        fields = {"swap_model": "x", "\u00fc": "\u00e4"}
        await ended(client, await submit(client, fields, target_image=material.still, image=material.face()))
    files = parts(video=material.clip, image=material.face(), mask=material.still)
    await refused(gateway, 400, "validation_error", "mask", files=files)


async def test_too_many_fields(gateway):
    await refused(gateway, 400, "validation_error", None, data={f"field{number}": "x" for number in range(100)})


@pytest.mark.parametrize("prompt_id", [PROMPT_ID, "abc123", "..%2f..%2fetc%2fpasswd", "%00", "x" * 5000, "%ff"])
@pytest.mark.parametrize(
    "route", ["/status/{}", "/events/{}", "/check_task_status/{}", "/-/jobs/{}", "/-/jobs/{}/events"]
)
async def test_unknown_prompt_id(gateway, route, prompt_id):
    async with leaving_nothing(gateway), gateway.client() as client:
        answer = await client.get(route.format(prompt_id))
        assert answer.status_code == HTTPStatus.NOT_FOUND
        assert answer.json()["code"] == "not_found"
        if "%2f" not in prompt_id:  # with a slash it is another path
            fields = {"-": "id", "check_task_status": "task_id"}
            assert answer.json()["field"] == fields.get(route.split("/")[1], "prompt_id")


@pytest.mark.parametrize("name", ["nothing.mp4", "..%2f..%2fgateway.db", "%2e%2e/admin-token", "%00", "x" * 5000])
@pytest.mark.parametrize("folder", ["download", "static"])
async def test_unknown_file(gateway, folder, name):
    async with gateway.client() as client:
        answer = await client.get(f"/{folder}/{name}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


# ------------------------------------------------------------------------------------------------------------------ bodies

FORM = "multipart/form-data; boundary=x"
PART = b'--x\r\nContent-Disposition: form-data; name="video"; filename="a.mp4"\r\n\r\n'


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (FORM, b"no boundary anywhere"),
        (FORM, PART + b"\0\0\0\x18ftypisom\0\0\0\0" * 8),
        (FORM, b"--x\r\n\r\nno headers\r\n--x--\r\n"),
        (FORM, b"--x\r\nContent-Disposition: attachment\r\n\r\nx\r\n--x--\r\n"),
        (FORM, b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\xfe\r\n--x--\r\n'),
        (FORM, b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 2 + b"--x--\r\n"),
        (FORM, b"--x\r\n" + b"a: b\r\n" * 20_000 + b"\r\nx\r\n--x--\r\n"),
        (FORM, b"--x\r\n" + b"a" * 100_000 + b": b\r\n\r\nx\r\n--x--\r\n"),
        ("multipart/form-data", PART),
        ("multipart/form-data; boundary=" + "b" * 1000, PART),
        (FORM, b""),
        ("application/json", b'{"video_url": NaN}'),
        ("application/json", b'{"video_url": -Infinity}'),
        ("application/json", b'{"output_name": "\xff\xfe"}'),
        ("application/json", b'{"output_name": "\\ud800"}'),
        ("application/json", b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        ("application/json", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        ("application/json", b'{"a": 1, "a": 2}'),
        ("application/json", b'{"a": ' + b"9" * 100_000 + b"}"),
        ("application/json", b"[]"),
        ("application/json", b""),
        ("application/json", b'\xef\xbb\xbf{"a": 1}'),
        ("application/x-www-form-urlencoded", b"a=%ff%fe"),
        ("application/x-www-form-urlencoded", b"a=\xff"),
        ("application/x-www-form-urlencoded", b"video_url=a&video_url=b"),
    ],
    ids=range(25),
)
@pytest.mark.parametrize("path", ["/face-swap", "/swap_image/", "/swap_video"])
async def test_body_that_is_malformed(gateway, path, content_type, body):
    async with leaving_nothing(gateway), gateway.client() as client:
        answer = await client.post(path, content=body, headers={"Content-Type": content_type})
        assert (answer.status_code, answer.json()["code"]) == (400, "validation_error"), answer.text
        assert set(answer.json()) == {"detail", "code", "field"}
        assert_sentence_is_clean(answer.json()["detail"], gateway)


async def test_json_larger_than_its_limit(gateway):
    content = b'{"output_name": "' + b"x" * (1024 * 1024) + b'"}'
    async with leaving_nothing(gateway), gateway.client() as client:
        answer = await client.post("/face-swap", content=content, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert "1 MiB" in answer.json()["detail"]


async def test_compressed_and_unknown_bodies(gateway):
    async with leaving_nothing(gateway), gateway.client() as client:
        for headers in ({"Content-Type": FORM, "Content-Encoding": "gzip"}, {"Content-Type": "text/xml"}):
            answer = await client.post("/face-swap", content=b"<x/>", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


async def test_nothing_of_all_this_hurt_the_gateway(gateway, material):
    """The last one here: it still swaps faces."""
    async with gateway.client() as client:
        prompt_id = await submit(client, video=material.clip, image=material.face(77))
        assert (await ended(client, prompt_id))["status"] == "SUCCESS"
    assert "Traceback" not in gateway.log.read_text()
