"""Ctrl-C waits for what must happen as a whole; a state serves the request that left it alone."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from guide_fast import resumption
from guide_fast.artifacts import read_safetensors, write_safetensors
from guide_fast.errors import IntegrityError, UsageError
from guide_fast.resumption import check_request, read_state, saving, uninterrupted, write_state

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


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, MemoryError, ValueError])
def test_state_is_saved_when_the_block_is_done_or_stopped(handler: Any, error: type[BaseException] | None) -> None:
    saved: list[str] = []

    def block() -> None:
        with saving(lambda: (signal.raise_signal(signal.SIGINT), saved.append("all of it"))):
            if error is not None:
                raise error

    with pytest.raises(KeyboardInterrupt):  # Ctrl-C while saving waits
        block()
    assert saved == ["all of it"]


def test_state_is_not_saved_after_an_error_of_ours() -> None:
    saved: list[str] = []
    with pytest.raises(UsageError), saving(lambda: saved.append("state")):
        raise UsageError("no layer of tiny matches 'conv9'")
    assert saved == []


TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones((), dtype=torch.int64)}
DONE = {"step": 3, "curve": [{"loss": 0.1 + 0.2}]}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    write_state(tmp_path / "state", "test state", TENSORS, REQUEST, DONE)
    return tmp_path / "state"


def test_state_comes_back_as_it_was(state: Path) -> None:
    tensors, done = read_state(state, "test state", REQUEST)
    assert all(tensors[name].equal(value) and tensors[name].dtype == value.dtype for name, value in TENSORS.items())
    assert tensors.keys() == TENSORS.keys() and done == DONE


def test_any_flipped_bit_of_the_tensors_is_noticed(state: Path) -> None:
    content = state.read_bytes()
    for place in range(1, 33):  # 6 * 4 + 8 bytes of tensors at the end
        damaged = bytearray(content)
        damaged[-place] ^= 1
        state.write_bytes(damaged)
        with pytest.raises(IntegrityError, match=r"bytes of .*state are damaged; start anew without --resume"):
            read_state(state, "test state", REQUEST)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, content: tensors.pop("b"),
        lambda tensors, content: tensors.update(c=torch.ones(1)),
        lambda tensors, content: content["done"].update(step=4),
        lambda tensors, content: content.pop("done"),
        lambda tensors, content: content.pop("sha256"),
    ],
    ids=["missing tensor", "another tensor", "another number", "no numbers", "no hash"],
)
def test_state_that_is_not_what_was_written_is_damaged(state: Path, change: Any) -> None:
    tensors, content = read_safetensors(state, "test state")
    change(tensors, content)
    write_safetensors(state, tensors, "test state", content)
    with pytest.raises(IntegrityError, match="start anew without --resume"):
        read_state(state, "test state", REQUEST)


def test_state_of_another_version_is_refused(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumption.metadata, "version", lambda name: "99.0")
    with pytest.raises(UsageError, match=r"another guide-fast \(.+ then, 99\.0 now\)"):
        read_state(state, "test state", REQUEST)


def test_state_of_another_request_is_refused(state: Path) -> None:
    with pytest.raises(UsageError, match="another face"):
        read_state(state, "test state", REQUEST | {"face": 2})


@pytest.mark.parametrize("content", [{}, {"request": None}, []])
def test_state_without_a_request_is_damaged(tmp_path: Path, content: Any) -> None:
    write_safetensors(tmp_path / "state", TENSORS, "test state", content)
    with pytest.raises(IntegrityError, match="does not say what it was asked for"):
        read_state(tmp_path / "state", "test state", {})


def test_termination_comes_after_the_block_too() -> None:
    told: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    try:
        with uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            assert told == []
        assert told == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
