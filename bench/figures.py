"""Figures of a result: a spread over repetitions, lower bounds marked as such, all in one envelope."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guide_fast.artifacts import write_bytes
from guide_fast.bench.record import provenance, quantiles
from guide_fast.bench.specification import Specification, verdicts
from guide_fast.errors import UsageError

FORMAT = 1

Figure = dict[
    str, Any
]  # median, mean, p20, p80, min, max, n, values; unit where it has one; censored, stopped_early where it may be


def spread(values: Sequence[float], *, unit: str = "", censored: Sequence[bool] | None = None) -> Figure:
    """The quantiles of `values` with the values; all None where there are none.

    `censored` says which values are lower bounds. A quantile is then one, too, as soon as any value is.
    """
    names = ("median", "mean", "p20", "p80", "min", "max")
    figure: Figure = {**(quantiles(list(values)) if values else dict.fromkeys(names))}
    figure |= {"n": len(values), "values": list(values), "unit": unit}
    if censored is not None:
        figure |= {"censored": any(censored), "censored_values": list(censored)}
    return figure


def envelope(
    specification: Specification,
    figures: Mapping[str, Figure],
    rows: Sequence[Mapping[str, Any]],
    *,
    cuda: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """What every result is: which benchmark, where, what came out, which goals are reached."""
    return {
        "format": FORMAT,
        "benchmark": specification.name,
        "kind": specification.kind,
        "title": specification.title,
        "specification": dict(specification.values),
        "specification_sha256": specification.sha256,
        "provenance": provenance(cuda=cuda),
        "figures": dict(figures),
        "rows": [dict(row) for row in rows],
        "goals": verdicts(specification, figures),
        **more,
    }


def save(result: Mapping[str, Any], path: Path) -> None:
    """Write atomically; raises GuideFastError when the disk refuses."""
    write_bytes(path, (json.dumps(result, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def read(path: Path) -> dict[str, Any]:
    """A stored result; raises UsageError when `path` is none."""
    try:
        result = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; give a result written by `guide-fast bench`") from None
    except ValueError:
        raise UsageError(f"{path} is no JSON file; give a result written by `guide-fast bench`") from None
    if not isinstance(result, dict) or result.get("format") != FORMAT or "figures" not in result:
        raise UsageError(f"{path} is no result of this version's benchmarks; give one written by `guide-fast bench`")
    return result


def said(figure: Figure) -> str:
    """`12.3 s [11.9 to 12.8]`; "at least" before a lower bound."""
    if figure["median"] is None:
        return "not measured"
    unit = f" {figure['unit']}" if figure.get("unit") else ""
    text = f"{number(figure['median'])}{unit}"
    if figure["n"] > 1:
        text += f" [{number(figure['p20'])} to {number(figure['p80'])}]"
    return f"at least {text}" if figure.get("censored") else text


def number(value: float) -> str:
    """Three significant digits, never an exponent between 1e-3 and 1e5."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        digits = max(0, 2 - len(str(int(abs(value)))) + 1) if abs(value) >= 1 else 3
        return f"{value:.{digits}f}"
    return f"{value:.3g}"
