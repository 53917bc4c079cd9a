"""Prints a results folder: what was measured, the goals as reached or not."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NOT_RESULTS = ("summary.json",)


def print_results(folder: Path, *, since: float = 0.0) -> None:
    """Every operation's table, then the goals; of results stored from `since` on."""
    results = list(read(folder, since=since))
    for result in results:
        print("\n".join(table(result)))
    print("\n".join(goals(results)))


def read(folder: Path, *, since: float = 0.0) -> Iterator[dict[str, Any]]:
    """The operations' results that were stored at `since` (as time.time() counts) or later."""
    for file in sorted(folder.glob("*.json")):
        if file.name not in NOT_RESULTS and file.stat().st_mtime >= since:
            content = json.loads(file.read_text(encoding="utf-8"))
            if "rows" in content and "goals" in content:
                yield content


def table(result: dict[str, Any]) -> Iterator[str]:
    """A line per measured row; what was left out, why."""
    yield f"{result['op']}: {len(result['rows'])} rows" + ("" if result["measured"] else ", nothing measured")
    for row in result["rows"]:
        if row["gate"] != "passed":
            yield f"  {row['case']}: {row['gate']}"
        elif "speedup" in row:
            ours = row["contenders"]["ours"]
            ratios = ", ".join(f"{value:.2f}x {name}" for name, value in row["speedup"].items())
            fraction = f"{ours['roofline']:.0%} of the roofline, " if "roofline" in ours else ""
            yield f"  {row['case']}, {row['pass']}: {ours['device_ms']['median']:.4f} ms, {fraction}{ratios}"
    if result["left_out"]:
        yield f"  left out for want of time: {'; '.join(result['left_out'])}"


def goals(results: list[dict[str, Any]]) -> Iterator[str]:
    """A line per goal."""
    for result in results:
        for goal in result["goals"]:
            if goal["reached"] is None:
                yield f"goal, not measured: {result['op']}: {goal['goal']}"
            else:
                state = "reached" if goal["reached"] else "NOT reached"
                yield f"goal, {state}: {result['op']}: {goal['goal']}: {goal['figure']:.3g}"


if __name__ == "__main__":
    print_results(Path(sys.argv[1]))
