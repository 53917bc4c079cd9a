"""separable_conv2d: every implementation against the reference, threads, layouts, bad input."""

from __future__ import annotations

from typing import Any

import contract
import pytest
import torch
from levels import run_at_level
from torch import Tensor

from guide_fast.kernels import ImplementationUnavailable, KernelError, haar, separable_conv2d

# n, inputs, outputs, h, w of what the convolution reads, before the wavelet doubles it
SHAPES = {
    "one": (1, 1, 1, 1, 1),
    "odd": (2, 5, 7, 3, 5),
    "wide": (1, 128, 80, 4, 4),
    "tall": (1, 16, 12, 70, 3),
    "long": (3, 33, 20, 2, 37),
    "strips": (2, 48, 32, 36, 16),
}
NAMES = ("x", "depthwise", "pointwise", "style", "haar_style", "noise", "bias", "next_style")


def inputs(
    shape: tuple[int, ...], dtype: torch.dtype, *, nhwc: bool = False, up: bool = False, leave_out: str = ""
) -> dict[str, Tensor]:
    n, i, o, h, w = shape
    size = 2 if up else 1
    shapes = {
        "x": (n, size * size * i, h, w),
        "depthwise": (i, 1, 3, 3),
        "pointwise": (o, i, 1, 1),
        "style": (n, i),
        "haar_style": (n, 4 * i),
        "noise": (n if up else 1, 1, size * h, size * w),
        "bias": (o,),
        "next_style": (n, o),
    }
    random = torch.Generator().manual_seed(3)
    made = {}
    for name in NAMES:
        # multiples of 1/2, then 1/4: every sum is exact, so no value takes the other side of a kink
        value = (torch.randn(shapes[name], generator=random) * 2).round() / (4 if name == "pointwise" else 2)
        if name in leave_out.split() or (name == "haar_style" and not up):
            continue
        made[name] = (value + 2**-9 if name in ("noise", "bias") else value).to(contract.DEVICE, dtype)
    if nhwc:
        made["x"] = made["x"].contiguous(memory_format=torch.channels_last)
    return made


def by_name(names: list[str], **settings: Any):
    def function(*tensors: Tensor) -> Tensor:
        given = {"depthwise": None} | dict(zip(names, tensors, strict=True))
        return separable_conv2d(**given, **settings)

    return function


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("settings", [{}, {"clamp": 1.5, "gain": 1.3}, {"activation": "linear"}], ids=str)
def test_reference_gradients_match_finite_differences(up: bool, settings: dict[str, Any]) -> None:
    tensors = inputs((2, 3, 2, 2, 3), torch.float64, up=up)
    contract.assert_gradcheck(by_name([*tensors], impl="reference", **settings), [*tensors.values()])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("nhwc", [False, True])
