"""Holds two stored results of one benchmark against each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guide_fast.bench.figures import Figure, number, read, said
from guide_fast.bench.report import where
from guide_fast.errors import UsageError


def compare(first: Path, second: Path) -> dict[str, Any]:
    """Figures that both have, the second's median over the first's; raises UsageError for different benchmarks."""
    a, b = read(first), read(second)
    for what in ("benchmark", "kind"):
        if a[what] != b[what]:
            raise UsageError(
                f"{first} is of benchmark {a['benchmark']}, {second} of {b['benchmark']}; compare two of one benchmark"
            )
    figures = {name: _row(a["figures"][name], b["figures"][name]) for name in a["figures"] if name in b["figures"]}
    return {
        "benchmark": a["benchmark"],
        "a": _described(first, a),
        "b": _described(second, b),
        "settings_differ": _differences(a["specification"], b["specification"]),
        "figures": {name: row for name, row in figures.items() if row is not None},
    }


def lines(compared: Mapping[str, Any]) -> list[str]:
    """A table for a terminal."""
    found = [f"{side}: {compared[side]['where']} ({compared[side]['path']})" for side in ("a", "b")]
    if compared["a"]["where"].split(", commit")[0] != compared["b"]["where"].split(", commit")[0]:
        found.append("note: these are different machines; ratios of seconds say little about the commits")
    if compared["settings_differ"]:
        found.append(f"note: settings differ: {'; '.join(compared['settings_differ'])}")
    rows = [("figure", "a", "b", "b / a")]
    rows += [
        (name, said(row["a"]), said(row["b"]), "-" if row["ratio"] is None else _ratio(row))
        for name, row in compared["figures"].items()
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return found + ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]


def _ratio(row: Mapping[str, Any]) -> str:
    """Of two lower bounds, nothing is known; of one, a bound."""
    a, b = bool(row["a"].get("censored")), bool(row["b"].get("censored"))
    if a and b:
        return "unknown: both are lower bounds"
    bound = "at most " if a else "at least " if b else ""
    return f"{bound}{number(row['ratio'])}"


def _row(a: Figure, b: Figure) -> dict[str, Any] | None:
    if a["median"] is None or b["median"] is None:
        return None
    return {"a": a, "b": b, "ratio": b["median"] / a["median"] if a["median"] else None}


def _described(path: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    return {"path": str(path), "where": where(result), "provenance": result["provenance"]}


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    return [f"{name} is {a.get(name)!r} and {b.get(name)!r}" for name in sorted({*a, *b}) if a.get(name) != b.get(name)]
