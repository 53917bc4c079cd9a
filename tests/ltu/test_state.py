"""A loop's state comes back from its file: parameters, Adam's moments, curve."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from guide_fast.errors import UsageError
from guide_fast.ltu.state import LoopState


def fresh() -> tuple[dict[str, nn.Parameter], torch.optim.Adam]:
    parameters = {name: nn.Parameter(torch.ones(2, 3)) for name in ("a.shift", "a.shift.more", "b")}
    return parameters, torch.optim.Adam(list(parameters.values()), lr=0.1)


def advance(parameters: dict[str, nn.Parameter], optimizer: torch.optim.Adam, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        sum((i + 1) * p.pow(3).sum() for i, p in enumerate(parameters.values())).backward()
        optimizer.step()


def test_loop_continues_from_the_file_as_if_never_stopped(tmp_path: Path) -> None:
    whole, whole_optimizer = fresh()
    advance(whole, whole_optimizer, 5)
    stopped, optimizer = fresh()
    advance(stopped, optimizer, 3)
    curve = [{"step": 0, "loss": 0.5}]
    LoopState(("x", "y"), 3, curve).save(tmp_path / "state", stopped, optimizer)
    state = LoopState.load(tmp_path / "state")
    assert (state.layers, state.step, state.curve) == (("x", "y"), 3, curve)
    parameters, optimizer = fresh()
    state.restore(parameters, optimizer)
    advance(parameters, optimizer, 2)
    assert all(torch.equal(parameters[name], whole[name]) for name in whole)


def test_state_before_the_first_step_has_no_moments(tmp_path: Path) -> None:
    parameters, optimizer = fresh()
    LoopState(("x",)).save(tmp_path / "state", parameters, optimizer)
    again, optimizer = fresh()
    LoopState.load(tmp_path / "state").restore(again, optimizer)
    assert not optimizer.state
    advance(again, optimizer, 1)


def test_fresh_state_restores_nothing() -> None:
    parameters, optimizer = fresh()
    LoopState(("x",)).restore(parameters, optimizer)
    assert all(torch.equal(parameter, torch.ones(2, 3)) for parameter in parameters.values())


def test_missing_state_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist; give a ltu state file"):
        LoopState.load(tmp_path / "state")
