"""Unlearning moves the person, keeps the others, repeats to the byte, survives Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from stopping import ctrl_c as ctrl_c  # fixture
from tiny import TinyIdentity, person
from torch import Tensor

from guide_fast.artifacts import weights_sha256
from guide_fast.config import LtuConfig
from guide_fast.errors import DivergedError, UsageError
from guide_fast.kernels import FusedAdam
from guide_fast.ltu import Bank, Networks, Unlearned, switches, unlearn
from guide_fast.ltu.schedule import layer_size
from guide_fast.ltu.terms import Views
from guide_fast.models.mobile_stylegan import MobileStyleGAN

Request = dict[str, Any]


@pytest.fixture
def request_(networks: Networks, bank: Bank, config: LtuConfig) -> Request:
    return {"networks": networks, "bank": bank, "config": config}


class Interrupt:
    """Presses Ctrl-C after `step` steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, stage: str, done: int, total: int, values: Mapping[str, float]) -> None:
        if stage == "unlearning" and done == self.step:
            raise KeyboardInterrupt


def similarity(teacher: MobileStyleGAN, result: Unlearned, ws: Tensor, resolution: int = 16) -> Tensor:
    network = TinyIdentity()
    with torch.no_grad():
        images = [g.synthesis(ws, resolution=resolution).image for g in (teacher, result.generator)]
        return network.similarity(*(network.embed(image) for image in images))


def test_person_is_forgotten_while_the_bank_stays(
    teacher: MobileStyleGAN, w_u: Tensor, w_t: Tensor, request_: Request
) -> None:
    before = weights_sha256(teacher)
    result = unlearn(teacher, w_u, w_t, **request_)
    forgotten = similarity(teacher, result, w_u[None]).item()
    retained = similarity(teacher, result, request_["bank"].ws).mean().item()
    assert forgotten < 0.2
    assert retained > 0.8
    assert weights_sha256(teacher) == before
    assert (result.steps, result.stopped, len(result.curve)) == (4, "steps", 4)


@pytest.mark.parametrize("layers", ["all", "auto", "coarse", "conv1.convolution"])
def test_gradient_alone_lowers_the_similarity(
    teacher: MobileStyleGAN, w_u: Tensor, w_t: Tensor, request_: Request, layers: str
) -> None:
    config = replace(request_["config"], warm_start=False, layers=layers, steps=25, lr=0.01)
    result = unlearn(teacher, w_u, w_t, **request_ | {"config": config})
    assert result.curve[0]["forgotten"] == pytest.approx(1, abs=1e-4)
    assert result.curve[-1]["forgotten"] < 0.98
    assert result.curve[-1]["forget_loss"] < result.curve[0]["forget_loss"]


def test_only_the_chosen_layers_change(teacher: MobileStyleGAN, w_u: Tensor, w_t: Tensor, request_: Request) -> None:
    config = replace(request_["config"], layers="conv1.*")
    result = unlearn(teacher, w_u, w_t, **request_ | {"config": config})
    after = dict(result.generator.named_parameters())
    changed = {name for name, value in teacher.named_parameters() if not torch.equal(value, after[name])}
    assert result.layers == ("conv1.modulation", "conv1.convolution")
    assert changed == {"conv1.modulation.weight", "conv1.modulation.bias", "conv1.weight", "conv1.bias"}


def test_auto_after_a_warm_start_moves_modulations_that_the_loss_sees(
    teacher: MobileStyleGAN, w_u: Tensor, w_t: Tensor, request_: Request
) -> None:
    layers = unlearn(teacher, w_u, w_t, **request_).layers
    assert layers
    assert all(layer.endswith(".modulation") for layer in layers)
    assert not set(layers) & {"blocks.1.conv1.modulation", "blocks.1.conv2.modulation", "to_img.modulation"}


def test_budget_is_kept_by_the_layers_that_move(
    teacher: MobileStyleGAN, w_u: Tensor, w_t: Tensor, request_: Request
) -> None:
    config = replace(request_["config"], layers="budget=1500")
    result = unlearn(teacher, w_u, w_t, **request_ | {"config": config})
    after = dict(result.generator.named_parameters())
    moved = sum(p.numel() for name, p in teacher.named_parameters() if not torch.equal(p, after[name]))
    assert 0 < moved <= sum(layer_size(teacher, layer) for layer in result.layers) <= 1500


