"""What is written beside a result: a table, pictures that have something on them on either ground."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from guide_fast.bench import figures, report
from guide_fast.bench.charts import THEMES, Bar, Panel, draw
from guide_fast.bench.figures import spread
from guide_fast.bench.forget_figures import person_figures
from guide_fast.bench.specification import load
from guide_fast.errors import GuideFastError


def forget_result() -> dict[str, Any]:
    ours = {"seconds_first": 12.0, "seconds_next": 5.0, "forgotten": 0.3, "stranger_mean": 0.37, "stranger_std": 0.08}
    ours |= {"retained": 0.98, "retained_p05": 0.95, "fd_pre": 8.0}
    their = {"ratio": 12.0, "ratio_first": 5.0, "censored": True, "step_seconds": [20.0], "seconds": 60.0}
    their |= {"forgotten": 0.9, "retained": 1.0, "fd_pre": 0.5}
    row = {"ours": ours, "gate": "passed", "baselines": {"published": their, "compiled": {**their, "ratio": 3.5}}}
    return figures.envelope(load("forget"), person_figures([row, row], ["published", "compiled"]), [row, row])


def step_result() -> dict[str, Any]:
    rows = [
        {"name": "published loop", "contender": "guide_published", "gate": "passed", "seconds": spread([20.0])},
        {"name": "ours", "contender": "ours", "gate": "passed", "seconds": spread([0.4]), "times_before": 50.0},
        {"name": "wrong", "contender": "ours", "gate": "its loss is off"},
    ]
    return figures.envelope(load("step"), {"times_published": spread([50.0])}, rows, absent_switches=[])


@pytest.mark.parametrize("result", [forget_result(), step_result()], ids=lambda result: result["kind"])
def test_files_lie_beside_each_other(result: dict[str, Any], tmp_path: Path) -> None:
    files = report.write(result, tmp_path)
    name = result["benchmark"]
    assert [file.name for file in files] == [f"{name}.json", f"{name}.md", f"{name}.png", f"{name}.dark.png"]
    assert figures.read(files[0]) == result
    table = files[1].read_text()
    assert result["provenance"]["commit"] in table and "| figure | median [p20 to p80] | n |" in table
    for file, (ground, ink, _) in zip(files[2:], THEMES.values(), strict=True):
        pixels = np.asarray(Image.open(file).convert("RGB")).reshape(-1, 3).astype(int)
        for colour, least in ((ground, 0.4), (ink, 0.001)):
            wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
            assert (np.abs(pixels - wanted).max(1) < 30).mean() > least, (file.name, colour)


def test_table_says_what_was_reached_and_what_is_a_lower_bound() -> None:
    table = "\n".join(report.markdown(forget_result()))
    assert "| ratio_published | at least 12.0" in table
    assert "faster than guide_published at the same forgetting | at least 12.0 against 10.0 | reached |" in table
    assert "| the next person costs at most 70 % of the first | 0.417 against 0.700 | reached |" in table
    assert "fd_pre no worse than guide_published's at that point | 8.00 against 0.500 | open |" in table


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_ink_stands_out_on_its_ground() -> None:
    for ground, ink, _ in THEMES.values():
        light, dark = sorted((luminance(ground), luminance(ink)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 7


def test_panels_without_bars_are_left_out(tmp_path: Path) -> None:
    assert draw([Panel("empty", "s", [])], "nothing", tmp_path / "x") == []
    bars = [Bar("a", 0.0), Bar("b", 2.0, 1.0, 3.0)]
    heights = [Image.open(draw([Panel("p", "s", bars)] * n, "t", tmp_path / f"p{n}")[0]).height for n in (1, 2)]
    assert all(below > above for above, below in itertools.pairwise(heights))


def test_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GuideFastError, match="cannot write"):
        report.check_writable(tmp_path / "file" / "folder")
    report.check_writable(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
