"""Offers requests to a batcher at the times of a Poisson process, whether or not it keeps up.

A request's latency runs from the time at which it should have come, so that a server that falls behind is not
spared the waiting of those behind it. One that was refused, or never served, has no latency: it counts as later than
any.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from guide_fast.errors import BusyError

Array = NDArray[Any]
PERCENTILES = (50, 95, 99)


class Queue(Protocol):
    """What takes requests: a `serve.Batcher`."""

    def submit(self, *, z: Array, timeout: float) -> Future[Any]:
        """The image to come; raises BusyError when there is no place."""
        ...


@dataclass
class Offered:
    """What became of the requests, in the order of arrival."""

    arrivals: Array  # [N] seconds after the start
    finished: list[float | None] = field(default_factory=list)  # seconds after the start; None: not served
    started: float = 0.0  # on the clock
    answers: list[Any] = field(default_factory=list)  # what `keep` made of each answer

    @property
    def latencies(self) -> list[float]:
        """[N] seconds; infinite where nothing was served."""
        return [
            math.inf if end is None else end - float(arrival)
            for arrival, end in zip(self.arrivals, self.finished, strict=True)
        ]

    @property
    def served(self) -> int:
        """How many got their image."""
        return sum(end is not None for end in self.finished)


def poisson(rate: float, seconds: float, seed: int) -> Array:
    """Arrivals [N] within `seconds`, `rate` a second on average, at least one; the same for the same seed."""
    random = np.random.default_rng(seed)
    gaps = random.exponential(1 / rate, size=math.ceil(2 * rate * seconds + 20))
    times = np.cumsum(gaps)
    return times[: max(1, int(np.searchsorted(times, seconds)))]


def offer(
    queue: Queue,
    z: Array,  # [K, Z], taken in turn
    arrivals: Array,  # [N] seconds
    *,
    timeout: float,  # seconds after which a request is given up, where it was not begun
    keep: Callable[[int, Any], Any] | None = None,  # (index, answer) -> what to remember
    now: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Offered:
    """Submit at `arrivals`, wait for all that was taken. Errors other than BusyError pass through."""
    count = len(arrivals)
    found = Offered(arrivals, [None] * count, now(), [None] * count)
    futures: list[Future[Any] | None] = []

    def finish(index: int, future: Future[Any]) -> None:
        if not future.cancelled() and future.exception() is None:
            found.finished[index] = now() - found.started
            if keep is not None:
                found.answers[index] = keep(index, future.result())

    for index, arrival in enumerate(arrivals):
        if (wait := float(arrival) - (now() - found.started)) > 0:
            sleep(wait)
        try:
            future = queue.submit(z=z[index % len(z)], timeout=timeout)
        except BusyError:
            futures.append(None)
            continue
        future.add_done_callback(partial(finish, index))
        futures.append(future)
    for waiting in futures:
        if waiting is not None and not isinstance(error := waiting.exception(), BusyError | None):
            raise error
    return found


def percentiles(latencies: Sequence[float]) -> dict[str, float | None]:
    """p50, p95, p99 in seconds, of all that was offered; None where that many were not served.

    The smallest latency that so many percent do not exceed: an observed one, never a mean with infinity.
    """
    ordered = sorted(latencies)
    found: dict[str, float | None] = {}
    for percent in PERCENTILES:
        value = ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]
        found[f"p{percent}"] = value if math.isfinite(value) else None
    return found


def closed_loop(queue: Queue, z: Array, *, seconds: float, waiting: int) -> float:
    """Images a second with `waiting` requests always there, over at least `seconds`."""
    futures = [queue.submit(z=z[i % len(z)], timeout=1e6) for i in range(waiting)]
    futures.pop(0).result()  # the clock starts with a batch under way
    started, done, sent = time.perf_counter(), 0, waiting
    while True:
        futures.append(queue.submit(z=z[sent % len(z)], timeout=1e6))
        sent += 1
        futures.pop(0).result()
        done += 1
        taken = time.perf_counter() - started
        if taken >= seconds:
            break
    for future in futures:
        future.result()
    return done / taken