def test_equal_requests_give_equal_bytes(teacher: MobileStyleGAN, w_u: Tensor, w_t: Tensor, request_: Request) -> None:
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)  # the global state decides nothing
        results.append(unlearn(teacher, w_u, w_t, **request_))
    assert weights_sha256(results[0].generator) == weights_sha256(results[1].generator)
    assert results[0].curve == results[1].curve


def test_another_seed_gives_other_bytes(teacher: MobileStyleGAN, w_u: Tensor, w_t: Tensor, request_: Request) -> None:
    other = request_ | {"config": replace(request_["config"], seed=1)}
    hashes = [weights_sha256(unlearn(teacher, w_u, w_t, **r).generator) for r in (request_, other)]
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize("step", [0, 1, 3, 4])
def test_interrupted_run_resumes_to_the_same_bytes(
    teacher: MobileStyleGAN, w_u: Tensor, w_t: Tensor, request_: Request, tmp_path: Path, step: int
) -> None:
    whole = unlearn(teacher, w_u, w_t, **request_)
    state = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        unlearn(teacher, w_u, w_t, **request_, state_path=state, progress=Interrupt(step))
    assert state.is_file()
    counted = []
    result = unlearn(
        teacher,
        w_u,
        w_t,
        **request_,
        state_path=state,
        resume=True,
        progress=lambda stage, done, total, values: counted.append(done),
    )
    assert counted == list(range(step, 5))
    assert weights_sha256(result.generator) == weights_sha256(whole.generator)
    assert result.curve == whole.curve
    assert result.layers == whole.layers


@pytest.mark.parametrize("call", [1, 3, 4])
def test_interrupt_right_after_the_weights_moved_takes_no_step_twice(
    teacher: MobileStyleGAN,
    w_u: Tensor,
    w_t: Tensor,
    request_: Request,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ctrl_c: Callable[[], None],
    call: int,
) -> None:
    whole = unlearn(teacher, w_u, w_t, **request_)
    state, calls, step = tmp_path / "state.safetensors", [], FusedAdam.step

    def stop_after(optimizer: FusedAdam) -> None:
        step(optimizer)
        calls.append(optimizer)
        if len(calls) == call:
            ctrl_c()

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(FusedAdam, "step", stop_after)
        unlearn(teacher, w_u, w_t, **request_, state_path=state)
    result = unlearn(teacher, w_u, w_t, **request_, state_path=state, resume=True)
    assert len(calls) == call
    assert weights_sha256(result.generator) == weights_sha256(whole.generator)
    assert result.curve == whole.curve


