"""An inversion stopped at any moment, any number of times, continues to the same latent."""

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
from guide_fast.invert import Snapshot, invert
from guide_fast.invert.optimise import Search
from guide_fast.kernels import FusedAdam
from guide_fast.models.identity import IdentityNetwork
from guide_fast.models.low_resolution import attach_head
from guide_fast.models.mobile_stylegan import MobileStyleGAN
from guide_fast.models.perceptual import PerceptualNetwork

Run = Callable[..., Latent]
REQUEST = {"photo": "a" * 64, "invert.lr": 0.05}
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
        known |= {"keep": lambda snapshot: snapshot.save(tmp_path / "state", REQUEST)}
        settings = changed.pop("settings", {})
        known["config"] = dataclasses.replace(config, **settings)
        return invert(face, generator, **known | changed)

    return call


def stored(folder: Path) -> Snapshot:
    return Snapshot.load(folder / "state", REQUEST)


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
    resumed = run(resume=stored(tmp_path), progress=lambda stage, done, total, values: told.append((stage, done)))
    assert told == [("invert", done) for done in range(step, 2 * STEPS + 1)]
    assert_same_file(whole, resumed, tmp_path)


@pytest.mark.parametrize("call", [1, 7, 20, STEPS, STEPS + 1, STEPS + 20])
def test_interrupt_within_a_step_costs_no_bit(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    whole, calls, step = run(), [], FusedAdam.step

    def stop_after(optimizer: FusedAdam) -> None:
        step(optimizer)
        calls.append(optimizer)
        if len(calls) == call:  # right after the parameters moved, before a check at the 20th step of a phase
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(FusedAdam, "step", stop_after)
        run()
    assert_same_file(whole, run(resume=stored(tmp_path)), tmp_path)


def test_inversion_stopped_twice_continues_to_the_same_bytes(run: Run, tmp_path: Path) -> None:
    whole = run()
    with pytest.raises(KeyboardInterrupt):
        run(progress=interrupt_at(9))
    with pytest.raises(KeyboardInterrupt):
        run(progress=interrupt_at(44), resume=stored(tmp_path))
    assert_same_file(whole, run(resume=stored(tmp_path)), tmp_path)


def test_inversion_stopped_while_the_judge_looks_is_kept(run: Run, judge: IdentityNetwork, tmp_path: Path) -> None:
    whole = run()

    def stop(*arguments: Any) -> None:
        raise KeyboardInterrupt

    hook = judge.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        run()
    hook.remove()
    assert_same_file(whole, run(resume=stored(tmp_path)), tmp_path)


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


@pytest.mark.parametrize("steps", [(0, 0), (0, 9), (9, 9), (9, 10), (20, 20), (STEPS, STEPS + 1), (44, 44)])
def test_resumed_inversion_may_stop_again_at_once(run: Run, tmp_path: Path, steps: tuple[int, int]) -> None:
    whole = run()
    with pytest.raises(KeyboardInterrupt):
        run(progress=interrupt_at(steps[0]))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(progress=interrupt_at(steps[1]), resume=stored(tmp_path))
    assert_same_file(whole, run(resume=stored(tmp_path)), tmp_path)


@pytest.mark.parametrize("call", [1, 2, 11])
def test_interrupt_within_the_first_step_after_a_check_costs_no_bit_twice(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    whole = run()
    with pytest.raises(KeyboardInterrupt):
        run(progress=interrupt_at(19))  # the next step ends in a check, which adds to the curve
    check = Search._check

    def stop_after(search: Search) -> None:
        check(search)
        raise KeyboardInterrupt

    for _ in range(call):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Search, "_check", stop_after)
            run(resume=stored(tmp_path))
    assert_same_file(whole, run(resume=stored(tmp_path)), tmp_path)


def test_state_of_another_request_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(progress=interrupt_at(5))
    with pytest.raises(UsageError, match=r"another invert\.lr .*start anew without --resume"):
        Snapshot.load(tmp_path / "state", REQUEST | {"invert.lr": 0.02})


@pytest.mark.parametrize("missing", ["value/own", "exp_avg/common", "exp_avg_sq/common", "step/common", "local/weight"])
def test_state_without_one_of_its_tensors_is_damaged(run: Run, tmp_path: Path, missing: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(progress=interrupt_at(5))
    tensors, content = read_safetensors(tmp_path / "state", "stopped inversion")
    kept: dict[str, Tensor] = {name: value for name, value in tensors.items() if name != missing}
    assert len(kept) < len(tensors)
    write_safetensors(tmp_path / "state", kept, "stopped inversion", content)
    with pytest.raises(IntegrityError, match="start anew without --resume"):
        stored(tmp_path)


def test_missing_state_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist; give a stopped inversion file"):
        stored(tmp_path)
