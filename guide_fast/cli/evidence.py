"""Metrics in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def sentences(metrics: Mapping[str, Any]) -> list[str]:
    """What the measurements say to somebody who knows none of their names; what was not measured is left out."""
    said = []
    if _known(metrics, "forgotten"):
        text = f"The person now resembles their former self by {metrics['forgotten']:.2f}"
        if _known(metrics, "stranger_mean", "stranger_std"):
            text += f"; two strangers do by {metrics['stranger_mean']:.2f} +- {metrics['stranger_std']:.2f}"
        said.append(f"{text}.")
    if _known(metrics, "retained"):
        text = f"Everybody else resembles their former self by {metrics['retained']:.3f}"
        if _known(metrics, "retained_p05"):
            text += f" on average, by {metrics['retained_p05']:.3f} or more in 19 cases of 20"
        said.append(f"{text}.")
    if _known(metrics, "fd_pre"):
        said.append(f"All images together moved by {metrics['fd_pre']:.3g} (FD-EffNetLite0).")
    if _known(metrics, "steps", "seconds"):
        said.append(f"It took {metrics['steps']} steps in {metrics['seconds']:.0f} s.")
    return said


def _known(metrics: Mapping[str, Any], *names: str) -> bool:
    return all(isinstance(metrics.get(name), int | float) for name in names)
