"""Winograd's convolution on a CPU: within its bound of fp64, on any number of threads, taken where it wins."""

from __future__ import annotations

import functools
from collections.abc import Callable
from fractions import Fraction

import contract
import pytest
import torch
from levels import run_at_level
from modulated_conv2d.layers import SETTINGS, Shape, clear, inputs, layer
from torch import Tensor
from torch.nn import functional as F

from guide_fast.kernels import KernelError, _dispatch, _extension, modulated_conv2d
from guide_fast.kernels.modulated_conv2d import _operator, _winograd_cpu
from guide_fast.kernels.modulated_conv2d.modulated_conv2d import ACTIVATIONS

# With more tiles than output channels the transformed weight is kept whole, else the transformed input.
SHAPES = {
    "one": Shape(1, 2, 1, 1, 1, 3, 1),
    "odd": Shape(2, 5, 7, 6, 3, 3, 1),
    "deep": Shape(1, 70, 18, 3, 5, 3, 1),
    "panels": Shape(1, 19, 133, 9, 6, 3, 1),
    "tiles": Shape(3, 17, 5, 13, 30, 3, 1),
    "row": Shape(1, 16, 16, 1, 33, 3, 1),
    "whole": Shape(1, 32, 64, 8, 12, 3, 1),
    "blocks": Shape(1, 33, 67, 31, 33, 3, 1),
}
ACCURACY = 1e-5  # of the largest value; README.md derives the bound
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "as published": lambda weight: weight,
    "channels last": lambda weight: weight.contiguous(memory_format=torch.channels_last),
    "strided": lambda weight: torch.stack((weight, weight), dim=-1)[..., 0],
}


@pytest.fixture(autouse=True)
def extension() -> None:
    contract.require_extension()


def nhwc(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def winograd(
    x: Tensor,
    weight: Tensor,
    style: Tensor,
    noise: Tensor | None = None,
    bias: Tensor | None = None,
    next_style: Tensor | None = None,
    *,
    demodulate: bool = True,
    premodulated: bool = False,
    activation: str = "lrelu",
    gain: float | None = None,
    clamp: float | None = None,
) -> Tensor:
    """The raw operator, whatever "auto" would take."""
    gain = ACTIVATIONS[activation] if gain is None else gain
    settings = (1, demodulate, premodulated, activation, 0.2, gain, -1.0 if clamp is None else clamp, "winograd_cpu")
    return torch.ops.guide_fast.modulated_conv2d(nhwc(x), weight, style, noise, bias, next_style, *settings)[0]


def assert_close(got: Tensor, exact: Tensor, accuracy: float = ACCURACY) -> None:
    assert got.shape == exact.shape and not got.isnan().any()
    error, largest = (got.double() - exact).abs().max().item(), exact.abs().max().item()
    assert error <= accuracy * largest, (
        f"off by {error:.3g}; {accuracy} of the largest value, {largest:.3g}, is allowed"
    )


def test_assert_close_can_fail() -> None:
    for wrong in (torch.tensor([1.0, 2.0001]), torch.tensor([1.0, float("nan")])):
        with pytest.raises(AssertionError):
            assert_close(wrong, torch.tensor([1.0, 2.0]).double())


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_output_with_gradients_is_close_to_fp64(shape: Shape, settings: dict[str, object]) -> None:
    tensors = inputs(shape, torch.float32)
    settings = clear(settings, shape, tensors)
    exact = contract.gradients(layer("reference", shape, **settings), [t.double() for t in tensors])
    with _dispatch.poisoned_outputs():
        got = contract.gradients(lambda *t: winograd(*t, **settings), tensors)
    assert_close(got[0], exact[0])
    for gradient, wanted in zip(got[1], exact[1], strict=True):
        assert_close(gradient, wanted)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["odd", "panels", "tiles", "whole"])
def test_layout_of_the_weight_does_not_show(name: str, layout: str) -> None:
    x, weight, *rest = inputs(SHAPES[name], torch.float32)
    plain = functools.partial(winograd, demodulate=False)  # the sums of W^2 have another order
    wanted = contract.gradients(plain, [x, weight, *rest])
    got = contract.gradients(plain, [x, LAYOUTS[layout](weight), *rest])
    assert torch.equal(got[0], wanted[0])
    assert torch.equal(got[1][0], wanted[1][0])


