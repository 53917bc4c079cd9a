"""bias_act: every implementation against the reference, bad input, the device maths."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path

import contract
import pytest
import torch
from torch import Tensor

from guide_fast.kernels import ImplementationUnavailable, KernelError, bias_act

SHAPES = {"one": (1, 1, 1, 1), "odd": (2, 5, 7, 3), "wide": (1, 64, 8, 8), "tall": (3, 3, 65, 17)}


def inputs(shape: tuple[int, ...], dtype: torch.dtype, *, nhwc: bool = False) -> list[Tensor]:
    random = torch.Generator().manual_seed(1)
    x = contract.on_a_grid(torch.randn(shape, generator=random), offset=1 / 16).to(contract.DEVICE, dtype)
    if nhwc:
        x = x.contiguous(memory_format=torch.channels_last)
    return [x, contract.on_a_grid(torch.randn(shape[1], generator=random)).to(x)]


@pytest.mark.parametrize("activation", ["lrelu", "linear"])
@pytest.mark.parametrize("clamp", [None, 0.7])
def test_reference_gradients_match_finite_differences(activation: str, clamp: float | None) -> None:
    contract.assert_gradcheck(
        lambda x, b: bias_act(x, b, activation=activation, clamp=clamp, impl="reference"),
        inputs(SHAPES["odd"], torch.float64),
    )


@pytest.mark.parametrize("impl", contract.implementations("triton", "cuda", "cpu"))
@pytest.mark.parametrize("dtype", contract.DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("nhwc", [False, True])
def test_implementation_matches_the_reference(
    impl: str, dtype: torch.dtype, shape: tuple[int, ...], nhwc: bool
) -> None:
    if impl == "cpu":
        contract.require_extension()
        if dtype != torch.float32:
            impl = "auto"  # converts
        if contract.DEVICE != "cpu":
            pytest.skip("the inputs are on a GPU")
    for settings in ({}, {"clamp": 0.5, "gain": 1.7}, {"activation": "linear"}):
        contract.assert_matches(
            lambda x, b, s=settings: bias_act(x, b, impl=impl, **s),
            lambda x, b, s=settings: bias_act(x, b, impl="reference", **s),
            inputs(shape, dtype, nhwc=nhwc),
        )


def test_no_bias_is_a_bias_of_zero() -> None:
    x, b = inputs(SHAPES["odd"], torch.float32)
    assert torch.equal(bias_act(x), bias_act(x, torch.zeros_like(b)))


def test_layout_is_kept() -> None:
    x, b = inputs(SHAPES["wide"], torch.float32, nhwc=True)
    assert bias_act(x, b).is_contiguous(memory_format=torch.channels_last)


def test_operator_keeps_torch_library_rules() -> None:
    contract.require_extension()
    x, b = (t.cpu().requires_grad_() for t in inputs(SHAPES["odd"], torch.float32))
    torch.library.opcheck(torch.ops.guide_fast.bias_act, (x, b, "lrelu", 0.2, 1.5, 0.5, "cpu"))
    torch.library.opcheck(torch.ops.guide_fast.bias_act, (x, None, "linear", 0.2, 1.0, -1.0, "cpu"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": torch.zeros(2, 3)}, "rank 2"),
        ({"x": torch.zeros(0, 5, 7, 3)}, "empty"),
        ({"x": torch.zeros(2, 5, 7, 3, dtype=torch.int32)}, "int32"),
        ({"bias": torch.zeros(4)}, r"\(4,\)"),
        ({"bias": torch.zeros(5, dtype=torch.float16)}, "float16"),
        ({"bias": torch.zeros(5, device="meta")}, "meta"),
        ({"activation": "relu"}, "relu"),
        ({"gain": 0.0}, "gain=0"),
        ({"clamp": -1.0}, "clamp=-1"),
        ({"impl": "fast"}, "fast"),
    ],
)
def test_bad_input_is_named(change: dict, said: str) -> None:
    arguments = {"x": torch.zeros(2, 5, 7, 3), "bias": torch.zeros(5)} | change
    with pytest.raises(KernelError, match=said):
        bias_act(arguments.pop("x"), arguments.pop("bias"), **arguments)


@pytest.mark.parametrize(
    ("impl", "dtype", "said"), [("cuda", torch.float32, "on cpu"), ("cpu", torch.float16, "float16")]
)
def test_implementation_that_cannot_run_says_why(impl: str, dtype: torch.dtype, said: str) -> None:
    with pytest.raises(ImplementationUnavailable, match=said):
        bias_act(torch.zeros(1, 1, 2, 2, dtype=dtype), impl=impl)


def test_device_maths_matches_python_to_the_bit(tmp_path: Path) -> None:
    code = """
    extern "C" float act(float x, float gain, float clamp) { return gf::activate(x, GF_LRELU, 0.2f, gain, clamp); }
    extern "C" float slope(float y, float gain, float clamp) {
      return gf::activate_slope(y, GF_LRELU, 0.2f, gain, clamp);
    }"""
    maths = contract.compile_header("bias_act.cuh", code, tmp_path)
    for name in ("act", "slope"):
        getattr(maths, name).argtypes = [ctypes.c_float] * 3
        getattr(maths, name).restype = ctypes.c_float
    for x in (-3.0, -0.0, 0.0, 0.1, 2.5, math.inf):
        for clamp in (-1.0, 0.5):
            t = torch.tensor(x)
            y = bias_act(t.reshape(1, 1, 1, 1), gain=1.5, clamp=None if clamp < 0 else clamp, impl="reference").item()
            assert maths.act(x, 1.5, clamp) == y
            held = clamp >= 0 and abs(y) >= clamp
            assert maths.slope(y, 1.5, clamp) == (0.0 if held else torch.tensor(0.2 if y < 0 else 1.0).mul(1.5).item())


def test_native_module_computes_the_same_on_numpy_arrays() -> None:
    contract.require_extension()
    from guide_fast import _native

    x, b = (t.cpu() for t in inputs(SHAPES["tall"], torch.float32))
    y = _native.bias_act(x.numpy(), b.numpy(), gain=1.5, clamp=0.5)
    assert torch.equal(torch.from_numpy(y), bias_act(x, b, gain=1.5, clamp=0.5, impl="reference"))
    with pytest.raises(ValueError, match="3 channels"):
        _native.bias_act(x.numpy(), b[:1].numpy())
