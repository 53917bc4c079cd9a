"""The ablation goes on where it was stopped, compares policies by medians over seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stopping import NETWORKS
from tiny import CONFIG, TinyIdentity, TinyPerceptual, tiny_generator

from guide_fast import _networks
from guide_fast.bench import ablation
from guide_fast.bench.ablation import COLUMNS, POLICIES, fill, measured, table
from guide_fast.config import Config, resolve_config
from guide_fast.ltu.schedule import candidate_layers

TWO = {"auto": {}, "all": {"ltu.layers": "all"}}


class Runs:
    """Made-up numbers that say which cell they are of."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.seen: list[tuple[str, int]] = []
        self.stop_at = stop_at

    def __call__(self, config: Config, seed: int) -> dict[str, Any]:
        if len(self.seen) == self.stop_at:
            raise KeyboardInterrupt
        self.seen.append((config.ltu.layers, seed))
        return {column: float(seed) for column in COLUMNS} | {"stranger_mean": 0.4}


def test_every_cell_runs_once(tmp_path: Path) -> None:
    runs = Runs()
    result = fill(tmp_path / "a.json", TWO, [0, 1, 5], runs)
    assert runs.seen == [(layers, seed) for seed in (0, 1, 5) for layers in ("auto", "all")]
    assert result["summary"]["all"]["seconds"]["median"] == 1
    assert result["summary"]["all"]["seconds"]["max"] == 5
    assert json.loads((tmp_path / "a.json").read_text())["summary"] == result["summary"]
    assert "| `all` | 1.000 [0.400 to 3.400] |" in (tmp_path / "a.md").read_text() == table(result)


def test_stopped_ablation_runs_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "a.json", TWO, [0, 1], Runs(stop_at=3))
    rest = Runs()
    result = fill(tmp_path / "a.json", TWO, [0, 1], rest)
    assert rest.seen == [("all", 1)]
    assert [(cell["policy"], cell["seed"]) for cell in result["cells"]] == [(p, s) for s in (0, 1) for p in TWO]


def test_cells_of_other_settings_run_anew(tmp_path: Path) -> None:
    fill(tmp_path / "a.json", TWO, [0], Runs())
    again = Runs()
    fill(tmp_path / "a.json", TWO, [0], again, more={"ltu.lr": 1e-3})
    assert len(again.seen) == 2


def test_stopping_while_old_cells_are_looked_at_loses_none(tmp_path: Path) -> None:
    fill(tmp_path / "a.json", TWO, [1], Runs())
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "a.json", TWO, [0, 1], Runs(stop_at=1))
    rest = Runs()
    fill(tmp_path / "a.json", TWO, [0, 1], rest)
    assert rest.seen == [("all", 0)]


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_are_valid_settings(policy: str) -> None:
    config = resolve_config(None, {}, {**ablation.EVALUATE, **POLICIES[policy]})
    assert candidate_layers(tiny_generator(), config.ltu.layers, resolution=16)


def test_cell_is_a_run_of_the_pipeline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GUIDE_FAST_HOME", str(tmp_path))
    monkeypatch.setattr(_networks, "load_identity", lambda name: TinyIdentity(name, seed=NETWORKS[name]))
    monkeypatch.setattr(_networks, "load_perceptual", TinyPerceptual)
    cell = measured(tiny_generator(), CONFIG, 7)
    assert set(COLUMNS) <= cell.keys()
    assert 0 < cell["delta_zlib_bytes"] <= 1.1 * cell["delta_bytes"]