@pytest.mark.parametrize("name", ["one", "odd", "panels", "tiles"])
def test_noise_bias_next_style_may_be_there_or_not(name: str) -> None:
    shape = SHAPES[name]
    x, weight, style, noise, bias = inputs(shape, torch.float32)
    following = torch.randn(shape.n, shape.o, generator=torch.Generator().manual_seed(2))
    for options in ({}, {"noise": noise}, {"bias": bias}, {"noise": noise, "bias": bias, "next_style": following}):
        wide = {key: value.double() for key, value in options.items()}
        exact = modulated_conv2d(x.double(), weight.double(), style.double(), **wide, impl="reference")
        with _dispatch.poisoned_outputs():
            assert_close(winograd(x, weight, style, **options), exact)


@pytest.mark.parametrize("level", ["base", "v3"])
def test_lower_instruction_set_is_as_close(level: str) -> None:
    tests = "test_output_with_gradients or test_layout_of_the_weight"
    run_at_level(level, "modulated_conv2d", tests, "_winograd")


def exact_transforms() -> tuple[Tensor, Tensor, Tensor]:
    """A^T, G, B^T in fp64, for the points 0, +-sqrt(2), +-sqrt(1/2), infinity: Lagrange's polynomials."""
    points = [0.0, 2**0.5, -(2**0.5), 0.5**0.5, -(0.5**0.5)]
    at, g, bt = (torch.zeros(rows, columns, dtype=torch.float64) for rows, columns in ((4, 6), (6, 3), (6, 6)))
    for j, p in enumerate(points):
        others = [q for q in points if q != p]
        polynomial = torch.ones(1, dtype=torch.float64)
        for q in others:
            polynomial = F.pad(polynomial, (1, 0)) - q * F.pad(polynomial, (0, 1))
        scale = torch.tensor([p - q for q in others], dtype=torch.float64).prod()
        at[:, j] = torch.tensor([p**i for i in range(4)], dtype=torch.float64)
        g[j] = torch.tensor([p**i for i in range(3)], dtype=torch.float64) / scale
        bt[j, :5] = polynomial
    at[3, 5] = g[5, 2] = 1
    bt[5] = torch.tensor([float(Fraction(c)) for c in ("0", "1", "0", "-5/2", "0", "1")], dtype=torch.float64)
    return at, g, bt


def twice(matrix: Tensor, tiles: Tensor) -> Tensor:
    """Along the last two dimensions."""
    return torch.einsum("ap,...pq,bq->...ab", matrix, tiles, matrix)


def by_tiles(x: Tensor, weight: Tensor, matrices: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """The algorithm, with any matrices, for sizes that 4 divides."""
    at, g, bt = matrices
    n, _, h, w = x.shape
    tiles = F.pad(x, (1, 1, 1, 1)).unfold(2, 6, 4).unfold(3, 6, 4)  # [N, I, H / 4, W / 4, 6, 6]
    products = torch.einsum("oiab,niyxab->noyxab", twice(g, weight), twice(bt, tiles))
    return twice(at, products).permute(0, 1, 2, 4, 3, 5).reshape(n, -1, h, w)


def test_transforms_are_a_convolution() -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, 8, 12, generator=random, dtype=torch.float64)
    weight = torch.randn(2, 3, 3, 3, generator=random, dtype=torch.float64)
    torch.testing.assert_close(by_tiles(x, weight, exact_transforms()), F.conv2d(x, weight, padding=1))


@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_error_is_within_the_bound_of_the_readme(offset: float) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(1, 48, 16, 16, generator=random) + offset
    weight = torch.randn(24, 48, 3, 3, generator=random)
    got = winograd(x, weight, torch.ones(1, 48), demodulate=False, activation="linear", gain=1.0)
    error = (got.double() - F.conv2d(x.double(), weight.double(), padding=1)).abs()
    sizes = tuple(matrix.abs() for matrix in exact_transforms())
    bound = (48 + 40) * 2.0**-24 * by_tiles(x.abs().double(), weight.abs().double(), sizes)
    assert (error <= bound).all()
    assert error.max() > 0


@pytest.mark.parametrize("name", ["panels", "tiles", "blocks"])
def test_results_are_the_same_on_any_number_of_threads(name: str) -> None:
    tensors = inputs(SHAPES[name], torch.float32)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y, gradients = contract.gradients(winograd, tensors)
            found.append([y, gradients[0]])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("channels", [3, 40])
def test_what_is_no_number_spreads_over_the_tiles_that_see_it(channels: int) -> None:
    x, weight = torch.ones(1, 2, 16, 16), torch.ones(channels, 2, 3, 3)
    x[0, 0, 5, 9] = float("nan")  # inside the tile of rows 4 to 7, columns 8 to 11
    seen = winograd(x, weight, torch.ones(1, 2)).isnan()
    assert seen[..., 4:8, 8:12].all() and seen.sum() == channels * 16


