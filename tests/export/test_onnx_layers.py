"""Layers for graphs compute what the generators' layers compute, and name what they keep."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import seeded
from torch import Tensor, nn

from guide_fast.export.onnx_layers import (
    Affine,
    ModulatedConv,
    Truncation,
    Weights,
    fir,
    initializers,
    normalised,
)
from guide_fast.kernels.modulated_conv2d.modulated_conv2d_reference import modulated_conv2d_reference


def weights(half: bool = False, **tensors: Tensor) -> Weights:
    return Weights({name.replace("_", "."): value.numpy() for name, value in tensors.items()}, half=half)


def reference(x: Tensor, weight: Tensor, style: Tensor, up: int, gain: float) -> Tensor:
    plain = {"noise": None, "bias": None, "next_style": None, "premodulated": False, "clamp": None}
    return modulated_conv2d_reference(x, weight, style, up=up, demodulate=True, activation="linear", gain=gain, **plain)


@pytest.mark.parametrize("up", [1, 2])
def test_modulated_convolution_agrees_with_the_operation(up: int) -> None:
    x, weight, style = seeded(3, 5, 7, 6, seed=1), seeded(4, 5, 3, 3, seed=2), seeded(3, 5, seed=3)
    layer = ModulatedConv(weights(a_weight=weight), "a", up=up, gain=0.7)
    assert torch.allclose(layer(x, style), reference(x, weight, style, up, 0.7), atol=2e-6)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
def test_half_precision_neither_overflows_nor_vanishes(scale: float) -> None:
    x, weight, style = (
        seeded(2, 64, 9, 9, seed=1) * 30,
        seeded(8, 64, 3, 3, seed=2) * scale,
        seeded(2, 64, seed=3) * scale,
    )
    exact = reference(x, weight, style, 1, 1.0)
    found = ModulatedConv(weights(half=True, a_weight=weight), "a")(x.half(), style)
    assert found.dtype == torch.float16
    assert (found.float() - exact).abs().max() <= 3e-3 * (exact.max() - exact.min())


def test_half_precision_takes_a_style_of_zeros() -> None:
    layer = ModulatedConv(weights(half=True, a_weight=seeded(4, 5, 3, 3, seed=2)), "a")
    assert torch.equal(layer(torch.ones(1, 5, 4, 4).half(), torch.zeros(1, 5)), torch.zeros(1, 4, 4, 4).half())


def test_fir_is_the_filter_along_one_axis() -> None:
    z = seeded(1, 1, 4, 11, seed=4)
    kernel = torch.tensor([1.0, 3.0, 3.0, 1.0]).div(4).reshape(1, 1, 1, 4)
    assert torch.allclose(fir(z, 3, 8), torch.nn.functional.conv2d(z, kernel), atol=1e-6)


def test_truncation_draws_every_sample_by_its_own_psi() -> None:
    mean, w = seeded(6, seed=1), seeded(3, 6, seed=2)
    ws = Truncation(weights(mean=mean), "mean", 4)(w, torch.tensor([1.0, 0.5, 0.0]))
    assert ws.shape == (3, 4, 6)
    assert torch.allclose(ws[0], w[0].expand(4, 6), atol=1e-6)
    assert torch.allclose(ws[1], ((mean + w[1]) / 2).expand(4, 6), atol=1e-6)
    assert torch.equal(ws[2], mean.expand(4, 6))


def test_rows_are_normalised() -> None:
    assert torch.allclose(normalised(seeded(3, 64, seed=1)).square().mean(1), torch.ones(3), atol=1e-5)


def test_initializers_are_told_by_path_name_rule() -> None:
    tensors = weights(
        half=True, a_weight=seeded(4, 5, 3, 3, seed=2), b_weight=seeded(2, 3, seed=1), b_bias=seeded(2, seed=0)
    )
    module = nn.Module()
    module.conv, module.dense = ModulatedConv(tensors, "a", up=2), Affine(tensors, "b", gain=0.5)
    found = {path: (name, rule.rule, rule.dtype) for path, name, rule in initializers(module)}
    assert found == {
        "conv.weight": ("a.weight", "swapped", "float16"),
        "conv.power": ("a.weight.sum_of_squares", "sum_of_squares", "float32"),
        "dense.weight": ("b.weight", "as_is", "float32"),
        "dense.bias": ("b.bias", "as_is", "float32"),
    }
    for path, _, rule in initializers(module):
        assert np.array_equal(module.get_buffer(path).numpy(), rule.value(tensors.tensors))
