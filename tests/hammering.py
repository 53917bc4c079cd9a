"""Threads that render while another exchanges weights; every image is held against the one of the version it claims."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Render = Callable[[np.ndarray], tuple[np.ndarray, str]]  # z [1, Z] -> image [3, R, R], sha256 of the claimed weights


@dataclass
class Found:
    """What the threads saw."""

    seen: Counter[str] = field(default_factory=Counter)  # images by claimed weights
    wrong: list[str] = field(default_factory=list)
    swaps: list[Any] = field(default_factory=list)


def latents(count: int, dimension: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, dimension), dtype=np.float32)


def expected(session: Any, deltas: Sequence[Path], z: np.ndarray) -> dict[str, np.ndarray]:
    """Images [N, 3, R, R] by the sha256 of the weights: before `deltas`, after each; the session ends as it began."""
    images = {}
    for step in range(len(deltas) + 1):
        if step:
            session.apply(deltas[step - 1])
        made = session.render(z=z)
        images[made.version.weights_sha256] = made.images
    for _ in deltas:
        session.rollback()
    return images


def hammer(
    session: Any,
    render: Render,
    deltas: Sequence[Path],
    images: Mapping[str, np.ndarray],
    z: np.ndarray,
    *,
    threads: int = 4,
    seconds: float = 2.0,
    least_swaps: int = 8,
) -> Found:
    """Render in `threads` while deltas go up and down; ends after both `seconds` and `least_swaps`."""
    found, stop, lock = Found(), threading.Event(), threading.Lock()

    def judge(index: int, image: np.ndarray, claimed: str) -> None:
        same = [sha for sha, made in images.items() if np.array_equal(made[index], image)]
        with lock:
            found.seen[claimed] += 1
            if same != [claimed]:
                found.wrong.append(f"image {index} claims {claimed[:8]}, equals {[sha[:8] for sha in same]}")

    def work(first: int) -> None:
        index = first
        while not stop.is_set():
            index = (index + 1) % len(z)
            try:
                judge(index, *render(z[index : index + 1]))
            except Exception as error:
                with lock:
                    found.wrong.append(f"{type(error).__name__}: {error}")
                return

    workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    for worker in workers:
        worker.start()
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end or len(found.swaps) < least_swaps:
            for delta in deltas:
                found.swaps.append(session.apply(delta))
                time.sleep(0.002)
            for _ in deltas:
                found.swaps.append(session.rollback())
                time.sleep(0.002)
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    return found
