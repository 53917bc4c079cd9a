"""FusedAdam stands in for torch.optim.Adam: the same steps, the same state."""

from __future__ import annotations

import contract
import pytest
import torch
from torch import nn

from guide_fast.kernels import FusedAdam, KernelError

SHAPES = [(6, 5), (7,), (4, 3, 3, 3)]


def parameters() -> list[nn.Parameter]:
    random = torch.Generator().manual_seed(0)
    made = [torch.randn(shape, generator=random).to(contract.DEVICE) for shape in SHAPES]
    made[2] = made[2].contiguous(memory_format=torch.channels_last)
    return [nn.Parameter(t) for t in made]


def run(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        random = torch.Generator().manual_seed(100 + step)
        for i, param in enumerate(params):
            grad = torch.randn(param.shape, generator=random).to(param.device)
            param.grad = None if step == 1 and i == 1 else grad
        optimizer.step()


def assert_close(one: list[nn.Parameter], other: list[nn.Parameter], *, steps: int) -> None:
    # each step rounds both once, updates of at most 3.2 lr pass through at most 16 roundings in each
    bound = 2 * steps * 2.0**-24 * (max(p.abs().max().item() for p in one) + 16 * 3.2 * 1e-2)
    assert max((a - b).abs().max().item() for a, b in zip(one, other, strict=True)) <= bound


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_steps_are_those_of_adam(weight_decay: float) -> None:
    ours, theirs = parameters(), parameters()
    run(FusedAdam(ours, lr=1e-2, weight_decay=weight_decay), ours, range(6))
    run(torch.optim.Adam(theirs, lr=1e-2, weight_decay=weight_decay), theirs, range(6))
    assert_close(ours, theirs, steps=6)


@pytest.mark.parametrize("first", [FusedAdam, torch.optim.Adam])
@pytest.mark.parametrize("second", [FusedAdam, torch.optim.Adam])
def test_state_dict_goes_from_one_to_the_other(first: type, second: type) -> None:
    params, straight = parameters(), parameters()
    begun = first(params, lr=1e-2, betas=(0.8, 0.99))
    run(begun, params, range(3))
    continued = second(params, lr=1.0)
    continued.load_state_dict(begun.state_dict())
    assert continued.param_groups[0]["lr"] == 1e-2
    run(continued, params, range(3, 6))
    run(torch.optim.Adam(straight, lr=1e-2, betas=(0.8, 0.99)), straight, range(6))
    assert_close(params, straight, steps=6)


def test_state_of_a_parameter_is_that_of_adam() -> None:
    ours, theirs = parameters(), parameters()
    fused, adam = FusedAdam(ours), torch.optim.Adam(theirs)
    run(fused, ours, range(2))
    run(adam, theirs, range(2))
    for a, b in zip(ours, theirs, strict=True):
        assert list(fused.state[a]) == list(adam.state[b])
        assert torch.equal(fused.state[a]["step"], adam.state[b]["step"])
        for key, value in fused.state[a].items():
            assert value.dtype == adam.state[b][key].dtype and torch.allclose(value, adam.state[b][key], atol=1e-6)


def test_state_put_back_in_another_layout_goes_on() -> None:
    params, straight = parameters(), parameters()
    begun = FusedAdam(params, lr=1e-2)
    run(begun, params, range(2))
    restored = FusedAdam(params, lr=1e-2)
    for param in params:  # as from a file, which keeps no strides
        restored.state[param] = {key: value.clone().contiguous() for key, value in begun.state[param].items()}
    run(restored, params, range(2, 4))
    run(FusedAdam(straight, lr=1e-2), straight, range(4))
    assert all(torch.equal(a, b) for a, b in zip(params, straight, strict=True))


def test_working_copies_follow() -> None:
    params = parameters()
    copies = {p: torch.empty_like(p, dtype=torch.bfloat16) for p in params[:2]}
    run(FusedAdam(params, working_copies=copies), params, range(3))
    assert all(torch.equal(copy, p.detach().bfloat16()) for p, copy in copies.items())


def test_closure_groups_and_learning_rates_work() -> None:
    params = parameters()
    before = [p.detach().clone() for p in params]
    optimizer = FusedAdam([{"params": params[:1], "lr": 0.0}, {"params": params[1:], "lr": torch.tensor(1e-2)}])

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = sum(p.square().sum() for p in params)
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(3)]
    assert losses == sorted(losses, reverse=True) and torch.equal(params[0], before[0])


def test_version_of_a_parameter_counts_the_step() -> None:
    contract.require_extension()
    (param, *_) = parameters()
    version = param._version
    run(FusedAdam([param]), [param], range(1))
    assert param._version > version


def test_state_with_an_option_of_another_adam_is_refused() -> None:
    params = parameters()
    optimizer = torch.optim.Adam(params, amsgrad=True)
    run(optimizer, params, range(1))
    with pytest.raises(KernelError, match="amsgrad"):
        FusedAdam(params).load_state_dict(optimizer.state_dict())


def test_bad_settings_are_named() -> None:
    params = parameters()
    with pytest.raises(KernelError, match="lr=-1"):
        run(FusedAdam(params, lr=-1.0), params, range(1))
