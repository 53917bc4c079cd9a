"""An inversion stopped at any moment continues to the same latent, for the same request only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from guide_fast.artifacts import Face, Latent, read_safetensors, write_safetensors
from guide_fast.config import InvertConfig
from guide_fast.errors import GuideFastError, IntegrityError, RefusedError, UsageError
from guide_fast.invert import InversionState, invert
from guide_fast.models.identity import IdentityNetwork
from guide_fast.models.low_resolution import attach_head
from guide_fast.models.mobile_stylegan import MobileStyleGAN
from guide_fast.models.perceptual import PerceptualNetwork

Run = Callable[..., Latent]
STEPS = 30  # in each phase: a check at step 20, another at the end


@pytest.fixture
def face(generator: MobileStyleGAN) -> Face:
    z = torch.randn(1, generator.z_dim, generator=torch.Generator().manual_seed(99))
    return Face(generator.synthesis(generator.mapping(z)).image[0], "a" * 64)


@pytest.fixture
def run(
    face: Face,
    generator: MobileStyleGAN,
    identity: IdentityNetwork,
    perceptual: PerceptualNetwork,
    judge: IdentityNetwork,
    config: InvertConfig,
    tmp_path: Path,
) -> Run:
    """`invert` at 16 px through a fitted head; what it keeps goes to a file."""
    attach_head(generator, 16)
    config = dataclasses.replace(config, steps_w=STEPS, steps_w_plus=STEPS, resolution=16, min_similarity=-1.0)

    def call(**changed: Any) -> Latent:
        known = {"identity": identity, "perceptual": perceptual, "judge": judge, "config": config}
        known |= {"keep": lambda state: state.save(tmp_path / "state"), "asked": {"face": None, "aligned": False}}
        settings = changed.pop("settings", {})
        known["config"] = dataclasses.replace(config, **settings)
        return invert(changed.pop("face", face), changed.pop("generator", generator), **known | changed)

    return call


def interrupt_at(step: int) -> Callable[..., None]:
    def progress(stage: str, done: int, total: int, values: Mapping[str, float]) -> None:
        if (stage, done) == ("invert", step):
            raise KeyboardInterrupt

    return progress


def assert_same_file(first: Latent, second: Latent, folder: Path) -> None:
    first.save(folder / "first")
    second.save(folder / "second")
    assert (folder / "first").read_bytes() == (folder / "second").read_bytes()


@pytest.mark.parametrize("step", [0, 1, 7, 20, STEPS, STEPS + 1, STEPS + 20, 2 * STEPS - 1, 2 * STEPS])
def test_stopped_inversion_continues_to_the_same_bytes(run: Run, tmp_path: Path, step: int) -> None:
    whole = run()
    with pytest.raises(KeyboardInterrupt):
        run(progress=interrupt_at(step))
    told: list[tuple[str, int]] = []
    resumed = run(resume=tmp_path / "state", progress=lambda stage, done, total, values: told.append((stage, done)))
    assert told == [("invert", done) for done in range(step, 2 * STEPS + 1)]
    assert_same_file(whole, resumed, tmp_path)


@pytest.mark.parametrize("call", [1, 7, 20, STEPS, STEPS + 1, STEPS + 20])
def test_interrupt_within_a_step_costs_no_bit(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    whole, calls, step = run(), [], torch.optim.Adam.step

    def stop_after(optimizer: torch.optim.Adam) -> None:
        step(optimizer)
        calls.append(optimizer)
        if len(calls) == call:  # right after the parameters moved, before a check at the 20th step of a phase
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(torch.optim.Adam, "step", stop_after)
        run()
    assert_same_file(whole, run(resume=tmp_path / "state"), tmp_path)


def test_inversion_stopped_twice_continues_to_the_same_bytes(run: Run, tmp_path: Path) -> None:
    whole = run()
    with pytest.raises(KeyboardInterrupt):
        run(progress=interrupt_at(9))
    with pytest.raises(KeyboardInterrupt):
        run(progress=interrupt_at(44), resume=tmp_path / "state")
    assert_same_file(whole, run(resume=tmp_path / "state"), tmp_path)


def test_inversion_stopped_while_the_judge_looks_is_kept(run: Run, judge: IdentityNetwork, tmp_path: Path) -> None:
    whole = run()

    def stop(*arguments: Any) -> None:
        raise KeyboardInterrupt

    hook = judge.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        run()
    hook.remove()
    assert_same_file(whole, run(resume=tmp_path / "state"), tmp_path)


@pytest.mark.parametrize(
    ("settings", "error"),
    [({"min_similarity": 1.0, "steps_w": 1, "steps_w_plus": 0}, RefusedError), ({"lr": 1e30}, GuideFastError)],
)
def test_refused_inversion_keeps_nothing(
    run: Run, tmp_path: Path, settings: dict[str, Any], error: type[GuideFastError]
) -> None:
    with pytest.raises(error):
        run(settings=settings)
    assert not list(tmp_path.iterdir())


def test_inversion_without_a_keeper_just_stops(run: Run, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(progress=interrupt_at(3), keep=None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"face": "another photo"}, "another photo"),
        ({"generator": "another"}, "another generator"),
        ({"generator": "another head"}, "another generator"),
        ({"asked": {"face": 1, "aligned": False}}, "another face"),
        ({"asked": {"face": None, "aligned": True}}, "another aligned"),
        ({"settings": {"lr": 0.02}}, r"another invert\.lr"),
        ({"seed": 1}, "another seed"),
    ],
)
def test_state_of_another_request_is_refused(
    run: Run, face: Face, generator: MobileStyleGAN, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(progress=interrupt_at(5))
    if change.get("face"):
        change = {"face": dataclasses.replace(face, source_sha256="b" * 64)}
    elif change.get("generator") == "another":
        generator.to_img.bias.add_(0.5)
        change = {}
    elif change.get("generator") == "another head":
        generator.heads["16"].bias.add_(0.5)
        change = {}
    with pytest.raises(UsageError, match=f"{said} .*start anew without --resume"):
        run(resume=tmp_path / "state", **change)
    assert (tmp_path / "state").is_file()


def test_state_without_its_tensors_is_damaged(run: Run, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(progress=interrupt_at(5))
    tensors, content = read_safetensors(tmp_path / "state", "stopped inversion")
    kept: dict[str, Tensor] = {name: value for name, value in tensors.items() if name != "value/own"}
    write_safetensors(tmp_path / "state", kept, "stopped inversion", content)
    with pytest.raises(IntegrityError, match="start anew without --resume"):
        run(resume=tmp_path / "state")


def test_missing_state_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist; give a stopped inversion file"):
        InversionState.load(tmp_path / "state", {})
