"""Compares measured rows with what the project set out to reach."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
Judge = Callable[[list[Row]], float | None]  # the figure, None when nothing was measured


@dataclass(frozen=True)
class Goal:
    """A bound on a figure of the rows."""

    text: str
    bound: float
    figure: Judge
    at_most: bool = False

    def verdict(self, rows: list[Row]) -> dict[str, Any]:
        """The goal with the figure, whether it is reached: None when nothing was measured."""
        figure = self.figure(rows)
        reached = None if figure is None else figure <= self.bound if self.at_most else figure >= self.bound
        return {"goal": self.text, "bound": self.bound, "figure": figure, "reached": reached}


def average_speedup(work: str, baseline: str) -> Judge:
    """Geometric mean over the rows of `work` of the baseline's time over ours."""

    def figure(rows: list[Row]) -> float | None:
        return _geometric_mean(row["speedup"][baseline] for row in _of(rows, work) if baseline in row["speedup"])

    return figure


def worst_against_best(work: str) -> Judge:
    """The least, over the rows of `work`, of the fastest other contender's time over ours."""

    def figure(rows: list[Row]) -> float | None:
        ratios = [
            min(others)
            for row in _of(rows, work)
            if (others := [value for name, value in row["speedup"].items() if not name.startswith("ours")])
        ]
        return min(ratios, default=None)

    return figure


def memory_ratio(work: str, baseline: str) -> Judge:
    """The greatest, over the rows of `work`, of our peak memory over the baseline's."""

    def figure(rows: list[Row]) -> float | None:
        ratios = [
            row["contenders"]["ours"]["peak_bytes"] / row["contenders"][baseline]["peak_bytes"]
            for row in _of(rows, work)
            if baseline in row["contenders"]
        ]
        return max(ratios, default=None)

    return figure


def _of(rows: list[Row], work: str) -> list[Row]:
    return [row for row in rows if row.get("pass") == work and "speedup" in row]


def _geometric_mean(values: Iterable[float]) -> float | None:
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else None
