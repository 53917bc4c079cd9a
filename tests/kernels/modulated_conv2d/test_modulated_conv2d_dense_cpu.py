"""On a CPU "auto" is PyTorch's convolution between native passes: as exact as the reference, in any memory layout."""

from __future__ import annotations

from collections.abc import Callable

import contract
import pytest
import torch
from modulated_conv2d.layers import SETTINGS, SHAPES, Shape, clear, inputs, layer
from torch import Tensor

from guide_fast.kernels import modulated_conv2d
from guide_fast.kernels.modulated_conv2d import _operator
from guide_fast.kernels.modulated_conv2d.modulated_conv2d_reference import power

LARGE = {"several parts": Shape(2, 3, 40, 48, 50, 3, 1), "folded": Shape(1, 4, 3, 12, 9, 3, 1)}
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "as published": lambda weight: weight,
    "channels last": lambda weight: weight.contiguous(memory_format=torch.channels_last),
    "transposed": lambda weight: weight.transpose(0, 1).contiguous(memory_format=torch.channels_last).transpose(0, 1),
    "strided": lambda weight: torch.stack((weight, weight), dim=-1)[..., 0],
}


@pytest.fixture(autouse=True)
def extension() -> None:
    contract.require_extension()


def test_auto_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    dense = _operator.BACKENDS["dense_cpu"]
    spied = _operator.Backend(lambda *a: (taken.append("dense_cpu"), dense.forward(*a))[1], dense.backward)
    monkeypatch.setitem(_operator.BACKENDS, "dense_cpu", spied)
    x, weight, style, *_ = inputs(SHAPES["odd"], torch.float32)
    modulated_conv2d(x, weight, style)
    assert taken == ["dense_cpu"]
    modulated_conv2d(x, weight, style, impl="reference")
    modulated_conv2d(x.double(), weight.double(), style.double())
    assert taken == ["dense_cpu"]


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("shape", [*SHAPES.values(), *LARGE.values()], ids=str)
def test_output_with_gradients_is_as_exact_as_the_reference(shape: Shape, settings: dict[str, object]) -> None:
    tensors = inputs(shape, torch.float32)
    settings = clear(settings, shape, tensors)
    contract.assert_matches(layer("auto", shape, **settings), layer("reference", shape, **settings), tensors)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [SHAPES["odd"], SHAPES["up"], SHAPES["point"]], ids=str)
def test_layout_of_the_weight_does_not_show(shape: Shape, layout: str) -> None:
    x, weight, *rest = inputs(shape, torch.float32)
    tensors = [x, LAYOUTS[layout](weight), *rest]
    contract.assert_matches(layer("auto", shape), layer("reference", shape), tensors)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_power_is_the_sum_over_taps(layout: str) -> None:
    weight = LAYOUTS[layout](torch.randn(5, 300, 3, 3, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(_operator.power_of(weight), power(weight))


@pytest.mark.parametrize("shape", [SHAPES["odd"], SHAPES["up"], SHAPES["point"], LARGE["folded"]], ids=str)
def test_style_of_the_next_layer_is_multiplied_in(shape: Shape) -> None:
    x, weight, style, noise, bias = inputs(shape, torch.float32)
    following = torch.randn(shape.n, shape.o, generator=torch.Generator().manual_seed(2))
    options = {"noise": noise, "bias": bias, "next_style": following, "up": shape.up}
    got = modulated_conv2d(x, weight, style, **options)
    torch.testing.assert_close(got, modulated_conv2d(x, weight, style, **options, impl="reference"))


@pytest.mark.parametrize("wanted", range(5))
def test_each_gradient_can_be_asked_for_alone(wanted: int) -> None:
    tensors = inputs(SHAPES["up"], torch.float32)
    grads = []
    for impl in ("auto", "reference"):
        leaves = [t.clone().requires_grad_(i == wanted) for i, t in enumerate(tensors)]
        y = layer(impl, SHAPES["up"])(*leaves)
        grads.append(torch.autograd.grad(y.square().sum(), leaves[wanted])[0])
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-4)


def test_sums_are_the_same_on_any_number_of_threads() -> None:
    shape = LARGE["several parts"]
    tensors = inputs(shape, torch.float32)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            leaves = [t.clone().requires_grad_(i in (3, 4)) for i, t in enumerate(tensors)]  # noise, bias
            y = layer("auto", shape)(*leaves)
            found.append(torch.autograd.grad(y, leaves[3:], torch.ones_like(y)))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
