"""The page at ``/`` in a real browser: the main job, and all that a visitor meets beside it.

Each test hands one scenario of ``page.mjs`` to Chromium and judges what it saw; nothing of the gateway is faked. A
refused submission makes Chromium itself write a line to its console; apart from that, and from a link that the test cuts,
no test accepts a line there.
"""

from __future__ import annotations

import json
import re
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.browser.node import required_tools, run_script
from tests.tools import clips, gifs
from tests.tools.gateway_process import GatewayProcess
from tests.tools.waiting import wait_until_now

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
EVIL = "<img src=x onerror=window.hit=1>.mp4"
NO_TARGET = "This cannot be used: choose an MP4, MOV or WebM video, a GIF, or a JPEG, PNG or WebP picture."
#: Of both players, as they run: two pictures of a 24 fps film.
DRIFT_SECONDS = 0.09


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    required_tools()
    folder = tmp_path_factory.mktemp("material")
    film = folder / "small.gif"
    film.write_bytes(gifs.gif(gifs.portraits([0, 2, 4, 6]), [7, 12, 7, 20], loop=0))
    made = {
        "clip": clips.clip(folder / "clip.mp4", 12),
        "long": clips.clip(folder / "long.mp4", 200, sound=True),
        "endless": clips.clip(folder / "endless.mp4", 1500),
        "still": clips.still(folder / "still.png"),
        "face": clips.face(folder / "face.png"),
        "faceless": clips.faceless(folder / "faceless.png"),
        "gif": film,
    }
    return {name: str(path) for name, path in made.items()}


@pytest.fixture(scope="module")
def workflows(tmp_path_factory) -> Path:
    return shutil.copytree(ROOT / "workflows", tmp_path_factory.mktemp("templates") / "workflows")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, workflows, files):
    with GatewayProcess(tmp_path_factory.mktemp("gateway"), {"WORKFLOWS_DIR": str(workflows)}) as process:
        yield process


def job(gateway: GatewayProcess, job_id: str) -> dict:
    with gateway.http() as http:
        return http.get(f"/-/jobs/{job_id}", headers=gateway.bearer).json()


def see(gateway: GatewayProcess, files: dict[str, str], scenario: str, *, token: str | None = None, **more):
    shown = token or gateway.bearer["Authorization"].removeprefix("Bearer ")
    return run_script("page.mjs", gateway=gateway.url, files=files, token=shown, scenario=scenario, **more)


@pytest.fixture(scope="module")
def swap(gateway, files):
    return see(gateway, files, "swap")


def test_dropped_files_are_swapped_and_the_bar_moves(swap):
    assert swap["chosen"] == [EVIL, "face.png"]
    assert swap["values"] == sorted(swap["values"])
    assert swap["values"][0] < swap["values"][-1] < 100
    assert re.fullmatch(r".+: \d+ of \d+(, pass \d of \d)?", swap["step"])
    assert re.fullmatch(r"about .+ left", swap["eta"])


def test_reload_in_the_middle_goes_on_with_the_same_job(swap, gateway):
    assert swap["before"] < 100
    assert swap["after"] >= swap["before"]
    assert swap["stateAfterReload"] == "Running"
    assert [row["state"] for row in swap["rows"]] == ["Done"]
    assert job(gateway, swap["id"])["state"] == "succeeded"


def test_a_tab_holds_one_event_stream_at_most_and_none_after_the_end(swap):
    before, after = swap["streams"]
    assert before == {"made": 1, "most": 1, "live": 1}
    assert after == {"made": 1, "most": 1, "live": 0}


