"""How a long stage tells its caller where it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

# progress(stage, done, total, values): called once before the first unit of work (done = 0) and after each one;
# `values` are the numbers to show beside the bar (loss, similarity).
Progress = Callable[[str, int, int, Mapping[str, float]], None]


def silent(stage: str, done: int, total: int, values: Mapping[str, float]) -> None:
    """The default: say nothing."""
