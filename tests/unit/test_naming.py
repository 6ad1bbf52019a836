from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.naming import MAX_CHARACTERS, safe_output_name, told_name

NOON = 1_750_248_022.0  # 2025-06-18 12:00:22 UTC


@pytest.mark.parametrize(
    ("wish", "name"),
    [
        ("my_faceswap", "my_faceswap"),
        ("../../x", ".._.._x"),
        ("/etc/passwd", "_etc_passwd"),
        ("a b\x00c\n", "a_b_c_"),
        ("e\u0301te\u0301", "_t_"),
        ("x" * 200, "x" * MAX_CHARACTERS),
        (".hidden", ".hidden"),
        ("😀", "_"),
    ],
)
def test_wish_is_made_harmless(wish: str, name: str) -> None:
    assert safe_output_name(wish, NOON) == name


@pytest.mark.parametrize("wish", [None, ""])
def test_without_a_wish_the_name_is_the_time(wish: str | None) -> None:
    assert safe_output_name(wish, NOON) == "faceswap_20250618_120022"


@given(st.text(max_size=300))
def test_any_wish_gives_a_plain_short_name(wish: str) -> None:
    name = safe_output_name(wish, NOON)
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,80}", name)


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("face_swap", "faceswap_20250618_120022"),
        ("image_upscale", "image_upscale_20250618_120022"),
        ("an operator's own", "an_operator_s_own_20250618_120022"),
        ("x" * 200, "x" * 64 + "_20250618_120022"),
    ],
)
def test_without_a_wish_the_task_is_in_the_name(task, name):
    assert safe_output_name(None, NOON, task) == name
    assert safe_output_name("mine", NOON, task) == "mine"


@pytest.mark.parametrize(
    ("name", "address", "told"),
    [
        ("10.0.0.5-8188", "http://10.0.0.5:8188", "upstream-3"),
        ("gpu.example.org-443", "https://gpu.example.org:443", "upstream-3"),
        ("ipv6---1-8188", "http://[::1]:8188", "upstream-3"),
        ("left-gpu", "http://10.0.0.5:8188", "left-gpu"),
        ("embedded-1", "http://127.0.0.1:40001", "embedded-1"),
    ],
)
def test_clients_are_told_a_name_but_no_address(name, address, told):
    assert told_name(name, address, 3) == told
