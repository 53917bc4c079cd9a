"""Benchmarks are data: what is in their files, what is refused, how goals are judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from guide_fast.bench import specification
from guide_fast.bench.figures import said, spread
from guide_fast.bench.specification import KINDS, Specification, load, names, verdicts
from guide_fast.errors import UsageError


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("quick", [False, True])
def test_every_file_loads(name: str, quick: bool) -> None:
    loaded = load(name, quick=quick)
    assert loaded.kind in KINDS and loaded.title
    assert quick == (loaded.sha256 != load(name).sha256)


def test_every_command_has_a_benchmark() -> None:
    assert {load(name).kind for name in names()} == set(KINDS)


def test_unknown_benchmark_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="benchmark 'forgot' is unknown; the nearest is forget"):
        load("forgot")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("kind = ", "is not valid TOML"),
        ('kind = "race"\n', "kind = 'race'; choose one of forget, generator, ops, serve, step"),
        ('kind = "ops"\n[quick]\nrounds = 1\n', "benchmark broken has no rounds"),
        ('kind = "ops"\n[[goal]]\ntext = "fast"\nfigure = "x"\n', "one of at_least, at_most, at_most_figure"),
    ],
)
def test_broken_file_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text(content)
    with pytest.raises(UsageError, match=message):
        load("broken", quick=True, folder=tmp_path)


def test_changing_a_value_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="benchmark step has no seeds; it has bank"):
        load("step").changed(seeds=[1])
    assert load("step").changed(threads=None) == load("step")


def verdict(goal: dict[str, Any], **figures: Any) -> dict[str, Any]:
    made = Specification("x", "ops", "x", {}, ({"text": "x", "figure": "a"} | goal,))
    return verdicts(made, figures)[0]


PLAIN, BOUND = spread([9.0, 12.0, 13.0]), spread([9.0, 12.0, 13.0], censored=[True, False, False])


@pytest.mark.parametrize(
    ("goal", "figures", "reached"),
    [
        ({"at_least": 10}, {"a": PLAIN}, True),
        ({"at_least": 12.5}, {"a": PLAIN}, False),
        ({"at_least": 10}, {"a": BOUND}, True),
        ({"at_least": 12.5}, {"a": BOUND}, None),  # it may be higher
        ({"at_most": 12.5}, {"a": PLAIN}, True),
        ({"at_most": 10}, {"a": PLAIN}, False),
        ({"at_least": 1}, {}, None),
        ({"at_least": 1}, {"a": spread([])}, None),
        ({"at_most_figure": "b"}, {"a": PLAIN, "b": spread([13.0])}, True),
        ({"at_most_figure": "b"}, {"a": PLAIN, "b": spread([11.0])}, False),
        ({"at_most_figure": "b"}, {"a": PLAIN, "b": spread([11.0]) | {"stopped_early": True}}, None),
        ({"at_most_figure": "b"}, {"a": PLAIN, "b": spread([13.0]) | {"stopped_early": True}}, True),
        ({"at_most_figure": "b"}, {"a": PLAIN}, None),
    ],
)
def test_goals_are_reached_missed_or_open(goal: dict, figures: dict, reached: bool | None) -> None:
    assert verdict(goal, **figures)["reached"] is reached


def test_lower_bound_is_said_in_words() -> None:
    assert said(BOUND) == "at least 12.0 [10.2 to 12.6]"
    assert said(spread([9.0], unit="s")) == "9.00 s"
    assert said(spread([])) == "not measured"


def test_files_hold_no_code() -> None:
    assert {path.suffix for path in specification.FOLDER.iterdir()} == {".toml"}
