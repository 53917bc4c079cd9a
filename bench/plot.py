"""Draws a results folder: how much faster than the others, how near to the measured roofline.

`python -m guide_fast.bench.plot bench/results/<device>` writes <operation>.png beside the results.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from guide_fast.bench.case import BOTH, FORWARD
from guide_fast.bench.verdict import read

# Okabe, Ito: told apart by everybody
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
OURS_COLOUR = "#333333"
ROW_INCHES, MOST_ROWS = 0.42, 60


def main() -> int:
    """A picture for every operation with measured rows; 1 when there is none."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, help="instead of the folder itself")
    arguments = parser.parse_args()
    drawn = [path for result in read(arguments.folder) if (path := draw(result, arguments.out or arguments.folder))]
    print("\n".join(map(str, drawn)) if drawn else f"{arguments.folder} holds no measured rows: nothing to draw")
    return 0 if drawn else 1


def draw(result: dict[str, Any], folder: Path) -> Path | None:
    """<folder>/<operation>.png, None where nothing was measured."""
    passes = [work for work in (FORWARD, BOTH) if _rows(result, work)]
    if not passes:
        return None
    most = max(len(_rows(result, work)) for work in passes)
    # two columns for each pass: ratios with the names of the shapes, fractions
    figure, axes = plt.subplots(
        1,
        2 * len(passes),
        figsize=(8.0 * len(passes), 1.9 + ROW_INCHES * most),
        squeeze=False,
        gridspec_kw={"width_ratios": (3, 1) * len(passes)},
        layout="constrained",
    )
    for i, work in enumerate(passes):
        rows = _rows(result, work)
        _draw_speedups(axes[0][2 * i], rows, work)
        _draw_roofline(axes[0][2 * i + 1], rows)
        if i:
            axes[0][2 * i].set_yticklabels([])
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle(_title(result), fontsize=10)
    path = folder / f"{result['op']}.png"
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _draw_speedups(axes: Axes, rows: list[dict[str, Any]], work: str) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row["speedup"]))
    height = 0.8 / max(len(names), 1)
    for k, name in enumerate(names):
        at = [i + (k - (len(names) - 1) / 2) * height for i, row in enumerate(rows) if name in row["speedup"]]
        values = [row["speedup"][name] for row in rows if name in row["speedup"]]
        axes.barh(at, values, height, label=f"{name} / ours", color=COLOURS[k % len(COLOURS)])
    axes.axvline(1.0, color=OURS_COLOUR, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [f"{row['case']}\n{row['dtype']}" for row in rows], fontsize=7)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("time of the other / time of ours", fontsize=8)
    axes.set_title(work, fontsize=9)
    _tidy(axes)


def _draw_roofline(axes: Axes, rows: list[dict[str, Any]]) -> None:
    fractions = [row["contenders"]["ours"].get("roofline", 0.0) for row in rows]
    axes.barh(range(len(rows)), fractions, 0.6, color=OURS_COLOUR)
    for i, (row, fraction) in enumerate(zip(rows, fractions, strict=True)):
        axes.text(fraction + 0.02, i, row["contenders"]["ours"].get("bound", ""), va="center", fontsize=6)
    axes.set_yticks([])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, max(1.0, *fractions) * 1.15)
    axes.set_xlabel("ours / roofline", fontsize=8)
    axes.set_title("fraction of the roofline", fontsize=9)
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", linewidth=0.4, alpha=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=7)


def _rows(result: dict[str, Any], work: str) -> list[dict[str, Any]]:
    rows = [row for row in result["rows"] if row.get("pass") == work and row.get("speedup")]
    return rows[:MOST_ROWS]


def _title(result: dict[str, Any]) -> str:
    provenance = result["provenance"]
    where = provenance.get("cuda", {}).get("device", provenance["processor"])
    cut = "" if len(result["rows"]) <= 2 * MOST_ROWS else f", the first {MOST_ROWS} shapes"
    return f"{result['op']} on {where}, commit {provenance['commit']}, torch {provenance['torch']}{cut}"


if __name__ == "__main__":
    sys.exit(main())
