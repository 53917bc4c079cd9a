"""Draws panels of horizontal bars, once on light ground, once on dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from guide_fast.bench.figures import number

# Okabe, Ito: told apart by everybody, on both grounds
OURS, OTHER, GOAL = "#E69F00", "#56B4E9", "#D55E00"
THEMES = {  # ending of the file -> ground, ink, faint ink
    "": ("#FFFFFF", "#1A1A1A", "#C8C8C8"),
    ".dark": ("#0D1117", "#E6E6E6", "#3A3F47"),
}
INCHES_PER_BAR, WIDTH = 0.42, 9.0


@dataclass(frozen=True)
class Bar:
    """One contender: the median with p20, p80."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    ours: bool = False
    at_least: bool = False  # a lower bound: an arrow goes on from it
    note: str = ""  # behind the value
    goal: float | None = None  # a line across this bar


@dataclass(frozen=True)
class Panel:
    """Bars on one axis; `goals` are lines across all of them."""

    title: str
    axis: str
    bars: Sequence[Bar]
    goals: Sequence[float] = ()
    logarithmic: bool = False


def draw(panels: Sequence[Panel], title: str, path: Path) -> list[Path]:
    """<path>.png on light ground, <path>.dark.png on dark; nothing without bars."""
    panels = [panel for panel in panels if panel.bars]
    if not panels:
        return []
    path.parent.mkdir(parents=True, exist_ok=True)
    return [_draw(panels, title, path.with_name(f"{path.name}{ending}.png"), *THEMES[ending]) for ending in THEMES]


def _draw(panels: Sequence[Panel], title: str, path: Path, ground: str, ink: str, faint: str) -> Path:
    rows = [len(panel.bars) for panel in panels]
    colours: Any = {
        "figure.facecolor": ground,
        "axes.facecolor": ground,
        "savefig.facecolor": ground,
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.edgecolor": faint,
        "xtick.color": ink,
        "ytick.color": ink,
        "grid.color": faint,
    }
    with plt.rc_context(colours):
        figure, axes = plt.subplots(
            len(panels),
            1,
            figsize=(WIDTH, 0.7 + sum(0.95 + INCHES_PER_BAR * count for count in rows)),
            squeeze=False,
            gridspec_kw={"height_ratios": [count + 0.6 for count in rows]},
            layout="constrained",
        )
        for place, panel in zip(axes[:, 0], panels, strict=True):
            _panel(place, panel, ink)
        figure.suptitle(title, fontsize=10)
        figure.savefig(path, dpi=120)
        plt.close(figure)
    return path


def _panel(axes: Axes, panel: Panel, ink: str) -> None:
    values = [bar.value for bar in panel.bars]
    goals = [*panel.goals, *(bar.goal for bar in panel.bars if bar.goal is not None)]
    highest = max(max(bar.high or bar.value for bar in panel.bars), *goals, 0.0)
    if panel.logarithmic:
        least = min(values)
        axes.set_xscale("log")
        axes.set_xlim(least / 2, highest * 4)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if highest / least < 100 else (1,)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, highest * 1.32 or 1.0)
    for place, bar in enumerate(panel.bars):
        axes.barh(place, bar.value, 0.62, color=OURS if bar.ours else OTHER)
        if bar.low is not None and bar.high is not None and bar.high > bar.low:
            axes.plot([bar.low, bar.high], [place, place], color=ink, linewidth=1.2, solid_capstyle="butt")
        if bar.goal is not None:
            axes.vlines(bar.goal, place - 0.42, place + 0.42, color=GOAL, linewidth=1.4, linestyle="--")
        end = max(bar.value, bar.high or bar.value)
        text = f"at least {number(bar.value)}" if bar.at_least else number(bar.value)
        axes.annotate(
            f"{'▶ ' if bar.at_least else ''}{text}{', ' + bar.note if bar.note else ''}",
            (end, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    for goal in panel.goals:
        axes.axvline(goal, color=GOAL, linewidth=1.2, linestyle="--")
    axes.set_yticks(range(len(values)), [bar.label for bar in panel.bars], fontsize=8)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_xlabel(panel.axis, fontsize=8)
    axes.set_title(panel.title, fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", linewidth=0.4, alpha=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
