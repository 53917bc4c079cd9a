"""Writes a result where it was asked for: JSON, a Markdown table, pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from guide_fast.artifacts import write_bytes
from guide_fast.bench import figures
from guide_fast.bench.charts import Bar, Panel, draw
from guide_fast.bench.figures import Figure, number, said


def write(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """<folder>/<benchmark>.json, .md, .png, .dark.png; raises GuideFastError when the disk refuses."""
    name = result["benchmark"]
    stored, table = folder / f"{name}.json", folder / f"{name}.md"
    figures.save(result, stored)
    pictures = draw(PANELS[result["kind"]](result), f"{result['title']}\n{where(result)}", folder / name)
    write_bytes(table, ("\n".join(markdown(result)) + "\n").encode())
    return [stored, table, *pictures]


def check_writable(folder: Path) -> None:
    """Raises GuideFastError before minutes are spent on a result that cannot be stored."""
    probe = folder / ".writable"
    write_bytes(probe, b"")
    probe.unlink()


def where(result: Mapping[str, Any]) -> str:
    """Device, commit, versions in one line."""
    provenance = result["provenance"]
    device = provenance.get("cuda", {}).get("device")
    threads = "1 thread" if provenance["threads"] == 1 else f"{provenance['threads']} threads"
    device = device or f"{threads} of {provenance['processor']} ({provenance['cpu_capability']})"
    changed = " with uncommitted changes" if provenance["uncommitted_changes"] else ""
    return f"{device}, commit {provenance['commit']}{changed}, torch {provenance['torch']}"


def markdown(result: Mapping[str, Any]) -> Iterator[str]:
    """A heading, the figures, the goals."""
    yield f"# {result['title']}"
    yield ""
    yield f"`guide-fast bench {result['kind']}` ({result['benchmark']}), {where(result)}."
    known = {name: value for name, value in result["provenance"]["clocks"].items() if value is not None}
    yield f"As found: {', '.join(f'{name} {value}' for name, value in known.items())}."
    yield ""
    yield "| figure | median [p20 to p80] | n |"
    yield "|---|---|---|"
    for name, figure in result["figures"].items():
        if figure["median"] is not None:
            where_it_ended = ", where it was stopped" if figure.get("stopped_early") else ""
            yield f"| {name}{where_it_ended} | {said(figure)} | {figure['n']} |"
    if result["goals"]:
        yield ""
        yield "| goal | measured | reached |"
        yield "|---|---|---|"
        for goal in result["goals"]:
            yield f"| {goal['goal']} | {_measured(goal)} | {REACHED[goal['reached']]} |"


def goal_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """A line per goal."""
    for goal in result["goals"]:
        yield f"goal, {REACHED[goal['reached']]}: {goal['goal']}: {_measured(goal)}"


REACHED = {True: "reached", False: "NOT reached", None: "open"}


def _measured(goal: Mapping[str, Any]) -> str:
    if goal["value"] is None:
        return "not measured"
    text = ("at least " if goal.get("censored") else "") + number(goal["value"])
    return f"{text} against {number(goal['bound'])}"


def _bar(label: str, figure: Figure, *, ours: bool = False, note: str = "") -> Bar:
    censored = bool(figure.get("censored"))
    return Bar(label, figure["median"], figure["p20"], figure["p80"], ours=ours, at_least=censored, note=note)


def _forget_panels(result: Mapping[str, Any]) -> list[Panel]:
    made = result["figures"]
    baselines = [name for name in result["specification"]["race"] if made[f"ratio_{name}"]["n"]]
    bounds = {goal["figure"]: goal["bound"] for goal in result["goals"]}
    ratios = [replace(_bar(name, made[f"ratio_{name}"]), goal=bounds.get(f"ratio_{name}")) for name in baselines]
    seconds = [
        _bar("ours, a first person", made["seconds_per_person"], ours=True),
        _bar("ours, the next one", made["seconds_next_person"], ours=True),
        *(_bar(name, made[f"seconds_{name}"]) for name in baselines),
    ]
    quality = [
        _bar("ours", made["forgotten"], ours=True),
        *(_bar(f"{name}, where it ended", made[f"forgotten_{name}"]) for name in baselines),
    ]
    strangers = [made["stranger_mean"]["median"]]
    return [
        Panel("time over ours until as good as ours; dashed: asked for", "times as long", ratios),
        Panel("seconds for one person", "s", seconds),
        Panel(
            "similarity of the person before to after, by the judge; dashed: two strangers", "less is better", quality,
            strangers,
        ),
    ]  # fmt: skip


def _step_panels(result: Mapping[str, Any]) -> list[Panel]:
    rows = [row for row in result["rows"] if row["gate"] == "passed"]
    bars = []
    for row in rows:
        note = f"{number(row['times_before'])}x" if row.get("times_before") else ""
        ours = row["contender"] == "ours"
        spread = row["seconds"]
        bars.append(Bar(row["name"], spread["median"], spread["p20"], spread["p80"], ours=ours, note=note))
    return [Panel("one step, each row with what stands above it", "s, logarithmic", bars, logarithmic=True)]


def _contender_panels(result: Mapping[str, Any]) -> list[Panel]:
    """A panel for each mode: figures are called "<mode>: <contender>"."""
    modes: dict[str, list[Bar]] = {}
    for name, figure in result["figures"].items():
        mode, _, contender = name.partition(": ")
        if contender and figure["median"] is not None and figure["unit"] in ("s", "ms"):
            modes.setdefault(mode, []).append(_bar(contender, figure, ours=contender.startswith("ours")))
    units = {name.partition(": ")[0]: figure["unit"] for name, figure in result["figures"].items()}
    return [Panel(mode, units[mode], bars) for mode, bars in modes.items()]


def _ops_panels(result: Mapping[str, Any]) -> list[Panel]:
    """A panel for each pass: how many times as long the others take."""
    passes: dict[str, list[Bar]] = {}
    for row in result["rows"]:
        for name, ratio in row.get("speedup", {}).items():
            label = f"{row['op']}: {row['case']}, {row['dtype']}\n{name}"
            ours = row["contenders"]["ours"]["device_ms"]["median"]
            passes.setdefault(row["pass"], []).append(Bar(label, ratio, note=f"ours {number(ours)} ms"))
    return [
        Panel(f"{name}: time over ours; dashed: as long", "times as long, logarithmic", bars, (1.0,), logarithmic=True)
        for name, bars in passes.items()
    ]


def _serve_panels(result: Mapping[str, Any]) -> list[Panel]:
    """Images a second, p95 at every load, latencies around exchanges of weights."""
    made, ours = result["figures"], result["specification"]["ours"]
    limit = result["specification"]["timeout"] * 1e3
    capacity = [
        _bar(name.partition(": ")[2], figure, ours=name.partition(": ")[2].startswith(ours))
        for name, figure in made.items()
        if name.startswith("images a second: ")
    ]
    loads: dict[float, list[Bar]] = {}
    for row in result["rows"]:
        if "load" in row:
            values = {p: None if row[p] is None else row[p] * 1e3 for p in ("p50", "p95", "p99")}
            others = ", ".join(f"{p} {number(v)}" for p, v in values.items() if v is not None and p != "p95")
            share = row["served"] / row["offered"]
            note = others if share == 1 else f"{share:.0%} served{', ' if others else ''}{others}"
            value, mine = values["p95"], row["contender"].startswith(ours)
            bar = Bar(row["contender"], value or limit, ours=mine, at_least=value is None, note=note)
            loads.setdefault(row["offered_per_second"], []).append(bar)
    panels = [Panel("images a second, always something waiting", "1/s", capacity)]
    panels += [
        Panel(f"p95 of the latency, {number(rate)} images a second offered", "ms, logarithmic", bars, logarithmic=True)
        for rate, bars in loads.items()
    ]
    around = [
        _bar(name, figure, ours=name.endswith(f": {ours}"))
        for name, figure in made.items()
        if name.startswith(("latency around", "latency without")) and figure["n"]
    ]
    return [*panels, Panel("while weights are exchanged", "ms", around)]


PANELS = {
    "serve": _serve_panels,
    "forget": _forget_panels,
    "step": _step_panels,
    "generator": _contender_panels,
    "ops": _ops_panels,
}
