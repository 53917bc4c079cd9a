"""A loop's state comes back from its file: parameters, Adam's moments, curve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from guide_fast.artifacts import read_safetensors, write_safetensors
from guide_fast.errors import IntegrityError, UsageError
from guide_fast.ltu.state import LoopState

REQUEST = {"generator": "a" * 64, "ltu.lr": 0.1}
LATENTS = {"person's": torch.zeros(2, 3), "target's": torch.full((2, 3), 2.0)}


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
    LoopState(("x", "y"), 3, curve, request=REQUEST, latents=LATENTS).save(tmp_path / "state", stopped, optimizer)
    state = LoopState.load(tmp_path / "state", REQUEST, LATENTS)
    assert (state.layers, state.step, state.curve) == (("x", "y"), 3, curve)
    parameters, optimizer = fresh()
    state.restore(parameters, optimizer)
    advance(parameters, optimizer, 2)
    assert all(torch.equal(parameters[name], whole[name]) for name in whole)


def test_state_before_the_first_step_has_no_moments(tmp_path: Path) -> None:
    parameters, optimizer = fresh()
    LoopState(("x",)).save(tmp_path / "state", parameters, optimizer)
    again, optimizer = fresh()
    LoopState.load(tmp_path / "state", {}, {}).restore(again, optimizer)
    assert not optimizer.state
    advance(again, optimizer, 1)


def test_fresh_state_restores_nothing() -> None:
    parameters, optimizer = fresh()
    LoopState(("x",)).restore(parameters, optimizer)
    assert all(torch.equal(parameter, torch.ones(2, 3)) for parameter in parameters.values())


def test_missing_state_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist; give a ltu state file"):
        LoopState.load(tmp_path / "state", {}, {})


@pytest.mark.parametrize(
    ("request_", "latents", "said"),
    [
        (REQUEST | {"ltu.lr": 0.2}, LATENTS, r"another ltu\.lr \(0\.1 then, 0\.2 now\)"),
        (REQUEST | {"generator": "b" * 64}, LATENTS, "another generator"),
        (REQUEST, LATENTS | {"person's": torch.ones(2, 3)}, "another person's latent"),
        (REQUEST, LATENTS | {"target's": torch.full((2, 3), torch.nan)}, "another target's latent"),
        (REQUEST, LATENTS | {"target's": torch.ones(3, 3)}, "another target's latent"),
    ],
)
def test_state_of_another_request_is_refused(
    tmp_path: Path, request_: dict[str, Any], latents: dict[str, torch.Tensor], said: str
) -> None:
    LoopState(("x",), request=REQUEST, latents=LATENTS).save(tmp_path / "state", *fresh())
    with pytest.raises(UsageError, match=f"{said}.*start anew without --resume"):
        LoopState.load(tmp_path / "state", request_, latents)


def test_latent_that_was_rounded_otherwise_is_the_same(tmp_path: Path) -> None:
    LoopState(("x",), request=REQUEST, latents=LATENTS).save(tmp_path / "state", *fresh())
    LoopState.load(tmp_path / "state", REQUEST, {name: latent + 1e-5 for name, latent in LATENTS.items()})


@pytest.mark.parametrize("missing", ["value/b", "exp_avg/b", "latent/person's"])
def test_state_without_one_of_its_tensors_is_damaged(tmp_path: Path, missing: str) -> None:
    parameters, optimizer = fresh()
    advance(parameters, optimizer, 3)
    LoopState(("x",), 3, request=REQUEST, latents=LATENTS).save(tmp_path / "state", parameters, optimizer)
    tensors, content = read_safetensors(tmp_path / "state", "ltu state")
    del tensors[missing]
    write_safetensors(tmp_path / "state", tensors, "ltu state", content)
    with pytest.raises(IntegrityError, match="start anew without --resume"):
        LoopState.load(tmp_path / "state", REQUEST, LATENTS)


def test_state_of_an_older_version_does_not_say_enough(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "state", {}, "ltu state", {"layers": [], "step": 0, "curve": []})
    with pytest.raises(IntegrityError, match="does not say what it was asked for; start anew without --resume"):
        LoopState.load(tmp_path / "state", {}, {})
