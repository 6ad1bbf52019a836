"""What a ``template.toml`` may say (``manifest.py``)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from gateway import manifest
from gateway.errors import InvalidInputError, TemplateError
from gateway.manifest import ParameterEntry, ParameterType, check_value, preferred
from gateway.template import load_template

ROOT = Path(__file__).parents[2]
IMAGE = "faceswap_image"


def texts(name):
    folder = ROOT / "workflows" / name
    return tuple((folder / file).read_text(encoding="utf-8") for file in ("template.toml", "graph.json"))


def edited_toml(name, old, new):
    toml, graph = texts(name)
    assert old in toml
    return load_template(name, toml.replace(old, new, 1), graph)


def refusal(make, *args):
    with pytest.raises(TemplateError) as caught:
        make(*args)
    return caught.value


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("schema = 1\n", "", "schema is missing"),
        ("schema = 1", "schema = 2", "schema 2"),
        ("price = 1", "prize = 1", "prize is no key"),
        ("price = 1", 'price = "1"', "price"),
        ("price = 1", "price = true", "price"),
        ("price = 1", "price = 1_000_001", "price"),
        ("price = 1", 'price_per = "hour"', "price_per"),
        ("price = 1", "free_below_bytes = -1", "free_below_bytes"),
        ('accepts = ["image"]', 'accepts = ["picture"]', "inputs.target.accepts"),
        ('accepts = ["image"]', "accepts = []", "inputs.target.accepts"),
        ("[inputs.face]", "[inputs.photo]", "needs inputs.face"),
        ('swap_nodes = ["Swap face"]', "", "swap_nodes"),
        ('of = "target"', 'of = "photo"', "no input"),
        ('keeps = ["frames", "size"]', 'keeps = ["colour"]', "outputs.result.keeps"),
        ('node = "Target image"', 'node = "Target image"\nnode_id = "1"', "either node"),
        ('node = "Target image"\n', "", "either node"),
        ('node = "Target image"', 'node_id = "99"', "no node of this id"),
        ("default = 1.0\nmin = 0.1", "default = 0.0\nmin = 0.1", "from 0.1 to 1.0"),
        ("max = 1.0", "max = 0.01", "min is greater than max"),
        ("default = 1.0\n", "default = 1.0\nrequired = true\n", "required has no default"),
        ("default = 1.0\n", "", "default is missing"),
        (
            'type = "string"\ndefault = "0"\npattern = \'\\d{1,2}(,\\d{1,2})*\'',
            'type = "string"\ndefault = "0"',
            "pattern",
        ),
        ("'\\d{1,2}(,\\d{1,2})*'", "'('", "no regular expression"),
        ('choices_from = "object_info"', 'choices = ["a"]\nchoices_from = "object_info"', "either choices"),
        ('default = "no"', 'default = "yes"', "one of no, female, male"),
        ("fallback = { value", "fallback = { values", "fallback.values is no key"),
        ("set = { enabled", "set = { enable", "no such input"),
        ('input = "restore_with_main_after"', 'input = "enabled"', "both"),
        ('chain = "input_image"', 'chain = "swap_model"', "linked"),
        ("[parameters.swap_model]", "[parameters.SwapModel]", "no name"),
        ("schema = 1", "schema = ", "no TOML"),
    ],
)
def test_faulty_manifest_is_refused_with_its_reason(old, new, reason):
    error = refusal(edited_toml, IMAGE, old, new)
    assert reason in str(error)
    assert IMAGE in str(error)


@pytest.mark.parametrize(
    "entry",
    [
        manifest.Manifest,
        manifest.NodeRef,
        manifest.InputEntry,
        manifest.ParameterEntry,
        manifest.Fallback,
        manifest.OutputEntry,
        manifest.RepeatEntry,
        manifest.LicenceEntry,
    ],
)
def test_every_key_is_documented(entry):
    guide = (ROOT / "docs/templates.md").read_text(encoding="utf-8")
    for key in dataclasses.fields(entry):
        assert f"`{key.name}`" in guide or f"[{key.name}." in guide or f"[[{key.name}]]" in guide, key.name


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_number_without_limits_is_finite_all_the_same(value):
    entry = ParameterEntry(node="n", input="i", type=ParameterType.FLOAT, default=0.0)
    with pytest.raises(InvalidInputError):
        check_value(entry, "strength", value)


def choice(*prefer, fallback=None):
    return ParameterEntry(
        node="n",
        input="i",
        type=ParameterType.CHOICE,
        choices_from=manifest.ChoicesFrom.OBJECT_INFO,
        prefer=prefer,
        fallback=None if fallback is None else manifest.Fallback(value=fallback),
    )


@pytest.mark.parametrize(
    ("prefer", "fallback", "offered", "taken"),
    [
        (("a", "b"), None, ("b", "a"), "a"),
        (("a", "b"), None, ("b", "c"), "b"),
        (("x*",), None, ("x2", "x1"), "x1"),
        (("x*",), None, ("X1",), None),
        (("a",), "none", ("none", "b"), "none"),
        (("a",), "none", ("b",), None),
        (("a",), None, None, None),
        (("1",), None, (1,), None),
    ],
)
def test_first_preference_that_is_offered_wins(prefer, fallback, offered, taken):
    assert preferred(choice(*prefer, fallback=fallback), offered) == taken
