"""upfirdn2d: every implementation against the reference, bad input, the device maths, the filters people set up."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import contract
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from guide_fast.kernels import ImplementationUnavailable, KernelError, upfirdn2d
from guide_fast.kernels.upfirdn2d.upfirdn2d import downsample2d, filter2d, setup_filter, upsample2d

# x, taps (kh, kw; one number: separable), settings
CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "one pixel": ((1, 1, 1, 1), (1, 1), {}),
    "blur": ((2, 3, 9, 7), (4, 4), {"padding": (2, 1, 2, 1)}),
    "up 2": ((1, 5, 6, 5), (4, 4), {"up": 2, "padding": (2, 1, 2, 1), "gain": 4.0}),
    "down 2": ((1, 3, 11, 12), (4, 4), {"down": 2, "padding": 1}),
    "up 4": ((1, 2, 5, 3), (3, 5), {"up": 4, "padding": (3, 4)}),
    "down 4": ((1, 2, 17, 13), (5, 3), {"down": 4, "padding": (-1, 2, 1, -2)}),
    "up 3 down 2": ((1, 2, 5, 6), (4, 3), {"up": 3, "down": 2, "padding": (2, -3, 4, 1)}),
    "different axes": ((2, 2, 6, 5), (2, 6), {"up": (2, 1), "down": (1, 3), "padding": 3}),
    "crop only": ((1, 2, 8, 9), (1, 1), {"padding": (-1, -2, -3, 0)}),
    "short separable": ((1, 3, 7, 6), (4,), {"up": 2, "padding": 2, "gain": 4.0}),
    "long separable": ((1, 3, 9, 10), (12,), {"up": 2, "down": 2, "padding": 5, "gain": 2.0}),
    "tall filter": ((1, 2, 12, 3), (9, 1), {}),
}
NAMED = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def inputs(shape: tuple[int, ...], dtype: torch.dtype, *, nhwc: bool = False) -> Tensor:
    x = contract.on_a_grid(torch.randn(shape, generator=torch.Generator().manual_seed(1))).to(contract.DEVICE, dtype)
    return x.contiguous(memory_format=torch.channels_last) if nhwc else x


def taps(size: tuple[int, ...]) -> Tensor:
    f = torch.randn(size, generator=torch.Generator().manual_seed(2))
    return contract.on_a_grid(f).to(contract.DEVICE)  # exact in half precision too


def by_definition(
    x: Tensor, f: Tensor, up: tuple[int, int], down: tuple[int, int], padding: tuple[int, ...], gain: float
) -> Tensor:
    """The sum over taps written out, for convolution (not correlation), one output pixel at a time."""
    left, right, top, bottom = padding
    n, c, h, w = x.shape
    kh, kw = f.shape
    out_h = (h * up[1] + top + bottom - kh) // down[1] + 1
    out_w = (w * up[0] + left + right - kw) // down[0] + 1
    y = torch.zeros(n, c, out_h, out_w, dtype=x.dtype)
    for oy in range(out_h):
        for ox in range(out_w):
            for ky in range(kh):
                for kx in range(kw):
                    v, u = oy * down[1] - top + ky, ox * down[0] - left + kx
                    if v % up[1] == 0 and u % up[0] == 0 and 0 <= v // up[1] < h and 0 <= u // up[0] < w:
                        y[:, :, oy, ox] += gain * f[kh - 1 - ky, kw - 1 - kx] * x[:, :, v // up[1], u // up[0]]
    return y


@pytest.mark.parametrize("name", ["up 2", "down 4", "up 3 down 2", "different axes", "crop only"])
def test_reference_is_the_definition(name: str) -> None:
    shape, size, settings = CASES[name]
    x, f = inputs(shape, torch.float64).cpu(), taps(size).cpu()
    pairs = {key: (v, v) if isinstance(v := settings.get(key, 1), int) else v for key in ("up", "down")}
    pads = settings.get("padding", 0)
    pads = (pads,) * 4 if isinstance(pads, int) else (pads[0], pads[0], pads[1], pads[1]) if len(pads) == 2 else pads
    expected = by_definition(x, f.double(), **pairs, padding=pads, gain=settings.get("gain", 1.0))
    torch.testing.assert_close(upfirdn2d(x, f, **settings, impl="reference"), expected)
    flipped = upfirdn2d(x, f.flip(0, 1), **settings, flip_filter=True, impl="reference")
    torch.testing.assert_close(flipped, expected)


@NAMED
def test_reference_gradients_match_finite_differences(case: tuple) -> None:
    shape, size, settings = case
    x = inputs((1, 1, *shape[2:]), torch.float64)
    contract.assert_gradcheck(lambda x: upfirdn2d(x, taps(size), **settings, impl="reference"), [x])


@pytest.mark.parametrize("impl", contract.implementations("triton", "cuda", "cpu"))
@pytest.mark.parametrize("dtype", contract.DTYPES, ids=str)
@NAMED
@pytest.mark.parametrize("nhwc", [False, True])
def test_implementation_matches_the_reference(impl: str, dtype: torch.dtype, case: tuple, nhwc: bool) -> None:
    if impl == "cpu":
        contract.require_extension()
        if dtype != torch.float32:
            impl = "auto"  # converts
        if contract.DEVICE != "cpu":
            pytest.skip("the inputs are on a GPU")
    shape, size, settings = case
    contract.assert_matches(
        lambda x: upfirdn2d(x, taps(size), **settings, impl=impl),
        lambda x: upfirdn2d(x, taps(size), **settings, impl="reference"),
        [inputs(shape, dtype, nhwc=nhwc)],
    )


@pytest.mark.parametrize("impl", contract.implementations("triton", "cuda", "cpu"))
def test_gradient_can_be_differentiated_again(impl: str) -> None:
    if impl == "cpu":
        contract.require_extension()
    x = inputs((1, 2, 5, 6), torch.float32).requires_grad_()
    seconds = []
    for each in (impl, "reference"):
        y = upfirdn2d(x, taps((4, 4)), up=2, padding=2, impl=each)
        (gx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        seconds.append(torch.autograd.grad(gx.square().sum(), x)[0])
    torch.testing.assert_close(*seconds, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("nhwc", [False, True])
def test_large_planes_are_cut_into_bands_without_a_seam(nhwc: bool) -> None:
    contract.require_extension()
    x = inputs((1, 3, 150, 131), torch.float32, nhwc=nhwc).cpu()
    f = taps((4, 4)).cpu()
    for settings in ({"padding": (2, 1, 2, 1)}, {"up": 2, "padding": (2, 1, 2, 1)}, {"down": 2, "padding": 1}):
        y = upfirdn2d(x, f, **settings, impl="cpu")
        torch.testing.assert_close(y, upfirdn2d(x, f, **settings, impl="reference"), rtol=1e-5, atol=1e-5)


def test_layout_is_kept() -> None:
    x = inputs((1, 8, 6, 6), torch.float32, nhwc=True)
    y = upfirdn2d(x, taps((4, 4)), up=2, padding=(2, 1))
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_no_filter_is_the_identity() -> None:
    x = inputs((2, 3, 5, 4), torch.float32)
    assert torch.equal(upfirdn2d(x, None), x)
    assert torch.equal(upfirdn2d(x, None, down=2), x[:, :, ::2, ::2])


def test_up_sampling_is_the_adjoint_of_down_sampling() -> None:
    f = setup_filter([1, 3, 3, 1], device=contract.DEVICE)
    x = inputs((1, 2, 6, 8), torch.float32)
    y = inputs((1, 2, 12, 16), torch.float32)
    left = (upsample2d(x, f).double() * y).sum()
    right = (x.double() * downsample2d(y, f)).sum() * 4
    torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5)


def test_up_sampling_keeps_size_brightness() -> None:
    f = setup_filter([1, 3, 3, 1], device=contract.DEVICE)
    x = torch.ones(1, 1, 6, 5, device=contract.DEVICE)
    up, down, same = upsample2d(x, f), downsample2d(x, f), filter2d(x, f)
    assert (up.shape, down.shape, same.shape) == ((1, 1, 12, 10), (1, 1, 3, 2), (1, 1, 6, 5))
    assert torch.equal(up[:, :, 2:-2, 2:-2], torch.ones_like(up[:, :, 2:-2, 2:-2]))
    assert torch.equal(same[:, :, 2:-1, 2:-1], torch.ones_like(same[:, :, 2:-1, 2:-1]))


def test_up_sampling_is_a_transposed_convolution() -> None:
    f = setup_filter([1, 3, 3, 1], device=contract.DEVICE)
    x = inputs((1, 1, 5, 7), torch.float32)
    expected = F.conv_transpose2d(x, f[None, None] * 4, stride=2, padding=1)
    torch.testing.assert_close(upsample2d(x, f), expected)


def test_setup_filter_makes_what_upfirdn2d_takes() -> None:
    f = setup_filter([1, 3, 3, 1])
    assert f.shape == (4, 4) and f.dtype == torch.float32 and f.sum() == 1 and f[0, 1] == 3 / 64
    long = setup_filter(range(1, 9), gain=4.0)
    assert long.shape == (8,) and long.sum() == pytest.approx(2.0)  # both axes: 4
    assert setup_filter([1, 2], separable=True).shape == (2,)
    assert torch.equal(setup_filter([1, 2], flip_filter=True, separable=True), torch.tensor([2 / 3, 1 / 3]))
    assert torch.equal(setup_filter(3.0, normalize=False), torch.tensor([[9.0]]))
    for bad, said in (([], r"\(0,\)"), (torch.zeros(1, 2, 3), r"\(1, 2, 3\)"), ([1.0, -1.0], "sums to 0")):
        with pytest.raises(KernelError, match=said):
            setup_filter(bad)
    with pytest.raises(KernelError, match=r"\(2, 2\)"):
        setup_filter(torch.ones(2, 2), separable=True)


def test_operator_keeps_torch_library_rules() -> None:
    contract.require_extension()
    x, f = inputs((2, 3, 5, 4), torch.float32).cpu().requires_grad_(), taps((4, 3)).cpu()
    torch.library.opcheck(torch.ops.guide_fast.upfirdn2d, (x, f, 8, 9, 2, 2, 1, 1, 2, 1, "cpu"))
    nhwc = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    torch.library.opcheck(torch.ops.guide_fast.upfirdn2d, (nhwc, f, 2, 3, 1, 2, 2, 3, 2, 1, "cpu"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": torch.zeros(2, 3)}, "rank 2"),
        ({"x": torch.zeros(0, 3, 5, 4)}, "empty"),
        ({"x": torch.zeros(2, 3, 5, 4, dtype=torch.uint8)}, "uint8"),
        ({"f": torch.zeros(4, 4, 1)}, "rank 3"),
        ({"f": torch.zeros(0, 4)}, "empty"),
        ({"f": torch.zeros(4, 4, dtype=torch.int64)}, "int64"),
        ({"f": torch.zeros(4, 4, device="meta")}, "meta"),
        ({"f": torch.zeros(4, 4).requires_grad_()}, "constant"),
        ({"f": torch.zeros(9, 4)}, "9 high, the padded image only 5"),
        ({"f": torch.zeros(4, 9), "padding": (1, 2)}, "9 wide, the padded image only 6"),
        ({"padding": (-4, -4, 0, 0)}, "only -4"),
        ({"up": 0}, "up=0"),
        ({"up": (2, 0)}, r"up=\(2, 0\)"),
        ({"down": -1}, "down=-1"),
        ({"down": (1, 2, 3)}, r"down=\(1, 2, 3\)"),
        ({"up": 1.5}, "up=1.5"),
        ({"padding": (1, 2, 3)}, r"padding=\(1, 2, 3\)"),
        ({"padding": 0.5}, "padding=0.5"),
        ({"impl": "fast"}, "fast"),
    ],
)
def test_bad_input_is_named(change: dict, said: str) -> None:
    arguments = {"x": torch.zeros(2, 3, 5, 4), "f": torch.zeros(4, 4)} | change
    with pytest.raises(KernelError, match=said):
        upfirdn2d(arguments.pop("x"), arguments.pop("f"), **arguments)


@pytest.mark.parametrize(
    ("impl", "dtype", "said"),
    [("cuda", torch.float32, "on cpu"), ("cpu", torch.float16, "float16"), ("triton", torch.float64, "float64")],
)
def test_implementation_that_cannot_run_says_why(impl: str, dtype: torch.dtype, said: str) -> None:
    with pytest.raises(ImplementationUnavailable, match=said):
        upfirdn2d(torch.zeros(1, 1, 2, 2, dtype=dtype), None, impl=impl)


@pytest.mark.parametrize("up", [1, 2, 3, 4])
def test_device_maths_finds_the_taps_that_meet_pixels(up: int, tmp_path: Path) -> None:
    code = """
    extern "C" int first(int u, int up) { return gf::first_tap(u, up).tap; }
    extern "C" int pixel(int u, int up) { return gf::first_tap(u, up).pixel; }"""
    maths = contract.compile_header("upfirdn2d.cuh", code, tmp_path)
    maths.first.argtypes = maths.pixel.argtypes = [ctypes.c_int] * 2
    for u in range(-9, 10):
        tap = next(k for k in range(up) if (u + k) % up == 0)
        assert (maths.first(u, up), maths.pixel(u, up)) == (tap, (u + tap) // up)


def test_native_module_computes_the_same_on_numpy_arrays() -> None:
    contract.require_extension()
    from guide_fast import _native

    x, f = inputs((2, 3, 5, 4), torch.float32).cpu(), taps((3, 4)).cpu()
    y = _native.upfirdn2d(x.numpy(), f.numpy(), up=2, down=3, padding=(1, 2, 3, -1), gain=2.0)
    expected = upfirdn2d(x, f, up=2, down=3, padding=(1, 2, 3, -1), gain=2.0, impl="reference")
    torch.testing.assert_close(torch.from_numpy(y), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="9 high"):
        _native.upfirdn2d(x.numpy(), torch.zeros(9, 1).numpy())
    with pytest.raises(ValueError, match="up 0"):
        _native.upfirdn2d(x.numpy(), f.numpy(), up=0)
