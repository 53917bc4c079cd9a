"""Figures of `bench forget` from its rows, the words for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from guide_fast.bench.figures import Figure, said, spread

OURS = {  # figure -> of ours, unit
    "seconds_per_person": ("seconds_first", "s"),
    "seconds_next_person": ("seconds_next", "s"),
    "forgotten": ("forgotten", ""),
    "stranger_mean": ("stranger_mean", ""),
    "stranger_std": ("stranger_std", ""),
    "retained": ("retained", ""),
    "retained_p05": ("retained_p05", ""),
    "fd_pre": ("fd_pre", ""),
}
QUALITY = ("forgotten", "retained", "fd_pre")  # of a baseline where it ended


def person_figures(rows: Sequence[Mapping[str, Any]], baselines: Sequence[str]) -> dict[str, Figure]:
    """Spreads over people; ratios, baselines only over those whose evidence held (the gate)."""
    made = {name: spread([row["ours"][key] for row in rows], unit=unit) for name, (key, unit) in OURS.items()}
    shares = [row["ours"]["seconds_next"] / row["ours"]["seconds_first"] for row in rows]
    made["share_next_person"] = spread(shares)
    passed = [row for row in rows if row["gate"] == "passed"]
    for name in baselines:
        theirs = [row["baselines"][name] for row in passed]
        censored = [their["censored"] for their in theirs]
        made[f"ratio_{name}"] = spread([their["ratio"] for their in theirs], censored=censored)
        made[f"ratio_first_{name}"] = spread([their["ratio_first"] for their in theirs], censored=censored)
        made[f"seconds_{name}"] = spread([their["seconds"] for their in theirs], unit="s", censored=censored)
        for key in QUALITY:
            made[f"{key}_{name}"] = spread([their[key] for their in theirs]) | {"stopped_early": any(censored)}
        made[f"step_seconds_{name}"] = spread([s for their in theirs for s in their["step_seconds"]], unit="s")
    return made


def words(result: Mapping[str, Any]) -> Iterator[str]:
    """The result for a reader of a terminal."""
    figures, rows = result["figures"], result["rows"]
    people = "person" if len(rows) == 1 else "people"
    yield f"{len(rows)} {people}, {result['provenance']['threads']} threads of {result['provenance']['processor']}"
    for row in rows:
        if row["gate"] != "passed":
            yield f"seed {row['seed']}: no speed, for its evidence falls short: {row['gate']}"
    first, following = said(figures["seconds_per_person"]), said(figures["seconds_next_person"])
    yield f"a first person takes {first}, a next one {following}"
    yield f"forgotten {said(figures['forgotten'])}, strangers {said(figures['stranger_mean'])}"
    yield f"retained {said(figures['retained'])}, fd_pre {said(figures['fd_pre'])}"
    for name in result["specification"]["race"]:
        ratio = figures[f"ratio_{name}"]
        if not ratio["n"]:
            continue
        yield f"{name} takes {said(ratio)} times as long"
        cut = sum(ratio["censored_values"])
        if cut:
            yield (
                f"  {cut} of {ratio['n']} were stopped before they were as good as ours; where they stood: "
                + ", ".join(f"{key} {said(figures[f'{key}_{name}'])}" for key in QUALITY)
            )