def test_result_is_beside_its_original_and_both_players_run_together(swap):
    assert swap["captions"] == ["Before", "After"]
    # The original comes out of this browser's own memory, also after the reload.
    assert swap["sources"] == ["blob:", "http:"]
    # A single one may be caught between a seek and its picture.
    assert sorted(swap["drifts"])[len(swap["drifts"]) // 2] <= DRIFT_SECONDS
    assert swap["places"] == pytest.approx([1.0, 1.0], abs=0.1)


def test_downloaded_file_is_the_result(swap, gateway):
    [result] = job(gateway, swap["id"])["results"]
    assert swap["fileName"] == result["link"]
    assert swap["sizeBytes"] == result["size_bytes"]


def test_name_of_a_file_is_text(swap):
    assert swap["title"] == swap["rows"][0]["name"] == EVIL
    assert swap["hit"] is None
    assert swap["planted"] == 0


def test_main_job_leaves_no_console_error_and_asks_nobody_else(swap):
    assert swap["complaints"] == []
    assert swap["elsewhere"] == []


def test_times_are_those_of_the_visitor(swap, gateway):
    began = datetime.fromisoformat(job(gateway, swap["id"])["created_at"]) + timedelta(hours=9)  # Tokyo
    shown = re.search(r"(\d+):(\d+)", swap["rows"][0]["time"])
    # Chromium's own clock tells when the list's entry was made: a minute may have passed.
    assert (int(shown[1]) % 12, int(shown[2])) in {
        ((began + timedelta(minutes=late)).hour % 12, (began + timedelta(minutes=late)).minute) for late in (0, 1)
    }


def test_screen_readers_are_told_of_states_and_quarters_only(swap):
    before, after = swap["spoken"]
    assert before[0] == "Uploading"
    assert after[0] == "Running"
    assert after[-1] == "Done"
    quarters = r"(25|50|75) percent done"
    states = r"Uploading|Waiting|Starting|Running|Finishing|Done"
    assert [sentence for sentence in before + after if not re.fullmatch(f"{quarters}|{states}", sentence)] == []
    # Nothing is told twice, but for what a reload tells anew.
    assert len(before) == len(set(before))
    assert len(after) == len(set(after))


def test_jobs_are_canceled_on_the_stage_and_from_the_list(gateway, files):
    seen = see(gateway, files, "cancel")
    assert re.fullmatch(r"Waiting( for a free worker|, .+ ahead); starts in about .+", seen["step"])
    assert seen["runningMeanwhile"] == "Running"
    assert [(row["name"], row["state"]) for row in seen["rows"]] == [
        ("clip.mp4", "Canceled"),
        ("endless.mp4", "Canceled"),
        ("clip.mp4", "Done"),
    ]
    assert {job(gateway, seen[name])["state"] for name in ("running", "waiting")} == {"canceled"}
    assert seen["controls"] == ["New swap"]
    assert seen["streams"]["most"] == 1
    assert seen["complaints"] == []


def test_still_is_compared_by_a_slider_that_the_keyboard_moves(gateway, files):
    seen = see(gateway, files, "still")
    assert seen["splits"] == ["50%", "49%", "0%"]
    assert seen["told"] == "0 % before, 100 % after"
    assert seen["sizes"][0] == seen["sizes"][1]
    assert seen["complaints"] == []


def test_gif_comes_back_as_a_gif_beside_its_original(gateway, files):
    seen = see(gateway, files, "gif")
    assert seen["head"] == "GIF89a"
    assert seen["sources"] == ["blob:", "http:"]
    assert seen["captions"] == ["Before", "After"]
    assert seen["complaints"] == []


def test_refusal_stands_where_the_file_was_chosen(gateway, files):
    seen = see(gateway, files, "refuse")
    assert seen["nothingChosen"] == [
        "Choose a video, GIF or picture to change.",
        "Choose a photo with the face to put in.",
    ]
    assert seen["complaintsBefore"] == []
    assert seen["error"] == NO_TARGET
    assert (seen["invalid"], seen["focused"]) == ("true", "target")
    assert seen["names"] == ["notes.mp4", "face.png"]
    assert seen["rows"] == []
    [complaint] = seen["complaints"]
    assert re.match(r"Failed to load resource: .* 415 ", complaint)


def test_what_cannot_be_used_is_told_before_it_is_sent_and_in_words(gateway, files):
    seen = see(gateway, files, "unfit")
    assert seen["atOnce"] == "This cannot be used: choose a JPEG, PNG or WebP picture."
    assert seen["empty"] == "This file is empty."
    assert seen["tooLarge"] == "Both files together are larger than 1100 MiB."
    assert (seen["mended"], seen["left"]) == ("", "")
    assert seen["dropped"] == ["a.mp4", "c.png", "A swap takes two files: of these 3 the others were left out."]


def test_a_failed_swap_is_tried_again_without_choosing_the_film_again(gateway, files):
    seen = see(gateway, files, "again")
    assert seen["error"].startswith("No face was found in the face photo.")
    assert seen["name"] == "\u0635\u0648\u0631\u0629.mp4"
    assert seen["direction"] == "rtl"
    assert seen["button"] == "New swap"
    assert seen["complaints"] == []


def test_a_job_whose_worker_was_lost_promises_no_time_and_says_that_nobody_can_run_it(gateway, files):
    seen = see(gateway, files, "lost")
    assert seen["eta"] == ""
    assert seen["step"] == "Waiting: no worker can run it. gpu: it does not answer"


def test_keyboard_is_enough(gateway, files):
    seen = see(gateway, files, "keyboard")
    assert seen["order"][:4] == ["skip", "home", "target", "target_clear"]
    assert set(seen["outlines"]) == {"solid"}
    assert seen["focusedAtEnd"] == "job_title"
    assert seen["file"].endswith(".mp4")
    assert seen["complaints"] == []


def test_page_fits_phone_and_desktop_and_names_all_that_can_be_used(gateway, files):
    seen = see(gateway, files, "looks")
    assert len(seen) == 4
    for name, look in seen.items():
        assert max(look["widths"]) <= look["width"], name
        assert look["sizeIsSeen"], name
        assert look["unnamed"] == [], name
        assert look["complaints"] == [], name
        for part in (
            'button "Video, GIF or picture to change"',
            'button "Photo with the face to put in"',
            'textbox "Name of the result (optional)"',
            'button "Swap the face"',
            'heading "Swap a face" [level=1]',
            'heading "Workers" [level=2]',
        ):
            assert part in look["empty"], (name, part)
    backgrounds = {name: look["background"] for name, look in seen.items()}
    assert backgrounds["phone dark"] == backgrounds["desktop dark"] != backgrounds["phone light"]


def test_key_opens_a_gateway_below_a_path_and_a_lost_link_comes_back(tmp_path, files):
    with GatewayProcess(tmp_path, {"AUTH": "keys"}) as gateway, gateway.http() as http:
        body = {"name": "page", "credits": 100}  # as many requests a minute as keys have by default
        token = http.post("/-/keys", json=body, headers=gateway.bearer).json()["key"]
        swap = {"target_image": files["still"], "image": files["face"]}
        parts = {field: Path(path).read_bytes() for field, path in swap.items()}
        form, own = {"return_prompt_id_only": "true"}, {"X-API-Key": token}
        others = [http.post("/face-swap", data=form, files=parts, headers=own).json()["prompt_id"] for _ in range(3)]
        seen = see(gateway, files, "keys", token=token, others=others)
        assert http.get(f"/-/jobs/{seen['id']}", headers={"X-API-Key": token}).json()["state"] == "succeeded"
        assert http.get(f"/-/jobs/{seen['id']}", headers=gateway.bearer).status_code == 404, "it is the key's alone"
    assert seen["closed"] == {"upstreams": 0, "start": True}
    assert seen["wrong"] == "The gateway does not accept this key."
    assert seen["askedOneByOne"] == 0, "requests are counted: the list of jobs is asked for once"
    assert seen["lost"]["pill"] == "Not reachable"
    assert all(re.search(r"ERR_(EMPTY_RESPONSE|CONNECTION|INCOMPLETE)", line) for line in seen["lost"]["complaints"])
    # EventSource cannot carry a key: the same stream is read with fetch, again after the cut.
    assert seen["streams"]["made"] == 0
    assert seen["eventRequests"] >= 2
    assert seen["final"].endswith("/swap/")
    assert seen["elsewhere"] == []
    assert seen["complaints"] == []
    local, session = seen["kept"]
    assert token not in local
    assert token in session


def test_consent_is_asked_for_where_the_gateway_wants_it_and_of_each_swap_anew(tmp_path, files):
    with GatewayProcess(tmp_path, {"REQUIRE_CONSENT": "true"}) as gateway:
        seen = see(gateway, files, "consent")
        with gateway.http() as http:
            record = http.get(f"/-/consent/{seen['id']}", headers=gateway.bearer).json()
    assert "consent" in seen["error"]
    assert (seen["focus"], seen["asked"]) == ("consent", 0)
    assert (record["attested_by"], record["state"]) == ("field", "succeeded")
    assert seen["isChecked"] is False
    assert seen["complaints"] == []


def test_browser_keeps_what_is_documented_until_it_is_removed_or_purged(gateway, files):
    seen = see(gateway, files, "memory")
    nothing = {"jobs": [], "originals": []}
    assert seen["both"] == {"jobs": ["still.png"] * 2, "originals": ["still.png"] * 2}
    assert seen["afterRemoval"] == {"jobs": ["still.png"], "originals": ["still.png"]}
    assert seen["afterPurge"] == nothing
    newest_first = [str(number) for number in range(34, -1, -1)]
    assert seen["many"] == {"jobs": newest_first[:30], "originals": newest_first[:10][::-1]}


def test_pool_is_shown_without_secrets(gateway, files):
    with gateway.http() as http:
        added = http.post("/-/upstreams", headers=gateway.bearer, json={"url": "http://someone:hunter2@127.0.0.1:9"})
        assert added.status_code == 201, added.text
        name = added.json()["name"]
        try:
            seen = see(gateway, files, "pool")
        finally:
            assert http.delete(f"/-/upstreams/{name}", headers=gateway.bearer).status_code == 204
            wait_until_now(lambda: http.get("/health").json()["status"] == "healthy", what="the pool of before")
    upstreams = {lines[0]: [line for line in lines[1:] if line] for lines in map(str.splitlines, seen["upstreams"])}
    assert upstreams.keys() == {"embedded-1", name}
    assert upstreams["embedded-1"][0] == "Idle"
    assert upstreams[name][0] != "Idle"
    assert "hunter2" not in json.dumps(seen)
    assert seen["complaints"] == []


def test_upstream_that_is_rid_of_prompts_says_what_is_done_about_it(gateway, files):
    seen = see(gateway, files, "stale")
    assert seen["lines"][:2] == ["<b>gpu</b>", "Removing <i>2</i> prompts"]
    assert (seen["state"], seen["markup"], seen["complaints"]) == ("degraded", 0, [])


def test_fault_of_a_template_is_shown_with_node_input_and_reason_until_it_is_mended(gateway, files, workflows):
    graph = workflows / "faceswap_video" / "graph.json"
    whole = graph.read_text(encoding="utf-8")
    texts = {"break it": whole.replace('"swap_model"', '"swap_modle"'), "mend it": whole}
    assert texts["break it"] != whole

    def edit(word: str) -> None:
        if word in texts:
            graph.write_text(texts[word], encoding="utf-8")

    try:
        seen = see(gateway, files, "fault", on_word=edit)
    finally:
        graph.write_text(whole, encoding="utf-8")
    [note] = seen["notes"]
    assert "faceswap_video" in note
    assert "node 'Swap face', input 'swap_model'" in note
    assert "last good version" in note
    assert seen["pill"] == "Partly available"
    assert seen["left"] == 0
    assert seen["complaints"] == []
