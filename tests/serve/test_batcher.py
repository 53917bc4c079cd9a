"""Batches: when they begin, what they hold, what is refused, what becomes of requests at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from changed_generators import Chain
from hammering import expected, hammer, latents

from guide_fast.errors import BusyError, UsageError
from guide_fast.serve.batcher import Answer, Batcher
from guide_fast.serve.session import Rendered, Shape, Version, checked
from guide_fast.serve.torch_session import TorchSession


class Slow:
    """A session that waits for `gate`, remembers its batches, fails on truncation -1."""

    shape = Shape("slow", z_dim=2, num_ws=2, w_dim=2, c_dim=3, resolution=4)
    runtime, batch = "test", 8
    version = Version("one")

    def __init__(self) -> None:
        self.gate, self.begun = threading.Event(), threading.Event()
        self.gate.set()
        self.batches: list[list[float]] = []

    def render(self, **given: Any) -> Rendered:
        inputs = checked(self.shape, **given)
        rows = inputs.z if inputs.z is not None else inputs.w[:, 0]
        self.batches.append([float(value) for value in rows[:, 0]])
        self.begun.set()
        self.gate.wait(10)
        if (inputs.truncation == -1).any():
            raise ZeroDivisionError("broken")
        return Rendered(np.broadcast_to(rows[:, :1, None, None], (len(rows), 3, 4, 4)), self.version)

    def hold(self) -> None:
        """From now on a batch stays until `gate` is set."""
        self.gate.clear()
        self.begun.clear()


@pytest.fixture
def session() -> Slow:
    return Slow()


def held(session: Slow, batcher: Batcher) -> Future[Answer]:
    """A request whose batch has begun and does not end."""
    session.hold()
    future = batcher.submit(z=[0, 0])
    assert session.begun.wait(5)
    return future


@pytest.fixture
def batcher(session: Slow) -> Iterator[Batcher]:
    made = Batcher(session, max_batch=3, max_wait=0, queue=4)
    yield made
    session.gate.set()
    made.close()


def test_answer_is_the_requests_own_image(session: Slow, batcher: Batcher) -> None:
    first = held(session, batcher)
    others = [batcher.submit(z=[i, 0]) for i in (1, 2, 3, 4)]
    session.gate.set()
    for value, future in enumerate([first, *others]):
        answer = future.result(5)
        assert (answer.image == value).all() and answer.image.shape == (3, 4, 4)
        assert answer.version == Version("one")
    assert session.batches == [[0], [1, 2, 3], [4]]
    assert [future.result().batch for future in others] == [3, 3, 3, 1]
    assert batcher.requests.value(outcome="served") == 5 and batcher.batches.count == 3


def test_batch_waits_for_others_but_no_longer_than_it_may(session: Slow) -> None:
    patient = Batcher(session, max_batch=4, max_wait=0.3)
    begun = time.monotonic()
    futures = [patient.submit(z=[0, 0])]
    time.sleep(0.05)
    futures.append(patient.submit(z=[1, 0]))
    assert [future.result(5).batch for future in futures] == [2, 2]
    assert 0.25 < time.monotonic() - begun < 2.0
    begun = time.monotonic()
    for future in [patient.submit(z=[i, 0]) for i in range(4)]:
        future.result(5)
    assert time.monotonic() - begun < 0.25  # a full one does not wait
    patient.close()


def test_only_requests_of_a_kind_share_a_batch_and_the_oldest_goes_first(session: Slow, batcher: Batcher) -> None:
    held(session, batcher)
    futures = [
        batcher.submit(w=[1, 0]),
        batcher.submit(z=[2, 0]),
        batcher.submit(z=[3, 0], c=[1, 0, 0]),
        batcher.submit(w=[[4, 0], [0, 0]]),
    ]
    session.gate.set()
    assert [future.result(5).image[0, 0, 0] for future in futures] == [1, 2, 3, 4]
    assert session.batches == [[0], [1, 4], [2], [3]]


def test_one_more_than_may_wait_is_refused_at_once(session: Slow, batcher: Batcher) -> None:
    held(session, batcher)
    waiting = [batcher.submit(z=[i, 0]) for i in range(4)]
    with pytest.raises(BusyError, match="4 requests wait already; try again later"):
        batcher.submit(z=[9, 0])
    assert (batcher.depth, batcher.busy, batcher.requests.value(outcome="refused")) == (4, 1, 1)
    assert waiting[1].cancel()  # gives its place to another
    batcher.submit(z=[5, 0])
    session.gate.set()
    waiting[3].result(5)
    assert 1.0 not in [value for batch in session.batches for value in batch[:1]]
    assert batcher.requests.value(outcome="cancelled") == 1


def test_cancelled_request_is_not_rendered(session: Slow, batcher: Batcher) -> None:
    first = held(session, batcher)
    second, third = batcher.submit(z=[1, 0]), batcher.submit(z=[2, 0])
    assert second.cancel() and not first.cancel()  # one that has begun goes on
    session.gate.set()
    third.result(5)
    assert session.batches == [[0], [2]]
    with pytest.raises(CancelledError):
        second.result(1)


def test_request_whose_time_ran_out_is_not_rendered(session: Slow, batcher: Batcher) -> None:
    held(session, batcher)
    late, other = batcher.submit(z=[1, 0], timeout=0.01), batcher.submit(z=[2, 0], timeout=60)
    time.sleep(0.05)
    session.gate.set()
    other.result(5)
    with pytest.raises(BusyError, match=r"not begun within 0\.01 s"):
        late.result(5)
    assert session.batches == [[0], [2]] and batcher.requests.value(outcome="late") == 1


def test_failed_batch_says_so_to_everybody_in_it_and_the_next_one_is_served(session: Slow, batcher: Batcher) -> None:
    held(session, batcher)
    failing = [batcher.submit(z=[1, 0], truncation=-1), batcher.submit(z=[2, 0])]
    session.gate.set()
    for future in failing:
        with pytest.raises(ZeroDivisionError):
            future.result(5)
    assert batcher.submit(z=[3, 0]).result(5).batch == 1
    assert batcher.requests.value(outcome="failed") == 2


def test_close_renders_what_waits_and_takes_no_more(session: Slow, batcher: Batcher) -> None:
    held(session, batcher)
    waiting = [batcher.submit(z=[i, 0]) for i in range(4)]
    closed: list[bool] = []
    closing = threading.Thread(target=lambda: closed.append(batcher.close()))
    closing.start()
    while not batcher.closing:
        time.sleep(0.001)
    with pytest.raises(BusyError, match="shutting down"):
        batcher.submit(z=[9, 0])
    session.gate.set()
    closing.join(5)
    assert closed == [True] and all(future.done() and not future.exception() for future in waiting)


@pytest.mark.parametrize("options", [{"drain": False}, {"drain": True, "timeout": 0.05}])
def test_close_refuses_what_it_does_not_render(session: Slow, batcher: Batcher, options: dict[str, Any]) -> None:
    first = held(session, batcher)
    waiting = batcher.submit(z=[1, 0])
    closed: list[bool] = []
    closing = threading.Thread(target=lambda: closed.append(batcher.close(**options)))
    closing.start()
    with pytest.raises(BusyError, match="before this request's turn"):
        waiting.result(5)
    session.gate.set()
    closing.join(5)
    assert closed == [False] and first.result(5).batch == 1 and session.batches == [[0]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"z": [1]}, r"z has shape \[1, 1\]"),
        ({"z": "abc"}, "z is no array of numbers"),
        ({"z": [1, 2], "truncation": 9}, "truncation is"),
        ({"z": [1, 2], "timeout": 0}, "timeout = 0 s leaves no time"),
        ({}, "neither of z and w"),
    ],
)
def test_what_does_not_fit_is_refused_before_it_waits(batcher: Batcher, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        batcher.submit(**given)
    assert batcher.depth == 0


@pytest.mark.parametrize(
    "options", [{"max_batch": 0}, {"queue": 0}, {"workers": 0}, {"max_wait": -1}, {"max_wait": 99}]
)
def test_numbers_out_of_range_are_refused(session: Slow, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        Batcher(session, **options)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_answer_is_of_the_version_that_it_names(mobile: Chain, workers: int) -> None:
    session = TorchSession(mobile.generator)
    z = latents(4, 16)
    images = expected(session, mobile.deltas, z)
    batcher = Batcher(session, max_batch=3, max_wait=0.001, workers=workers)

    def render(one: np.ndarray) -> tuple[np.ndarray, str]:
        answer = batcher.submit(z=one[0]).result(30)
        return answer.image, answer.version.weights_sha256

    found = hammer(session, render, mobile.deltas, images, z, threads=6, seconds=1.0)
    assert batcher.close()
    assert found.wrong == [] and len(found.seen) == 3, found
    assert batcher.requests.value(outcome="served") == sum(found.seen.values())


def test_swap_does_not_wait_for_the_queue(mobile: Chain, tmp_path: Path) -> None:
    session = TorchSession(mobile.generator)
    batcher = Batcher(session, max_batch=1)
    futures = [batcher.submit(z=z) for z in latents(40, 16)]
    session.apply(mobile.deltas[0])
    versions = [future.result(30).version.weights_sha256 for future in futures]
    batcher.close()
    assert versions == sorted(versions, key=mobile.hashes.index)  # old ones, then new ones
