"""modulated_conv2d: every implementation against the reference, its semantics, bad input."""

from __future__ import annotations

import contract
import pytest
import torch
from modulated_conv2d.layers import SETTINGS, SHAPES, Shape, clear, inputs, layer
from torch import Tensor
from torch.nn import functional as F

from guide_fast.kernels import ImplementationUnavailable, KernelError, _dispatch, modulated_conv2d, separable_conv2d
from guide_fast.kernels.modulated_conv2d import _operator
from guide_fast.kernels.modulated_conv2d.modulated_conv2d_reference import fir, power, transposed


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("k", [1, 3])
def test_reference_gradients_match_finite_differences(k: int, up: int, settings: dict) -> None:
    shape = Shape(2, 3, 2, 3, 2, k, up)
    contract.assert_gradcheck(layer("reference", shape, **settings), inputs(shape, torch.float64))


# every shape in every dtype; the settings beside the plain layer's in half precision on two shapes only, for time
CASES = [
    pytest.param(dtype, shape, settings, id=f"{_dispatch.name_of(dtype)}-{name}-{kind}")
    for dtype in contract.DTYPES
    for name, shape in SHAPES.items()
    for kind, settings in SETTINGS.items()
    if kind == "layer" or dtype == torch.float32 or name in ("odd", "up")
]


@pytest.mark.parametrize("impl", contract.implementations("triton", "cuda"))
@pytest.mark.parametrize(("dtype", "shape", "settings"), CASES)
def test_implementation_matches_the_reference(impl: str, dtype: torch.dtype, shape: Shape, settings: dict) -> None:
    tensors = inputs(shape, dtype, contract.DEVICE)
    settings = clear(settings, shape, tensors)
    contract.assert_matches(layer(impl, shape, **settings), layer("reference", shape, **settings), tensors)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_cpu_path_matches_the_reference(shape: Shape, settings: dict) -> None:
    contract.require_extension()
    tensors = inputs(shape, torch.float32)
    settings = clear(settings, shape, tensors)
    contract.assert_matches(layer("cpu", shape, **settings), layer("reference", shape, **settings), tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["odd", "up"])
