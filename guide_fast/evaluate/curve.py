"""The plot of similarity over the steps of forgetting."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from guide_fast.errors import UsageError

Point = Mapping[str, float]  # step, forgotten, retained, loss; the middle two may be missing at some steps


class _Palette(NamedTuple):
    paper: str
    ink: str
    grid: str
    forgotten: str
    retained: str
    band: str


# Contrast of lines to paper is 4.5 or more; the two also differ in dash, for readers who see no difference in hue.
LIGHT = _Palette("#ffffff", "#27272a", "#e4e4e7", "#b42318", "#0b6e4f", "#a1a1aa")
DARK = _Palette("#18181b", "#e4e4e7", "#3f3f46", "#ff8a7a", "#5fd3a5", "#71717a")


def draw_curve(
    curve: Sequence[Point],
    *,
    label: str,
    strangers: tuple[float, float] | None = None,
    final: tuple[float, float] | None = None,
    dark: bool = False,
) -> bytes:
    """A PNG with one line of `forgotten`, one of `retained` over steps.

    `label` names the measure of the curve. `strangers` (mean, standard deviation) is drawn as a band, `final`
    (forgotten, retained at full resolution) as two marks at the last step: both belong to the judge, so leave them out
    when the curve was measured by another network. Raises UsageError when the curve holds no similarity.
    """
    lines = {name: series(curve, name) for name in ("forgotten", "retained")}
    if not any(lines.values()):
        raise UsageError("the curve holds neither 'forgotten' nor 'retained' at any step; there is nothing to plot")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colours = DARK if dark else LIGHT
    figure = Figure(figsize=(6.4, 3.8), dpi=200, facecolor=colours.paper, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor=colours.paper)
    if strangers is not None:
        mean, deviation = strangers
        axes.axhspan(mean - deviation, mean + deviation, color=colours.band, alpha=0.35, linewidth=0)
        axes.axhline(mean, color=colours.band, linewidth=1, label="two strangers, mean ± deviation")
    end = max(step for points in lines.values() for step, _ in points)
    for name, dash, marker, last in zip(lines, ("-", "--"), "os", final or (None, None), strict=True):
        if lines[name]:
            steps, values = zip(*lines[name], strict=True)
            text = {"forgotten": "the person", "retained": "other people"}[name]
            axes.plot(steps, values, dash, color=getattr(colours, name), linewidth=2, label=f"{text} ({name})")
        if last is not None:
            axes.plot(end, last, marker, color=getattr(colours, name), markersize=8, clip_on=False, zorder=5)
    axes.set_ylim(min(0.0, *(value for points in lines.values() for _, value in points)), 1.04)
    axes.set_xlabel("step", color=colours.ink)
    axes.set_ylabel(_wrapped(label), color=colours.ink)
    axes.tick_params(colors=colours.ink)
    axes.grid(color=colours.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_color(colours.grid)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, labelcolor=colours.ink, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=colours.paper)
    return buffer.getvalue()


def series(curve: Sequence[Point], name: str) -> list[tuple[float, float]]:
    """(step, value) of every point that has `name`."""
    return [(point["step"], point[name]) for point in curve if point.get(name) is not None]


def _wrapped(label: str, width: int = 34) -> str:
    return "\n".join(textwrap.wrap(label.replace("$", r"\$"), width))  # a dollar sign would start matplotlib's maths