@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("leave_out", ["", "noise next_style", "depthwise bias"])
def test_native_path_matches_the_reference(shape: tuple[int, ...], nhwc: bool, up: bool, leave_out: str) -> None:
    contract.require_extension()
    if contract.DEVICE != "cpu":
        pytest.skip("the inputs are on a GPU")
    settings = {"": {}, "noise next_style": {"clamp": 1.5, "gain": 1.3}}.get(leave_out, {"activation": "linear"})
    tensors = inputs(shape, torch.float32, nhwc=nhwc, up=up, leave_out=leave_out)
    contract.assert_matches(
        by_name([*tensors], impl="cpu", **settings),
        by_name([*tensors], impl="reference", **settings),
        [*tensors.values()],
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    tensors = inputs(SHAPES["odd"], dtype, up=True)
    y = separable_conv2d(**tensors)
    wide = separable_conv2d(**{name: t.float() for name, t in tensors.items()})
    assert y.dtype == dtype
    assert torch.equal(y, wide.to(dtype))


@pytest.mark.parametrize("level", ["base", "v3"])
def test_lower_instruction_sets_match_too(level: str) -> None:
    contract.require_extension()
    run_at_level(level, "separable_conv2d", "test_native_path_matches_the_reference and (odd or strips)")


@pytest.mark.parametrize("up", [False, True])
def test_number_of_threads_changes_no_bit(up: bool) -> None:
    contract.require_extension()
    tensors = inputs(SHAPES["strips"], torch.float32, nhwc=True, up=up)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y, grads = contract.gradients(by_name([*tensors]), [*tensors.values()])
            results.append([y, *grads])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("up", [False, True])
def test_each_gradient_alone_is_the_one_beside_the_others(up: bool) -> None:
    tensors = inputs(SHAPES["odd"], torch.float32, nhwc=True, up=up)
    _, together = contract.gradients(by_name([*tensors]), [*tensors.values()])
    for i, name in enumerate(tensors):
        others = {key: t for key, t in tensors.items() if key != name}
        _, (alone,) = contract.gradients(lambda t, n=name, o=others: separable_conv2d(**{n: t}, **o), [tensors[name]])
        assert torch.equal(alone, together[i]), name


def test_wavelet_inside_is_the_wavelet_before() -> None:
    tensors = inputs(SHAPES["strips"], torch.float32, nhwc=True, up=True)
    fused = separable_conv2d(**tensors)
    x, style = tensors.pop("x"), tensors.pop("haar_style")
    assert torch.allclose(fused, separable_conv2d(x=haar(x, style), **tensors), rtol=1e-4, atol=1e-4)


def test_style_of_the_next_layer_is_the_same_with_a_graph() -> None:
    tensors = inputs(SHAPES["odd"], torch.float32)
    with torch.no_grad():
        silent = separable_conv2d(**tensors)
    assert torch.equal(separable_conv2d(**{name: t.requires_grad_() for name, t in tensors.items()}), silent)


def test_layout_is_kept() -> None:
    tensors = inputs(SHAPES["wide"], torch.float32, nhwc=True)
    assert separable_conv2d(**tensors).is_contiguous(memory_format=torch.channels_last)


def test_not_a_number_passes() -> None:
    tensors = inputs(SHAPES["wide"], torch.float32, nhwc=True)
    tensors["x"][0, 0, 0, 0] = float("nan")
    y = separable_conv2d(clamp=1.0, **tensors)
    assert y[0, :, :2, :2].isnan().all()
    assert not y[0, :, 2:, 2:].isnan().any()


@pytest.mark.parametrize("up", [False, True])
def test_operator_keeps_torch_library_rules(up: bool) -> None:
    contract.require_extension()
    tensors = {name: t.cpu().requires_grad_() for name, t in inputs(SHAPES["odd"], torch.float32, up=up).items()}
    first = [tensors.get(n) for n in ("x", "haar_style", "depthwise", "pointwise", "style")]
    arguments = (*first, tensors["noise"], tensors["bias"], None, "lrelu", 0.2, 1.3, 2.0, "cpu")
    torch.library.opcheck(torch.ops.guide_fast.separable_conv2d, arguments)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": torch.zeros(2, 5)}, "rank 2"),
        ({"x": torch.zeros(0, 5, 3, 5)}, "empty"),
        ({"x": torch.zeros(2, 6, 3, 5)}, "6 channels"),
        ({"x": torch.zeros(2, 5, 3, 5, dtype=torch.int64)}, "int64"),
        ({"depthwise": torch.zeros(5, 1, 5, 5)}, r"\(5, 1, 5, 5\)"),
        ({"pointwise": torch.zeros(7, 5)}, "rank 2"),
        ({"pointwise": torch.zeros(7, 5, 3, 3)}, r"\(7, 5, 3, 3\)"),
        ({"style": torch.zeros(1, 5)}, r"\(1, 5\)"),
        ({"style": torch.zeros(2, 5, device="meta")}, "meta"),
        ({"haar_style": torch.zeros(2, 20)}, r"haar_style.*\(2, 20\)"),
        ({"haar_style": torch.zeros(2, 5)}, "5 channels; with haar_style pointwise takes 20"),
        ({"noise": torch.zeros(3, 1, 3, 5)}, "3 maps"),
        ({"bias": torch.zeros(7, dtype=torch.float16)}, "float16"),
        ({"next_style": torch.zeros(2, 5)}, r"\(2, 5\)"),
        ({"activation": "relu"}, "relu"),
        ({"gain": 0.0}, "gain=0"),
        ({"clamp": -1.0}, "clamp=-1"),
        ({"impl": "fast"}, "fast"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], said: str) -> None:
    arguments = {name: t.cpu() for name, t in inputs(SHAPES["odd"], torch.float32).items()} | change
    with pytest.raises(KernelError, match=said):
        separable_conv2d(**arguments)


def test_implementation_that_cannot_run_says_why() -> None:
    tensors = {name: t.cpu() for name, t in inputs(SHAPES["odd"], torch.float16).items()}
    with pytest.raises(ImplementationUnavailable, match="float16"):
        separable_conv2d(**tensors, impl="cpu")


@pytest.mark.parametrize("up", [False, True])
def test_native_module_computes_the_same_on_numpy_arrays(up: bool) -> None:
    contract.require_extension()
    from guide_fast import _native

    arrays = {name: t.cpu().numpy() for name, t in inputs(SHAPES["odd"], torch.float32, up=up).items()}
    y = _native.separable_conv2d(clamp=1.0, **arrays)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    assert torch.equal(torch.from_numpy(y), separable_conv2d(clamp=1.0, impl="cpu", **tensors))
    with pytest.raises(ValueError, match=r"bias does not have the shape \[7\]"):
        _native.separable_conv2d(**arrays | {"bias": arrays["bias"][:3]})
