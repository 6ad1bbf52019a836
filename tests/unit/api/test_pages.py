import re
from pathlib import Path

import pytest

from gateway.api import pages
from tests.tools.asgi import ask, make

UI = Path(pages.__file__).parent / "ui"


@pytest.mark.parametrize("name", ["index.html", "style.css", "page.js"])
async def test_page_files_come_with_a_policy_and_are_revalidated(name):
    app, _ = make()
    answer = await ask(app, "GET", f"/-/ui/{name}")
    assert answer.status == 200
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = await ask(app, "GET", f"/-/ui/{name}", if_none_match=answer.headers["etag"])
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("name", ["..%2fapp.py", "pages.py", "", "%00", "index.html%00"])
async def test_nothing_but_page_files_is_served(name):
    app, _ = make()
    answer = await ask(app, "GET", f"/-/ui/{name}")
    assert answer.status == (404 if name else 200)


def test_the_page_needs_nothing_that_its_policy_forbids():
    html = (UI / "index.html").read_text(encoding="utf-8")
    script = (UI / "page.js").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|style=|<style", html)
    assert not re.search(r"https?://", html + script)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script)


def test_every_element_that_the_script_names_is_on_the_page():
    html = (UI / "index.html").read_text(encoding="utf-8")
    script = (UI / "page.js").read_text(encoding="utf-8")
    named = set(re.findall(r'byId\("(\w+)"\)', script))
    assert named
    assert named <= set(re.findall(r'id="(\w+)"', html))