def test_dense_convolution_with_fused_epilogue_matches_the_reference(name: str, dtype: torch.dtype) -> None:
    shape = SHAPES[name]

    def dense(x: Tensor, weight: Tensor, style: Tensor, noise: Tensor, bias: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        settings = (shape.up, True, False, "lrelu", 0.2, 1.5, 2.0)
        return torch.ops.guide_fast.modulated_conv2d(x, weight, style, noise, bias, None, *settings, "dense")[0]

    # small enough for fp16 without the door's normalisation
    contract.assert_matches(
        dense, layer("reference", shape, gain=1.5, clamp=2.0), inputs(shape, dtype, contract.DEVICE)
    )


@pytest.mark.parametrize("impl", [*contract.implementations("triton", "cuda", "cpu"), "reference"])
@pytest.mark.parametrize("up", [1, 2])
def test_next_style_is_a_product_whether_fused_or_not(impl: str, up: int) -> None:
    if impl == "cpu":
        contract.require_extension()
    shape = Shape(2, 5, 7, 4, 3, 3, up)
    x, weight, style, noise, bias = inputs(shape, torch.float32, contract.DEVICE if impl != "cpu" else "cpu")
    following = torch.randn(2, 7, generator=torch.Generator().manual_seed(3)).to(x)
    arguments = {"noise": noise, "bias": bias, "up": up, "impl": impl}
    plain = modulated_conv2d(x, weight, style, **arguments) * following[:, :, None, None]
    torch.testing.assert_close(modulated_conv2d(x, weight, style, next_style=following, **arguments), plain)
    following.requires_grad_()
    recorded = modulated_conv2d(x, weight, style, next_style=following, **arguments)
    torch.testing.assert_close(recorded.detach(), plain)
    (gradient,) = torch.autograd.grad(recorded.sum(), following)
    assert gradient.abs().min() > 0


@pytest.mark.parametrize("impl", [*contract.implementations("triton", "cuda"), "reference"])
@pytest.mark.parametrize("up", [1, 2])
def test_two_layers_hand_the_style_on(impl: str, up: int) -> None:
    shape = Shape(1, 5, 6, 4, 3, 3, up)
    x, weight, style, noise, bias = inputs(shape, torch.float32, contract.DEVICE)
    second, style_2 = torch.randn(4, 6, 3, 3, device=x.device), torch.randn(1, 6, device=x.device)
    apart = modulated_conv2d(modulated_conv2d(x, weight, style, up=up, impl=impl), second, style_2, impl=impl)
    first = modulated_conv2d(x, weight, style, up=up, next_style=style_2, impl=impl)
    torch.testing.assert_close(modulated_conv2d(first, second, style_2, premodulated=True, impl=impl), apart)


@pytest.mark.parametrize("impl", contract.implementations("triton", "cuda"))
@pytest.mark.parametrize("wanted", range(5), ids=["x", "weight", "style", "noise", "bias"])
@pytest.mark.parametrize("premodulated", [False, True])
def test_each_gradient_alone_is_the_same(impl: str, wanted: int, premodulated: bool) -> None:
    shape = Shape(2, 3, 2, 2, 3, 3, 2)
    tensors = inputs(shape, torch.float32, contract.DEVICE)
    _, all_of_them = contract.gradients(layer(impl, shape, premodulated=premodulated), tensors)
    leaves = [t.detach().requires_grad_(i == wanted) for i, t in enumerate(tensors)]
    with _dispatch.poisoned_outputs():
        out = layer(impl, shape, premodulated=premodulated)(*leaves)
        gy = torch.randn(out.shape, generator=torch.Generator().manual_seed(99), dtype=torch.float64).to(out)
        (alone,) = torch.autograd.grad(out, leaves[wanted], gy)
    torch.testing.assert_close(alone, all_of_them[wanted])


def test_frozen_weight_runs_no_weight_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    from guide_fast.kernels.modulated_conv2d import modulated_conv2d_triton

    def fails(*_: object) -> Tensor:
        raise AssertionError("the weight is frozen")

    monkeypatch.setattr(modulated_conv2d_triton, "weight_gradient", fails)
    x, weight, style, _, _ = inputs(SHAPES["odd"], torch.float32, contract.DEVICE)
    modulated_conv2d(x.requires_grad_(), weight, style.requires_grad_(), impl="triton").sum().backward()
    assert x.grad is not None and style.grad is not None


@pytest.mark.parametrize("k", [1, 3])
def test_up_sampling_is_the_polyphase_form(k: int) -> None:
    # four kernels with the FIR folded in: the oracle shares no code with the reference
    random = torch.Generator().manual_seed(4)
    x = torch.randn(1, 3, 5, 4, generator=random, dtype=torch.float64)
    weight = torch.randn(2, 3, k, k, generator=random, dtype=torch.float64)
    taps = torch.tensor([0.25, 0.75, 0.75, 0.25], dtype=torch.float64)
    full = F.conv2d(weight.reshape(-1, 1, k, k), torch.outer(taps, taps)[None, None], padding=3)  # their convolution
    full = full.reshape(2, 3, k + 3, k + 3)
    start = 2 if k == 1 else 1  # zeros that the FIR sees before the first row
    want = torch.zeros(1, 2, 10, 8, dtype=torch.float64)
    for y in range(10):
        for i in range(8):
            for a in range(k + 3):
                for b in range(k + 3):
                    # output row = 2 * input row + tap - (3 - start)
                    row, column = y - a + 3 - start, i - b + 3 - start
                    if row % 2 == column % 2 == 0 and 0 <= row < 10 and 0 <= column < 8:
                        want[0, :, y, i] += full[:, :, a, b] @ x[0, :, row // 2, column // 2]
    torch.testing.assert_close(fir(transposed(x, weight), k), want)


def test_up_sampling_keeps_a_constant() -> None:
    x, weight = torch.ones(1, 1, 8, 8), torch.ones(1, 1, 1, 1)
    inside = fir(transposed(x, weight), 1)[..., 2:-2, 2:-2]
    torch.testing.assert_close(inside, torch.ones_like(inside))


def test_demodulation_gives_unit_variance_weights() -> None:
    _, weight, style, _, _ = inputs(SHAPES["odd"], torch.float64)
    modulated = weight[None] * style[:, None, :, None, None]
    want = (modulated.square().sum(dim=(2, 3, 4)) + 1e-8).rsqrt()
    torch.testing.assert_close((style.square() @ power(weight).T + 1e-8).rsqrt(), want)


@pytest.mark.parametrize("impl", [*contract.implementations("triton", "cuda"), "reference"])
def test_half_precision_does_not_overflow(impl: str) -> None:
    shape = SHAPES["odd"]
    x, weight, style, _, _ = inputs(shape, torch.float16, contract.DEVICE)
    plain = modulated_conv2d(x, weight, style, impl=impl)
    large = modulated_conv2d(x, weight * 2048, style * 1024, impl=impl)
    assert torch.equal(plain, large)  # powers of two, so to the bit


def test_cpu_and_half_precision_convert_under_auto() -> None:
    x, weight, style, noise, bias = inputs(SHAPES["odd"], torch.bfloat16)
    got = modulated_conv2d(x, weight, style, noise=noise, bias=bias)
    wide = modulated_conv2d(*(t.float() for t in (x, weight, style)), noise=noise.float(), bias=bias.float())
    assert got.dtype == torch.bfloat16 and torch.equal(got, wide.bfloat16())


def test_kernels_return_nhwc() -> None:
    x, weight, style, _, _ = inputs(SHAPES["odd"], torch.float32, contract.DEVICE)
    y = modulated_conv2d(x, weight, style, impl="triton")
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_weight_in_channels_last_is_not_copied() -> None:
    from guide_fast.kernels.modulated_conv2d import modulated_conv2d_triton

    weight = torch.randn(4, 5, 3, 3).contiguous(memory_format=torch.channels_last)
    x, style = torch.randn(1, 5, 4, 4, device=contract.DEVICE), torch.randn(1, 5, device=contract.DEVICE)
    assert modulated_conv2d_triton.packed(weight).data_ptr() == weight.data_ptr()
    weight = weight.to(contract.DEVICE)
    got = modulated_conv2d(x, weight, style, impl="triton")
    torch.testing.assert_close(got, modulated_conv2d(x, weight.contiguous(), style, impl="reference"))


@pytest.mark.parametrize("up", [1, 2])
def test_operator_keeps_torch_library_rules(up: int) -> None:
    contract.require_extension()
    x, weight, style, noise, bias = inputs(Shape(1, 2, 2, 1, 2, 3, up), torch.float32)
    x = x.contiguous(memory_format=torch.channels_last)
    settings = (up, True, False, "lrelu", 0.2, 1.5, 0.5, "cpu")
    leaves = [t.requires_grad_() for t in (x, weight, style, noise, bias)]
    torch.library.opcheck(torch.ops.guide_fast.modulated_conv2d, (*leaves, None, *settings))
    y, demod = torch.ops.guide_fast.modulated_conv2d(*leaves, None, *settings)
    plain = [t.detach() for t in (torch.ones_like(y), y, demod, *leaves)]
    needs = [True, False, True, False, True]
    torch.library.opcheck(torch.ops.guide_fast.modulated_conv2d_backward, (*plain, *settings[:-1], needs, settings[-1]))


def test_pointwise_weight_hands_over_to_the_separable_operation() -> None:
    random = torch.Generator().manual_seed(3)
    sizes = ((2, 4, 6, 5), (4, 1, 3, 3), (3, 4, 1, 1), (2, 4), (3,), (1, 1, 6, 5), (2, 3))
    x, depthwise, pointwise, style, bias, noise, later = (torch.randn(size, generator=random) for size in sizes)
    settings = {"noise": noise, "bias": bias, "gain": 1.5, "clamp": 2.0, "next_style": later}
    given = modulated_conv2d(x, depthwise, style, pointwise=pointwise, demodulate=False, **settings)
    assert torch.equal(given, separable_conv2d(x, depthwise, pointwise, style, **settings))


@pytest.mark.parametrize("impl", ["auto", "cpu"])
def test_compiles_without_a_graph_break(impl: str, monkeypatch: pytest.MonkeyPatch) -> None:
    contract.require_extension()
    monkeypatch.setattr(_dispatch, "_refuses", lambda *_: None)
    x, weight, style, noise, bias = inputs(SHAPES["up"], torch.float32)

    def call(x: Tensor) -> Tensor:
        return modulated_conv2d(x, weight, style, noise=noise, bias=bias, up=2, clamp=1.0, impl=impl)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    (want, (gradient,)), (got, (through,)) = (contract.gradients(f, [x]) for f in (call, compiled))
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(through, gradient)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": torch.zeros(2, 3)}, "rank 2"),
        ({"x": torch.zeros(0, 3, 4, 5)}, "empty"),
        ({"x": torch.zeros(2, 3, 4, 5, dtype=torch.int64)}, "int64"),
        ({"weight": torch.zeros(6, 4, 3, 3)}, r"\(6, 4, 3, 3\)"),
        ({"weight": torch.zeros(6, 3, 5, 5)}, r"\(6, 3, 5, 5\)"),
        ({"weight": torch.zeros(6, 3, 3, 1)}, r"\(6, 3, 3, 1\)"),
        ({"weight": torch.zeros(6, 3, 3, 3, device="meta")}, "meta"),
        ({"style": torch.zeros(1, 3)}, r"\(1, 3\)"),
        ({"style": torch.zeros(2, 3, dtype=torch.float16)}, "float16"),
        ({"noise": torch.zeros(2, 1, 8, 10)}, r"\(2, 1, 8, 10\)"),
        ({"noise": torch.zeros(3, 1, 4, 5)}, "batch of 3"),
        ({"bias": torch.zeros(3)}, r"\(3,\)"),
        ({"next_style": torch.zeros(2, 3)}, r"\(2, 3\)"),
        ({"up": 3}, "up=3"),
        ({"activation": "relu"}, "relu"),
        ({"gain": -1.0}, "gain=-1"),
        ({"clamp": -2.0}, "clamp=-2"),
        ({"impl": "fast"}, "fast"),
        ({"impl": "dense"}, "dense"),
        ({"pointwise": torch.zeros(6, 3, 1, 1)}, "demodulate=False"),
        ({"pointwise": torch.zeros(6, 3, 1, 1), "demodulate": False, "up": 2}, "up=1"),
    ],
)
def test_bad_input_is_named(change: dict, said: str) -> None:
    arguments = {"x": torch.zeros(2, 3, 4, 5), "weight": torch.zeros(6, 3, 3, 3), "style": torch.zeros(2, 3)} | change
    with pytest.raises(KernelError, match=said):
        modulated_conv2d(**arguments)


