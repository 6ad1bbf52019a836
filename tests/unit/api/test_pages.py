import re
from pathlib import Path

import pytest

from gateway.api import pages
from tests.tools.asgi import ask, make

UI = Path(pages.__file__).parent / "ui"
FILES = sorted(path.name for path in UI.iterdir())
SCRIPTS = {path.name: path.read_text(encoding="utf-8") for path in UI.glob("*.js")}
PAGES = {path.name: path.read_text(encoding="utf-8") for path in UI.glob("*.html")}
HTML = "".join(PAGES.values())
STYLE = (UI / "style.css").read_text(encoding="utf-8")


def test_the_pages_have_their_files():
    assert {"index.html", "docs.html", "style.css", "docs.css", "icon.svg", "page.js", "docs.js"} <= set(FILES)


@pytest.mark.parametrize("name", FILES)
async def test_page_files_come_with_a_policy_and_are_revalidated(name):
    app, _ = make()
    answer = await ask(app, "GET", f"/-/ui/{name}")
    assert answer.status == 200
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'self'"
    assert policy["img-src"] == policy["media-src"] == "'self' blob:"
    assert not re.search(r"unsafe-|\*|https?:|data:", answer.headers["content-security-policy"])
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = await ask(app, "GET", f"/-/ui/{name}", if_none_match=answer.headers["etag"])
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("name", ["..%2fapp.py", "pages.py", "%00", "index.html%00"])
async def test_nothing_but_page_files_is_served(name):
    app, _ = make()
    answer = await ask(app, "GET", f"/-/ui/{name}")
    assert answer.status == 404


async def test_the_page_of_the_api_is_served_with_the_same_policy():
    app, _ = make()
    answer = await ask(app, "GET", "/docs")
    assert (answer.status, answer.body.decode()) == (200, PAGES["docs.html"])
    assert answer.headers["content-security-policy"].startswith("default-src 'self';")


async def test_folder_of_the_files_leads_to_the_page_below_whatever_path():
    app, _ = make()
    answer = await ask(app, "GET", "/-/ui/")
    assert (answer.status, answer.headers["location"]) == (308, "../../")


def test_the_page_needs_nothing_that_its_policy_forbids():
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|<style", HTML)
    assert not re.search(r"""setAttribute\(\s*["'](?:style|on)|cssText""", "".join(SCRIPTS.values()))


@pytest.mark.parametrize("name", [name for name in FILES if name != "icon.svg"])
def test_nothing_is_loaded_from_elsewhere(name):
    assert not re.search(r"https?:|//[a-z]+\.", (UI / name).read_text(encoding="utf-8"))


def test_picture_names_no_other_address_than_its_format():
    found = re.findall(r"https?://[^\"]+", (UI / "icon.svg").read_text(encoding="utf-8"))
    assert found == ["http://www.w3.org/2000/svg"]


def test_the_page_leads_to_the_page_of_the_api_and_back():
    assert 'href="docs"' in PAGES["index.html"]
    assert 'href="./"' in PAGES["docs.html"]


def test_addresses_on_the_page_are_relative():
    named = re.findall(r'\b(?:href|src|action)="([^"#][^"]*)"', HTML)
    assert named
    assert [address for address in named if address.startswith("/")] == []
    # The pages stand at the root: "./" is the first of them; the second and the document lie beside it.
    assert {address.removeprefix("-/ui/") for address in named} <= {*FILES, "./", "docs", "openapi.json"}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_make_no_markup_and_no_code_of_texts(name):
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser|createContextualFragment|srcdoc"
    assert not re.search(forbidden, SCRIPTS[name])


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_import_what_is_there(name):
    assert set(re.findall(r'from "\./([\w.]+)"', SCRIPTS[name])) <= set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_element_that_a_script_names_is_on_the_page(name):
    found = set(re.findall(r'id="(\w+)"', HTML))
    assert set(re.findall(r'byId\("(\w+)"\)', SCRIPTS[name])) <= found
    for part in re.findall(r"byId\(`\$\{slot\}(_\w+)`\)", SCRIPTS[name]):
        assert {f"target{part}", f"face{part}"} <= found


def test_labels_and_descriptions_lead_somewhere():
    found = set(re.findall(r'id="(\w+)"', HTML))
    named = re.findall(r'\b(?:for|aria-labelledby|aria-describedby)="([^"]+)"', HTML)
    assert named
    assert {word for words in named for word in words.split()} <= found


# ------------------------------------------------------------------------------------------------------------- contrast

LEAST_TEXT, LEAST_PART = 4.5, 3.0  # WCAG 2.2, success criteria 1.4.3 and 1.4.11
TEXTS = [
    *[(ink, on) for ink in ("ink", "soft") for on in ("page", "card", "sunken")],
    *[("ink", "accent-soft"), ("soft", "accent-soft"), ("accent", "card"), ("accent", "sunken")],
    *[("accent-ink", "accent"), ("accent", "accent-soft"), ("bad", "card")],
    *[(name, f"{name}-soft") for name in ("good", "warn", "bad")],
]
#: What must be seen to be used: borders of fields, the dots, bars.
PARTS = [
    *[("line-strong", "card"), ("line-strong", "sunken"), ("accent", "card"), ("accent", "sunken"), ("accent", "page")],
    *[(name, "card") for name in ("good", "warn", "bad")],
]


def colors(scheme: str) -> dict[str, str]:
    """Name -> #rrggbb; the dark scheme's stand in the style sheet's second block."""
    blocks = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    assert len(blocks) == 2
    found = {}
    for block in blocks[: 1 if scheme == "light" else 2]:
        found |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6});", block))
    return {
        name: "#" + "".join(2 * digit for digit in value[1:]) if len(value) == 4 else value
        for name, value in found.items()
    }


def luminance(color: str) -> float:
    """Relative luminance. Source: WCAG 2.2, definitions."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast_is_worked_out_as_the_standard_says():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("ink", "surface", "least"), [
    *[(ink, on, LEAST_TEXT) for ink, on in TEXTS], *[(part, on, LEAST_PART) for part, on in PARTS],
])  # fmt: skip
def test_colors_stand_out_from_their_surface(scheme, ink, surface, least):
    found = colors(scheme)
    assert contrast(found[ink], found[surface]) >= least
