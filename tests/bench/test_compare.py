"""Two stored results of one benchmark, figure by figure, with where they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from guide_fast.bench import figures
from guide_fast.bench.compare import compare, lines
from guide_fast.bench.figures import spread
from guide_fast.bench.specification import load
from guide_fast.errors import UsageError


def stored(path: Path, seconds: list[float], *, processor: str = "A", name: str = "ops", **more: Any) -> Path:
    made = {"only " + path.stem: spread([1.0]), "haar: ours": spread(seconds, unit="ms", **more)}
    result = figures.envelope(load(name), made, [])
    result["provenance"] |= {"processor": processor, "commit": path.stem}
    figures.save(result, path)
    return path


def test_ratio_is_the_second_over_the_first(tmp_path: Path) -> None:
    compared = compare(stored(tmp_path / "a.json", [2.0, 2.0]), stored(tmp_path / "b.json", [1.0, 1.0]))
    assert list(compared["figures"]) == ["haar: ours"], "figures of one alone are no comparison"
    assert compared["figures"]["haar: ours"]["ratio"] == 0.5
    said = lines(compared)
    assert "commit a" in said[0] and "commit b" in said[1]
    assert said[-1].split()[-1] == "0.500"
    assert not any("different machines" in line for line in said)


def test_other_machines_and_settings_are_named(tmp_path: Path) -> None:
    first, second = stored(tmp_path / "a.json", [2.0]), stored(tmp_path / "b.json", [1.0], processor="B")
    result = figures.read(second)
    figures.save(result | {"specification": result["specification"] | {"repeats": 99}}, second)
    said = "\n".join(lines(compare(first, second)))
    assert "different machines" in said and "repeats is 15 and 99" in said


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [(True, True, "unknown: both are lower bounds"), (True, False, "at most 0.500"), (False, True, "at least 0.500")],
)
def test_lower_bounds_bound_the_ratio(a: bool, b: bool, said: str, tmp_path: Path) -> None:
    first = stored(tmp_path / "a.json", [2.0], censored=[a])
    second = stored(tmp_path / "b.json", [1.0], censored=[b])
    assert lines(compare(first, second))[-1].endswith(said)


def test_different_benchmarks_are_refused(tmp_path: Path) -> None:
    first, second = stored(tmp_path / "a.json", [2.0]), stored(tmp_path / "b.json", [1.0], name="step")
    with pytest.raises(UsageError, match=r"a\.json is of benchmark ops, .*b\.json of step; compare two of one"):
        compare(first, second)


@pytest.mark.parametrize(
    ("content", "message"), [("{", "is no JSON file"), ("{}", "is no result of this version"), (None, "cannot read")]
)
def test_what_is_no_result_is_refused(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=message):
        compare(path, path)