@pytest.mark.parametrize(
    ("impl", "dtype", "said"),
    [("cuda", torch.float32, "on cpu"), ("cpu", torch.float16, "float16"), ("triton", torch.float64, "float64")],
)
def test_implementation_that_cannot_run_says_why(impl: str, dtype: torch.dtype, said: str) -> None:
    tensors = [torch.zeros(shape, dtype=dtype) for shape in ((1, 1, 2, 2), (1, 1, 1, 1), (1, 1))]
    with pytest.raises(ImplementationUnavailable, match=said):
        modulated_conv2d(*tensors, impl=impl)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [Shape(2, 512, 512, 16, 16, 3, 1), Shape(1, 64, 32, 128, 128, 3, 2)], ids=str)
@pytest.mark.parametrize("impl", ["auto", "triton", "cuda"])
def test_full_size_layer_matches_the_reference(
    impl: str, dtype: torch.dtype, shape: Shape, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUIDE_FAST_HOME", str(tmp_path))
    contract.assert_matches(layer(impl, shape), layer("reference", shape), inputs(shape, dtype, contract.DEVICE))


def test_fused_next_style_refuses_a_recorded_gradient() -> None:
    x, weight, style, noise, bias = inputs(Shape(1, 3, 2, 2, 3, 3, 1), torch.float32, contract.DEVICE)
    x = x.contiguous(memory_format=torch.channels_last)
    following = torch.ones(1, 2, device=x.device)
    settings = (1, True, False, "lrelu", 0.2, 1.5, -1.0, "triton")
    with pytest.raises(RuntimeError, match="inference"):
        torch.ops.guide_fast.modulated_conv2d(x.requires_grad_(), weight, style, noise, bias, following, *settings)


def test_operator_module_has_every_backend() -> None:
    assert set(_operator.BACKENDS) == {"triton", "cuda", "cpu", "dense", "dense_cpu", "winograd_cpu"}
