from __future__ import annotations

from dataclasses import replace

from gateway.portability import Platform, lacks

LINUX = Platform(system="linux", kernel="6.1.0-23-amd64", has_tcp_user_timeout=True, has_uvloop=True)


def test_linux_with_uvloop_lacks_nothing() -> None:
    assert lacks(LINUX) == ()


def test_wsl_is_said_to_be_untested_and_lacks_nothing_else() -> None:
    [sentence] = lacks(replace(LINUX, kernel="5.15.153.1-microsoft-standard-WSL2"))
    assert "not been run on WSL" in sentence


def test_macos_is_told_each_thing_in_a_sentence_of_its_own() -> None:
    told = lacks(Platform(system="darwin", kernel="23.5.0", has_tcp_user_timeout=False, has_uvloop=True))
    assert [
        word
        for sentence in told
        for word in ("macOS", "TCP_USER_TIMEOUT", "parent-death", "uvloop")
        if word in sentence
    ] == ["macOS", "TCP_USER_TIMEOUT", "parent-death"]


def test_missing_uvloop_is_told_on_linux_too() -> None:
    [sentence] = lacks(replace(LINUX, has_uvloop=False))
    assert "uvloop" in sentence
