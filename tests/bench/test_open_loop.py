"""Loads that do not wait for the server: arrivals, latencies from them, what was not served."""

from __future__ import annotations

import math
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from guide_fast.bench.open_loop import closed_loop, offer, percentiles, poisson
from guide_fast.errors import BusyError

Z = np.zeros((2, 4), np.float32)


def test_arrivals_are_a_poisson_process_of_that_rate() -> None:
    arrivals = poisson(50.0, 40.0, seed=1)
    gaps = np.diff(arrivals)
    assert len(arrivals) == pytest.approx(2000, rel=0.1) and arrivals[-1] < 40
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1)  # as exponential ones have
    assert np.array_equal(arrivals, poisson(50.0, 40.0, seed=1)) and len(poisson(0.001, 1.0, seed=0)) == 1


class Clock:
    """Time that passes only while somebody sleeps, or works."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class Slow:
    """Answers each request before it returns, `takes` seconds after; refuses every third."""

    def __init__(self, clock: Clock, takes: float, refuses: bool = False) -> None:
        self.clock, self.takes, self.refuses, self.asked = clock, takes, refuses, []

    def submit(self, *, z: Any, timeout: float) -> Future[Any]:
        self.asked.append((float(z[0]), timeout))
        if self.refuses and len(self.asked) % 3 == 0:
            raise BusyError("full")
        self.clock.time += self.takes
        future: Future[Any] = Future()
        future.set_result(f"image {len(self.asked)}")
        return future


def test_latency_runs_from_the_arrival_that_was_due() -> None:
    clock = Clock()
    arrivals = np.array([1.0, 1.5, 2.0, 10.0])
    z = np.arange(3, dtype=np.float32)[:, None]
    queue = Slow(clock, 1.0)
    found = offer(queue, z, arrivals, timeout=9, keep=lambda i, answer: (i, answer), now=clock.now, sleep=clock.sleep)
    assert found.latencies == pytest.approx([1.0, 1.5, 2.0, 1.0])  # those behind a slow one wait for it
    assert queue.asked == [(0, 9), (1, 9), (2, 9), (0, 9)] and found.served == 4
    assert found.answers[3] == (3, "image 4")


def test_refused_request_is_later_than_any() -> None:
    clock = Clock()
    found = offer(Slow(clock, 0.1, refuses=True), Z, np.arange(6.0), timeout=1, now=clock.now, sleep=clock.sleep)
    assert [math.isinf(value) for value in found.latencies] == [False, False, True] * 2 and found.served == 4


def test_failure_that_is_no_refusal_passes_through() -> None:
    class Broken:
        def submit(self, *, z: Any, timeout: float) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_exception(ZeroDivisionError("broken"))
            return future

    with pytest.raises(ZeroDivisionError):
        offer(Broken(), Z, np.array([0.0]), timeout=1)


def test_percentiles_are_observed_values_and_none_where_nothing_was_served() -> None:
    values = [float(i) for i in range(1, 101)]
    assert percentiles(values) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}
    assert percentiles([*values[:96], *[math.inf] * 4]) == {"p50": 50.0, "p95": 95.0, "p99": None}
    assert percentiles([2.0]) == {"p50": 2.0, "p95": 2.0, "p99": 2.0}
    assert percentiles([math.inf]) == {"p50": None, "p95": None, "p99": None}


def test_closed_loop_keeps_so_many_waiting() -> None:
    lock, at_once, most = threading.Lock(), [0], [0]

    def work() -> None:
        with lock:
            at_once[0] -= 1

    class Pool:
        def __init__(self) -> None:
            self.pool = ThreadPoolExecutor(1)

        def submit(self, *, z: Any, timeout: float) -> Future[Any]:
            with lock:
                at_once[0] += 1
                most[0] = max(most[0], at_once[0])
            return self.pool.submit(work)

    assert closed_loop(Pool(), Z, seconds=0.05, waiting=3) > 0
    assert at_once == [0] and 1 <= most[0] <= 3
