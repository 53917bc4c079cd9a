"""Ctrl-C waits for what must happen as a whole; a state serves the request that left it alone."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guide_fast.errors import IntegrityError, UsageError
from guide_fast.resumption import check_request, uninterrupted

REQUEST = {"photo": "a" * 64, "face": None, "aligned": False, "invert.lr": 0.1 + 0.2}


@pytest.fixture(autouse=True)
def handler() -> Iterator[Any]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_interrupt_comes_after_the_block(handler: Any) -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        done.append("first")
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done.append("second")
    assert done == ["first", "second"]
    assert signal.getsignal(signal.SIGINT) is handler


def test_interrupt_is_not_lost_when_the_block_fails(handler: Any) -> None:
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        raise ValueError
    assert signal.getsignal(signal.SIGINT) is handler


def test_block_without_interrupt_leaves_the_handler(handler: Any) -> None:
    with uninterrupted():
        pass
    assert signal.getsignal(signal.SIGINT) is handler


def test_handler_of_the_program_around_is_told(handler: Any) -> None:
    told = []
    signal.signal(signal.SIGINT, lambda number, frame: told.append(number))
    with uninterrupted():
        signal.raise_signal(signal.SIGINT)
        assert told == []
    assert told == [signal.SIGINT]


def test_other_threads_are_left_alone(handler: Any) -> None:
    done: list[Any] = []

    def work() -> None:
        with uninterrupted():
            done.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [handler]


def test_same_request_passes() -> None:
    check_request(Path("s"), dict(REQUEST), REQUEST)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"photo": "b" * 64}, r"another photo \(aaaaaaaaaaaa then, bbbbbbbbbbbb now\)"),
        ({"face": 1}, r"another face \(none then, 1 now\)"),
        ({"aligned": True}, r"another aligned \(False then, True now\)"),
        ({"invert.lr": 0.3}, r"another invert\.lr \(0\.30000000000000004 then, 0\.3 now\)"),
        ({"new": 1}, r"another new \(none then, 1 now\)"),
    ],
)
def test_another_request_is_refused_with_the_way_out(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=rf"^run/s was left by a run with {said}; .*start anew without --resume$"):
        check_request(Path("run/s"), REQUEST, REQUEST | change)


def test_what_only_the_state_asked_for_is_refused() -> None:
    with pytest.raises(UsageError, match=r"another old \(2 then, none now\)"):
        check_request(Path("s"), REQUEST | {"old": 2}, REQUEST)


@pytest.mark.parametrize("before", [None, [], "x"])
def test_state_that_does_not_say_is_damaged(before: Any) -> None:
    with pytest.raises(IntegrityError, match="does not say what it was asked for"):
        check_request(Path("s"), before, REQUEST)
