"""Swaps a session's weights under load, with an eye on every image."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guide_fast.bench.open_loop import Offered, offer
from guide_fast.serve.batcher import Answer, Batcher

Array = NDArray[Any]
STEP = 8  # every eighth pixel along both axes is remembered of an image


class Exchanges:
    """A thread that applies a delta, rolls it back, again and again, until it is told to stop."""

    def __init__(self, session: Any, delta: Path, every: float) -> None:
        """`every` seconds between two of them."""
        self.swaps: list[Any] = []
        self.spans: list[tuple[float, float]] = []  # on the clock: asked for, done
        self.failure: Exception | None = None
        self._session, self._delta, self._every = session, delta, every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Exchanges:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """The weights are again those from before."""
        self._stop.set()
        self._thread.join()
        if len(self.swaps) % 2:
            self._session.rollback()
        if self.failure is not None:
            raise self.failure

    def _work(self) -> None:
        try:
            while not self._stop.wait(self._every):
                begun = time.perf_counter()
                applied = len(self.swaps) % 2
                self.swaps.append(self._session.rollback() if applied else self._session.apply(self._delta))
                self.spans.append((begun, time.perf_counter()))
        except Exception as error:
            self.failure = error


def measure(
    session: Any,
    batcher: Batcher,
    z: Array,  # [K, Z], taken in turn
    arrivals: Array,  # [N] seconds
    delta: Path,
    *,
    every: float,
    timeout: float,
) -> dict[str, Any]:
    """Seconds of every exchange, latencies with and without one meanwhile, images that are not of their version."""
    pictures = versions(session, z, delta)

    def sparse(index: int, answer: Answer) -> tuple[str, Array]:
        return answer.version.weights_sha256, answer.image[:, ::STEP, ::STEP].copy()

    with Exchanges(session, delta, every) as exchanges:
        found = offer(batcher, z, arrivals, timeout=timeout, keep=sparse)
    around, apart = split(found, exchanges.spans)
    return {
        "exchange_seconds": [swap.exchange_seconds for swap in exchanges.swaps],
        "prepare_seconds": [swap.prepare_seconds for swap in exchanges.swaps],
        "around": around,
        "apart": apart,
        "versions": sorted({answer[0] for answer in found.answers if answer is not None}),
        "wrong": wrong(found.answers, pictures),
    }


def versions(session: Any, z: Array, delta: Path) -> dict[str, Array]:
    """Sparse images [K, 3, r, r] by version: without the delta, with it."""
    pictures = {}
    for applied in (False, True):
        if applied:
            session.apply(delta)
        made = [session.render(z=one[None]) for one in z]
        pictures[made[0].version.weights_sha256] = np.stack([m.images[0][:, ::STEP, ::STEP] for m in made])
    session.rollback()
    return pictures


def split(found: Offered, spans: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Latencies of the served requests that an exchange fell into, of the others."""
    around: list[float] = []
    apart: list[float] = []
    for arrival, end, latency in zip(found.arrivals, found.finished, found.latencies, strict=True):
        if end is not None:
            first, last = found.started + float(arrival), found.started + end
            met = any(begun < last and first < done for begun, done in spans)
            (around if met else apart).append(latency)
    return around, apart


def wrong(answers: Sequence[tuple[str, Array] | None], pictures: dict[str, Array]) -> int:
    """How many images differ, in any bit that was kept, from that of the version which they claim."""
    count = len(next(iter(pictures.values())))
    return sum(
        answer[0] not in pictures or not np.array_equal(pictures[answer[0]][index % count], answer[1])
        for index, answer in enumerate(answers)
        if answer is not None
    )
