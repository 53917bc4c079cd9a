"""A copy is never changed under a lease, a failed change never becomes current, nobody sees half a version."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from guide_fast.errors import UsageError
from guide_fast.serve.engine_copies import EngineCopies


class Cells(dict[str, int]):
    """Changed in place, slowly."""

    writes = 0


def start() -> Cells:
    return Cells(a=0, b=0, c=0)


def write(copy: Cells, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        copy[key] = value
        copy.writes += 1
        time.sleep(0.001)


def step(copies: EngineCopies[Cells, str], values: dict[str, int], store: Any = lambda: None) -> None:
    copies.exchange(copies.prepare(values, write), values, store)


def seen(copies: EngineCopies[Cells, str]) -> dict[str, int]:
    with copies.leased(lambda: None) as (copy, _):
        return dict(copy)


def test_copies_take_turns_and_catch_up() -> None:
    made: list[Cells] = []
    copies: EngineCopies[Cells, str] = EngineCopies(lambda: made.append(start()) or made[-1])
    for number, values in enumerate(({"a": 1}, {"b": 2}, {"a": 3}, {"c": 4}), 1):
        step(copies, values)
        with copies.leased(lambda: None) as (copy, _):
            assert copy is made[number % 2]
    assert seen(copies) == {"a": 3, "b": 2, "c": 4}
    assert len(made) == 2
    assert made[0].writes + made[1].writes == 1 + 2 + 2 + 2  # each what it lacked, nothing else


def test_a_lease_keeps_its_copy_as_it_is() -> None:
    copies: EngineCopies[Cells, str] = EngineCopies(start)
    step(copies, {"a": 1})
    ready, release, done = threading.Event(), threading.Event(), threading.Event()
    during: list[int] = []

    def hold() -> None:
        with copies.leased(lambda: None) as (copy, _):
            ready.set()
            release.wait(5)
            during.append(copy["a"])

    def change() -> None:
        step(copies, {"a": 2})  # to the other copy
        step(copies, {"a": 3})  # to the leased one: has to wait
        done.set()

    threads = [threading.Thread(target=hold), threading.Thread(target=change)]
    threads[0].start()
    assert ready.wait(5)
    threads[1].start()
    assert not done.wait(0.2)
    assert seen(copies)["a"] == 2  # others go on meanwhile
    release.set()
    for thread in threads:
        thread.join(5)
    assert during == [1]
    assert seen(copies)["a"] == 3


def test_a_failed_change_is_never_seen_and_its_copy_never_used() -> None:
    made: list[Cells] = []
    copies: EngineCopies[Cells, str] = EngineCopies(lambda: made.append(start()) or made[-1])
    step(copies, {"a": 1})

    def fail(copy: Cells, values: Mapping[str, Any]) -> None:
        copy["b"] = -1
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        copies.prepare({"b": 2}, fail)
    assert seen(copies) == {"a": 1, "b": 0, "c": 0}
    step(copies, {"c": 3})
    assert len(made) == 3
    assert seen(copies) == {"a": 1, "b": 0, "c": 3}
    step(copies, {"a": 4})
    assert seen(copies) == {"a": 4, "b": 0, "c": 3}


def test_what_is_read_with_a_lease_fits_its_copy() -> None:
    copies: EngineCopies[Cells, str] = EngineCopies(start)
    label = [0]
    wrong: list[tuple[int, int]] = []
    stop = threading.Event()

    def render() -> None:
        while not stop.is_set():
            with copies.leased(lambda: label[0]) as (copy, version):
                found = {copy["a"], copy["b"], copy["c"]}
                if found != {version}:
                    wrong.append((version, *found))

    threads = [threading.Thread(target=render) for _ in range(4)]
    for thread in threads:
        thread.start()
    for version in range(1, 40):
        step(copies, dict.fromkeys("abc", version), lambda version=version: label.__setitem__(0, version))
    stop.set()
    for thread in threads:
        thread.join(5)
    assert not wrong


def test_dropped_copies_are_refused_to_the_next_lease() -> None:
    copies: EngineCopies[Cells, str] = EngineCopies(start)
    with copies.leased(lambda: None) as (copy, _):
        copies.drop()
        assert copy["a"] == 0
    with pytest.raises(UsageError, match="closed"), copies.leased(lambda: None):
        pass
