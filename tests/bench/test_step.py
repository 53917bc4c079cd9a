"""The waterfall of one step: every row measured, none whose losses are wrong, switches read from data."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest
from tiny import CONFIG, TinyIdentity, TinyPerceptual, person, tiny_generator

from guide_fast.bench import step
from guide_fast.bench.specification import Specification, load
from guide_fast.config import LtuConfig
from guide_fast.ltu import Networks, preservation_bank
from guide_fast.models.low_resolution import attach_head


@contextlib.contextmanager
def setup(specification: Specification) -> Iterator[step.Setup]:
    base, networks = tiny_generator(), Networks(TinyIdentity(), TinyPerceptual())
    attach_head(base, 16)
    bank = preservation_bank(base, networks, size=4, resolution=16, seed=1)
    yield step.Setup(base, networks, bank, person(base), person(base, 9), CONFIG.ltu)


def small(**values: Any) -> Specification:
    config = {"resolution": 16, "steps": 3, "published_steps": 2, "threads": 1}
    return load("step").changed(**config | values)


def test_rows_lead_from_the_published_loop_to_ours() -> None:
    switches = [{"name": "warm_start", "off": True, "on": True}, {"name": "not_here", "off": 0, "on": 1}]
    result = step.run(small(switches=switches), setup=setup)
    names = [row["name"] for row in result["rows"]]
    assert names == ["published loop", "at 16 px", "our loop, plain PyTorch", "+ our kernels", "+ warm_start"]
    assert [row["gate"] for row in result["rows"]] == ["passed"] * 5
    assert result["absent_switches"] == ["not_here"]
    for above, row in zip(result["rows"], result["rows"][1:], strict=False):
        assert row["times_before"] == above["seconds"]["median"] / row["seconds"]["median"]
    first, last = result["rows"][0], result["rows"][-1]
    ratio = first["seconds"]["median"] / last["seconds"]["median"]
    assert result["figures"]["times_published"]["median"] == pytest.approx(ratio)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    said = "\n".join(step.words(result))
    assert "not in this version, so not measured: not_here" in said and "times as fast as the row above" in said


def test_switch_that_changes_the_losses_has_no_speed() -> None:
    switches = [{"name": "identity", "off": 0.1, "on": 5.0}]  # another loss: what a wrong switch would be
    result = step.run(small(switches=switches), setup=setup)
    row = result["rows"][-1]
    assert row["gate"].startswith("its loss at step 0 is") and "seconds" not in row
    assert not any("identity" in name for name in result["figures"])
    assert "no speed: its loss at step 0" in "\n".join(step.words(result))
    assert "times_published" not in result["figures"]


def test_published_loop_that_computes_something_else_has_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step.GuidePublished, "step", lambda self: {"loss": 1.0})
    rows = step.run(small(switches=[]), setup=setup)["rows"]
    assert all("seconds" not in row for row in rows[:2]) and "seconds" in rows[2]


def test_first_step_warms_up() -> None:
    result = step.run(small(switches=[]), setup=setup)
    row = result["rows"][2]
    assert len(row["step_seconds"]) == 3 and row["seconds"]["values"] == row["step_seconds"][1:]


def test_switches_of_the_file_are_told_apart_by_what_the_configuration_has() -> None:
    present, absent = step.known_switches(load("step").values["switches"])
    fields = {field.name for field in dataclasses.fields(LtuConfig)}
    assert {switch["name"] for switch in present} <= fields and not fields & set(absent)