def test_two_layers_hand_the_style_on() -> None:
    shape = SHAPES["panels"]
    x, weight, style, noise, bias = inputs(shape, torch.float32)
    second, style_2 = torch.randn(4, shape.o, 3, 3), torch.randn(1, shape.o)
    apart = winograd(winograd(x, weight, style, noise, bias), second, style_2)
    first = winograd(x, weight, style, noise, bias, style_2)
    torch.testing.assert_close(winograd(first, second, style_2, premodulated=True), apart, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("wanted", range(5))
def test_each_gradient_can_be_asked_for_alone(wanted: int) -> None:
    tensors = inputs(SHAPES["odd"], torch.float32)
    _, all_of_them = contract.gradients(winograd, tensors)
    leaves = [t.clone().requires_grad_(i == wanted) for i, t in enumerate(tensors)]
    y = winograd(*leaves)
    gy = torch.randn(y.shape, generator=torch.Generator().manual_seed(99), dtype=torch.float64).to(y)
    torch.testing.assert_close(torch.autograd.grad(y, leaves[wanted], gy)[0], all_of_them[wanted])


# x [N, I, H, W], O -> what "auto" takes
CHOICES = [
    ((1, 512, 8, 8), 512, "winograd_cpu"),
    ((4, 64, 4, 4), 64, "winograd_cpu"),
    ((1, 16, 9, 9), 16, "winograd_cpu"),
    ((1, 512, 4, 4), 512, "dense_cpu"),
    ((1, 512, 7, 7), 512, "dense_cpu"),
    ((1, 3, 64, 64), 32, "dense_cpu"),
    ((1, 64, 64, 64), 8, "dense_cpu"),
    ((1, 64, 1, 256), 64, "dense_cpu"),
    ((9, 64, 5, 5), 64, "dense_cpu"),
]


@pytest.mark.parametrize(("size", "out", "taken"), CHOICES)
def test_auto_takes_it_where_it_wins(
    size: tuple[int, ...], out: int, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    for name in ("dense_cpu", "winograd_cpu"):
        own = _operator.BACKENDS[name]
        spied = _operator.Backend(lambda *a, name=name, own=own: (calls.append(name), own.forward(*a))[1], own.backward)
        monkeypatch.setitem(_operator.BACKENDS, name, spied)
    x, weight, style = torch.randn(size), torch.randn(out, size[1], 3, 3), torch.randn(size[:2])
    modulated_conv2d(x, weight, style)
    monkeypatch.setattr(_extension, "winograd", lambda: False)
    modulated_conv2d(x, weight, style)
    modulated_conv2d(x, weight[..., :1, :1], style)
    assert calls == [taken, "dense_cpu", "dense_cpu"]


def test_up_sampling_and_1x1_kernels_are_not_its_task() -> None:
    x, weight, style = torch.randn(1, 16, 8, 8), torch.randn(16, 16, 3, 3), torch.randn(1, 16)
    assert _operator.fastest_on_cpu(x, weight, 1) == "winograd_cpu"
    assert _operator.fastest_on_cpu(x, weight, 2) == "dense_cpu"
    assert _operator.fastest_on_cpu(x, weight[..., :1, :1], 1) == "dense_cpu"
    with pytest.raises(KernelError, match=r"not \(16, 16, 1, 1\) with up=1; use 'auto'"):
        winograd(x, weight[..., :1, :1], style)


@pytest.mark.parametrize(("value", "on"), [(None, True), ("", True), ("1", True), ("0", False)])
def test_environment_turns_it_off(value: str | None, on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GUIDE_FAST_WINOGRAD", raising=False)
    if value is not None:
        monkeypatch.setenv("GUIDE_FAST_WINOGRAD", value)
    assert _extension.winograd() == on


def test_auto_compiles_with_it_without_a_graph_break() -> None:
    x, weight, style = torch.randn(1, 16, 9, 9), torch.randn(16, 16, 3, 3), torch.randn(1, 16)
    compiled = torch.compile(lambda t: modulated_conv2d(t, weight, style), fullgraph=True, backend="aot_eager")
    (want, (gradient,)), (got, (through,)) = (
        contract.gradients(f, [x]) for f in (lambda t: modulated_conv2d(t, weight, style), compiled)
    )
    assert torch.equal(got, want) and torch.equal(through, gradient)


def test_gradient_of_the_input_is_the_adjoint() -> None:
    random = torch.Generator().manual_seed(0)
    x, g = (torch.randn(2, c, 9, 7, generator=random, dtype=torch.float64) for c in (19, 23))
    weight = torch.randn(23, 19, 3, 3, generator=random)
    wanted = torch.autograd.grad(F.conv2d(x.requires_grad_(), weight.double(), padding=1), x, g)[0]
    assert_close(_winograd_cpu.input_gradient(nhwc(g.float()), weight), wanted)
