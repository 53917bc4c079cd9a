"""Inputs as users have them: strided, traced, under autocast, in forward mode."""

from __future__ import annotations

import copy

import contract
import pytest
import torch
from tiny import tiny_generator
from torch import Tensor

from guide_fast.kernels import FusedAdam, bias_act, fused_adam, haar, modulated_conv2d, separable_conv2d


def strided(*size: int) -> Tensor:
    """The same values as a contiguous tensor would hold, every second place of a larger one."""
    return torch.randn(*size, 2, generator=torch.Generator().manual_seed(len(size)))[..., 0]


@pytest.mark.parametrize("impl", ["auto", "cpu", "triton"])
def test_strided_vectors_are_read_with_their_strides(impl: str) -> None:
    contract.require_extension()
    x, style, bias, later = strided(2, 4, 6, 5), strided(2, 4), strided(3), strided(2, 3)
    weight, noise = strided(3, 4, 3, 3), strided(1, 1, 6, 5)
    for given, wanted in (
        (
            modulated_conv2d(x, weight, style, bias=bias, noise=noise, next_style=later, impl=impl),
            modulated_conv2d(x, weight, style, bias=bias, noise=noise, next_style=later, impl="reference"),
        ),
        (bias_act(x, strided(4), impl=impl), bias_act(x, strided(4), impl="reference")),
        (
            separable_conv2d(x, strided(4, 1, 3, 3), strided(3, 4, 1, 1), style, bias=bias, noise=noise, impl=impl),
            separable_conv2d(
                x, strided(4, 1, 3, 3), strided(3, 4, 1, 1), style, bias=bias, noise=noise, impl="reference"
            ),
        ),
    ):
        torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-4)


def test_large_outputs_can_be_traced() -> None:
    contract.require_extension()
    x = torch.randn(1, 32, 256, 256)
    compiled = torch.compile(lambda t: haar(t, impl="cpu") * 2, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x), haar(x, impl="cpu") * 2)


def test_forward_mode_is_not_silently_zero() -> None:
    x = torch.randn(1, 4, 3, 3)
    _, tangent = torch.func.jvp(haar, (x,), (torch.ones_like(x),))
    assert torch.equal(tangent, haar(torch.ones_like(x)))


def test_generator_renders_under_autocast() -> None:
    generator = tiny_generator()
    ws = generator.mapping(torch.randn(1, generator.z_dim))
    with torch.no_grad():
        plain = generator.synthesis(ws).image
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(generator.synthesis(ws).image, plain)


def test_parameters_of_two_dtypes_step_alike() -> None:
    contract.require_extension()
    params = [torch.ones(2), torch.ones(2, dtype=torch.float64)]
    zeros = [torch.zeros_like(p) for p in params]
    fused_adam(params, [torch.ones(2), torch.ones(2)], zeros, [torch.zeros_like(p) for p in params], step=1, lr=0.1)
    for p in params:
        torch.testing.assert_close(p.double(), torch.full((2,), 0.9, dtype=torch.float64), rtol=0, atol=1e-6)


def test_optimiser_steps_after_a_deep_copy() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    copied = copy.deepcopy(FusedAdam([parameter], lr=0.1))
    leaf = copied.param_groups[0]["params"][0]
    leaf.grad = torch.ones(3)
    copied.step()
    assert (leaf < 1).all()


def test_native_module_refuses_empty_arrays() -> None:
    contract.require_extension()
    from guide_fast import _native

    with pytest.raises(ValueError, match="empty"):
        _native.bias_act(torch.zeros(1, 0, 1, 1).numpy())
    with pytest.raises(ValueError, match="empty"):
        _native.haar(torch.zeros(1, 4, 0, 3).numpy())
