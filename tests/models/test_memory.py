"""Freed memory stays where glibc can be told so, and nothing is touched elsewhere."""

from __future__ import annotations

import ctypes
import platform

import pytest

from guide_fast.models.memory import keep_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_glibc_accepts_every_setting() -> None:
    assert keep_freed_memory()
    assert keep_freed_memory()  # and again


@pytest.mark.parametrize(("system", "libc"), [("Darwin", ""), ("Windows", ""), ("Linux", "musl")])
def test_other_platforms_are_left_alone(monkeypatch: pytest.MonkeyPatch, system: str, libc: str) -> None:
    def refuse(name: None) -> None:
        raise AssertionError("the C library was opened")

    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "libc_ver", lambda: (libc, ""))
    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert not keep_freed_memory()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_refusal_by_the_c_library_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def __init__(self, name: None) -> None:
            pass

        @staticmethod
        def mallopt(option: int, value: int) -> int:
            return 0

    monkeypatch.setattr(ctypes, "CDLL", Library)
    assert not keep_freed_memory()