def test_loop_runs_outside_the_main_thread(
    teacher: MobileStyleGAN, w_u: Tensor, w_t: Tensor, request_: Request, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(1) as pool:
        state_path = tmp_path / "state.safetensors"
        result = pool.submit(unlearn, teacher, w_u, w_t, **request_, state_path=state_path).result()
    assert weights_sha256(result.generator) == weights_sha256(unlearn(teacher, w_u, w_t, **request_).generator)


@pytest.mark.parametrize("change", ["w_u", "w_t", "settings", "generator"])
def test_state_of_another_request_is_refused(
    teacher: MobileStyleGAN, w_u: Tensor, w_t: Tensor, request_: Request, tmp_path: Path, change: str
) -> None:
    state = {"state_path": tmp_path / "state.safetensors"}
    with pytest.raises(KeyboardInterrupt):
        unlearn(teacher, w_u, w_t, **request_, **state, progress=Interrupt(2))
    if change == "w_u":
        w_u = w_t.clone()
    elif change == "w_t":
        w_t = -w_t
    elif change == "settings":
        request_["config"] = replace(request_["config"], radius=1.0)
    else:
        teacher.conv1.noise.add_(0.5)
    with pytest.raises(UsageError, match="start anew without --resume"):
        unlearn(teacher, w_u, w_t, **request_, **state, resume=True)


def test_loop_stops_once_the_person_is_held_forgotten(
    teacher: MobileStyleGAN, w_u: Tensor, w_t: Tensor, request_: Request
) -> None:
    config = replace(request_["config"], reached=0.99, hold=2)
    result = unlearn(teacher, w_u, w_t, **request_ | {"config": config})
    assert (result.stopped, result.steps) == ("reached", 2)


ALL = r"\(features, perceptual, identity\)"
EXPLODED = {
    "person": f"the local term {ALL}, the adjacency term {ALL} stopped",
    "bystanders": r"the global term \(identity\) stopped",
}


@pytest.mark.parametrize("where", EXPLODED)
def test_loss_that_is_not_finite_names_its_terms(
    teacher: MobileStyleGAN, w_u: Tensor, w_t: Tensor, request_: Request, where: str
) -> None:
    if where == "bystanders":
        views = request_["bank"].views
        request_["bank"] = Bank(request_["bank"].ws, Views(views.identity * torch.nan, views.taps))
    else:
        w_t = w_t * torch.nan
    config = replace(request_["config"], layers="all", warm_start=False)
    with pytest.raises(DivergedError, match=f"{EXPLODED[where]} being finite at step 0; .*lower ltu.lr") as caught:
        unlearn(teacher, w_u, w_t, **request_ | {"config": config})
    assert weights_sha256(caught.value.last_good.generator) == weights_sha256(teacher)


def test_exploding_steps_go_back_to_the_last_good_state(
    teacher: MobileStyleGAN, w_u: Tensor, w_t: Tensor, request_: Request, tmp_path: Path
) -> None:
    state = tmp_path / "state.safetensors"
    good = replace(request_["config"], layers="all", lr=1e-3, steps=14)

    class Exploding(FusedAdam):
        def step(self, closure: Any = None) -> Any:
            super().step(closure)
            if int(self.state[self.param_groups[0]["params"][0]]["step"]) == 13:
                self.param_groups[0]["params"][0].data.fill_(1e30)

    with pytest.MonkeyPatch.context() as patched, pytest.raises(DivergedError, match=r"at step 13; .* at step 10") as e:
        patched.setattr(switches, "FusedAdam", Exploding)
        unlearn(teacher, w_u, w_t, **request_ | {"config": good}, state_path=state)
    last_good = e.value.last_good
    assert (last_good.steps, len(last_good.curve), last_good.stopped) == (10, 10, "diverged")
    ten = unlearn(teacher, w_u, w_t, **request_ | {"config": replace(good, steps=10)})
    assert weights_sha256(last_good.generator) == weights_sha256(ten.generator)
    # the state that was left is the good one: the steps from it are those of a run that never exploded
    whole = unlearn(teacher, w_u, w_t, **request_ | {"config": good})
    again = unlearn(teacher, w_u, w_t, **request_ | {"config": good}, state_path=state, resume=True)
    assert weights_sha256(again.generator) == weights_sha256(whole.generator)


@pytest.mark.parametrize(("adjacent", "others"), [(0, 2), (1, 0), (0, 0), (3, 99)])
def test_any_number_of_pairs_works(
    teacher: MobileStyleGAN, w_u: Tensor, w_t: Tensor, request_: Request, adjacent: int, others: int
) -> None:
    config = replace(request_["config"], n_adjacent=adjacent, n_global=others, steps=2)
    curve = unlearn(teacher, w_u, w_t, **request_ | {"config": config}).curve
    assert len(curve) == 2
    assert all(torch.isfinite(torch.tensor(values["loss"])) for values in curve)


@pytest.mark.parametrize("n_adjacent", [1, 2])
@pytest.mark.parametrize("seed", [1, 3])
def test_person_of_a_seed_that_a_step_uses_is_forgotten_like_any_other(
    teacher: MobileStyleGAN, w_t: Tensor, request_: Request, seed: int, n_adjacent: int
) -> None:
    # step i of run seed 0 draws the people that neighbours lie toward with seed i + 1: the first is the person itself
    config = replace(request_["config"], n_adjacent=n_adjacent)
    result = unlearn(teacher, person(teacher, seed), w_t, **request_ | {"config": config})
    assert max(values["forget_loss"] for values in result.curve) < 10


def test_person_of_the_bank_is_forgotten(teacher: MobileStyleGAN, w_t: Tensor, request_: Request) -> None:
    w_u = request_["bank"].ws[0].clone()  # as `forget(seed=11)` asks for
    result = unlearn(teacher, w_u, w_t, **request_)
    assert similarity(teacher, result, w_u[None]).item() < 0.8
