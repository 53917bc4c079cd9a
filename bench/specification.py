"""Benchmarks as data: what bench/benchmarks/<name>.toml says, checked."""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guide_fast.errors import UsageError

FOLDER = Path(__file__).parent / "benchmarks"
KINDS = ("forget", "generator", "ops", "serve", "step")  # the commands


@dataclass(frozen=True)
class Specification:
    """One benchmark: shapes, seeds, repetitions, goals; no code."""

    name: str
    kind: str
    title: str
    values: Mapping[str, Any]
    goals: tuple[Mapping[str, Any], ...] = ()

    @property
    def sha256(self) -> str:
        """Of all that decides what is measured; goals do not."""
        return hashlib.sha256(json.dumps([self.name, self.kind, self.values], sort_keys=True).encode()).hexdigest()

    def changed(self, **values: Any) -> Specification:
        """With some values replaced; None leaves one alone. Raises UsageError for a key that the file lacks."""
        given = {key: value for key, value in values.items() if value is not None}
        for key in given.keys() - self.values.keys():
            raise UsageError(f"benchmark {self.name} has no {key}; it has {', '.join(sorted(self.values))}")
        return Specification(self.name, self.kind, self.title, {**self.values, **given}, self.goals)


def names(kind: str | None = None, folder: Path = FOLDER) -> list[str]:
    """The benchmarks of a kind, or all."""
    found = sorted(path.stem for path in folder.glob("*.toml"))
    return [name for name in found if kind is None or load(name, folder=folder).kind == kind]


def load(name: str, *, quick: bool = False, folder: Path = FOLDER) -> Specification:
    """The benchmark `name`; `quick` takes the values of its [quick] table instead.

    Raises UsageError for an unknown name, a file that is no benchmark.
    """
    path = folder / f"{name}.toml"
    if not path.is_file():
        known = names(folder=folder)
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)
        raise UsageError(
            f"benchmark {name!r} is unknown; the nearest is {nearest[0]}, all are {', '.join(known)}"
            if nearest
            else f"benchmark {name!r} is unknown: {folder} holds none"
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}; correct that line") from None
    kind, title = content.pop("kind", None), content.pop("title", "")
    if kind not in KINDS:
        raise UsageError(f"{path} has kind = {kind!r}; choose one of {', '.join(KINDS)}")
    goals, shorter = tuple(content.pop("goal", ())), content.pop("quick", {})
    for goal in goals:
        _check_goal(goal, path)
    specification = Specification(name, kind, title, content, goals)
    return specification.changed(**shorter) if quick else specification


def _check_goal(goal: Mapping[str, Any], path: Path) -> None:
    bounds = goal.keys() & {"at_least", "at_most", "at_most_figure"}
    if not {"text", "figure"} <= goal.keys() or len(bounds) != 1:
        raise UsageError(
            f"{path}: a [[goal]] has text, figure, and one of at_least, at_most, at_most_figure; this one has "
            f"{', '.join(goal)}"
        )


def verdicts(specification: Specification, figures: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each goal with its figure's median, whether that is reached: None where it was not measured or cannot be told.

    A censored figure is a lower bound: it reaches `at_least`, or leaves it open. Where the other figure of
    `at_most_figure` is `stopped_early`, it belongs to a contender that did not come as far: being no worse than it then
    is enough, being worse leaves the goal open.
    """
    return [_verdict(goal, figures) for goal in specification.goals]


def _verdict(goal: Mapping[str, Any], figures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    figure = figures.get(goal["figure"])
    said: dict[str, Any] = {"goal": goal["text"], "figure": goal["figure"], "value": None, "reached": None}
    bound = goal.get("at_least", goal.get("at_most"))
    other = figures.get(goal["at_most_figure"]) if "at_most_figure" in goal else None
    if "at_most_figure" in goal:
        bound = None if other is None else other["median"]
    said["bound"] = bound
    if figure is None or bound is None or figure["median"] is None:
        return said
    value, censored = figure["median"], bool(figure.get("censored"))
    held = value >= bound if "at_least" in goal else value <= bound
    open_ = not held and ((censored and "at_least" in goal) or (other is not None and bool(other.get("stopped_early"))))
    return said | {"value": value, "censored": censored, "reached": None if open_ else held}
