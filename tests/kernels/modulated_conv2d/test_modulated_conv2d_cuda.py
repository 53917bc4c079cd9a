"""The CUDA source of modulated_conv2d, run on the host by fibers: no GPU, the same index arithmetic."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import contract
import cuda_on_host
import pytest
import torch
from modulated_conv2d.layers import SETTINGS, Shape, clear, inputs, layer
from torch import Tensor

from guide_fast.kernels import _dispatch, modulated_conv2d
from guide_fast.kernels.modulated_conv2d import _native

DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
SIZES = "n:i64 in_channels:i64 out_channels:i64 height:i64 width:i64 kernel:i32 up:i32 premodulated:i32"
TAIL = "activation:i32 slope:f32 gain:f32 clamp:f32"
TYPES = {"i64": ctypes.c_int64, "i32": ctypes.c_int32, "f32": ctypes.c_float, "": ctypes.c_void_p}


def structure(fields: str) -> type[ctypes.Structure]:
    """A C struct from "name:type" words; a name alone is a pointer."""
    pairs = [word.partition(":") for word in fields.split()]
    return type("Arguments", (ctypes.Structure,), {"_fields_": [(name, TYPES[kind]) for name, _, kind in pairs]})


WEIGHT = structure("dtype:i32 out_channels:i64 in_channels:i64 kernel:i32 weight packed power")
FORWARD = structure(f"dtype:i32 {SIZES} x packed power style noise noise_stride:i64 bias next_style demod z y {TAIL}")
BACKWARD = structure(
    f"dtype:i32 {SIZES} gy y x packed power style noise noise_stride:i64 bias demod g gz gdemod gx gpacked gstyle "
    f"gbias gnoise {TAIL}"
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """modulated_conv2d.cu by the host's compiler."""
    return cuda_on_host.build("modulated_conv2d", folder=tmp_path_factory.mktemp("modulated_conv2d"), code="")


def pointer(t: Tensor | None) -> int | None:
    return None if t is None else t.data_ptr()


def noise_stride(noise: Tensor | None) -> int:
    return 0 if noise is None or noise.shape[0] == 1 else noise[0].numel()


def operators(library: ctypes.CDLL) -> SimpleNamespace:
    """The raw operators of the compiled library, on the emulated launchers."""

    def sizes(x: Tensor, y: Tensor, kernel: int, up: int, premodulated: bool) -> tuple:
        return (DTYPES[x.dtype], x.shape[0], x.shape[1], y.shape[1], *x.shape[2:], kernel, up, premodulated)

    def tail(activation: str, *numbers: float) -> tuple:
        return (int(activation == "lrelu"), *numbers)

    def weight(weight: Tensor, packed: Tensor, power: Tensor | None) -> None:
        out, channels, k, _ = weight.shape
        arguments = WEIGHT(DTYPES[weight.dtype], out, channels, k, *map(pointer, (weight, packed, power)))
        assert library.gf_modulated_conv2d_weight_cuda(ctypes.byref(arguments), None) == 0

    def forward(x, packed, power, style, noise, bias, next_style, demod, z, y, kernel, up, premodulated, *rest) -> None:
        first = map(pointer, (x, packed, power, style, noise))
        second = map(pointer, (bias, next_style, demod, z, y))
        head = sizes(x, y, kernel, up, premodulated)
        arguments = FORWARD(*head, *first, noise_stride(noise), *second, *tail(*rest))
        assert library.gf_modulated_conv2d_cuda(ctypes.byref(arguments), None) == 0

    def backward(gy, y, x, packed, power, style, noise, bias, demod, *rest) -> None:
        outputs, (kernel, up, premodulated), last = rest[:8], rest[8:11], rest[11:]
        first = map(pointer, (gy, y, x, packed, power, style, noise))
        second = map(pointer, (bias, demod, *outputs))
        head = sizes(x, y, kernel, up, premodulated)
        arguments = BACKWARD(*head, *first, noise_stride(noise), *second, *tail(*last))
        assert library.gf_modulated_conv2d_backward_cuda(ctypes.byref(arguments), None) == 0

    return SimpleNamespace(
        native_modulated_conv2d_weight=weight,
        native_modulated_conv2d=forward,
        native_modulated_conv2d_backward=backward,
    )


@pytest.fixture
def emulated(library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    """impl="cuda" runs on the host."""
    monkeypatch.setattr(_dispatch, "_refuses", lambda impl, x, backends: None)
    monkeypatch.setattr(_dispatch, "_misplaced", lambda impl, x: None)
    fake = SimpleNamespace(ops=SimpleNamespace(guide_fast=operators(library)), float32=torch.float32)
    monkeypatch.setattr(_native, "torch", fake)


SHAPES = {
    "one": Shape(1, 2, 1, 1, 1, 3, 1),
    "odd": Shape(2, 5, 7, 6, 3, 3, 1),
    "vectors": Shape(2, 40, 72, 5, 3, 3, 1),
    "tiles": Shape(1, 8, 16, 9, 11, 3, 1),
    "point": Shape(2, 20, 3, 5, 7, 1, 1),
    "up": Shape(2, 6, 5, 3, 4, 3, 2),
    "up vectors": Shape(1, 8, 72, 4, 3, 3, 2),
    "up point": Shape(2, 4, 3, 5, 2, 1, 2),
}


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("dtype", contract.DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_cuda_source_matches_the_reference(dtype: torch.dtype, shape: Shape, settings: dict) -> None:
    tensors = inputs(shape, dtype)
    settings = clear(settings, shape, tensors)
    contract.assert_matches(layer("cuda", shape, **settings), layer("reference", shape, **settings), tensors)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("wanted", range(5), ids=["x", "weight", "style", "noise", "bias"])
@pytest.mark.parametrize("premodulated", [False, True])
def test_each_gradient_alone_is_the_same(wanted: int, premodulated: bool) -> None:
    shape = SHAPES["up"]
    tensors = inputs(shape, torch.float32)
    _, all_of_them = contract.gradients(layer("cuda", shape, premodulated=premodulated), tensors)
    leaves = [t.detach().requires_grad_(i == wanted) for i, t in enumerate(tensors)]
    with _dispatch.poisoned_outputs():
        out = layer("cuda", shape, premodulated=premodulated)(*leaves)
        gy = torch.randn(out.shape, generator=torch.Generator().manual_seed(99), dtype=torch.float64).to(out)
        (alone,) = torch.autograd.grad(out, leaves[wanted], gy)
    torch.testing.assert_close(alone, all_of_them[wanted])


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("up", [1, 2])
def test_next_style_is_fused(up: int) -> None:
    shape = Shape(2, 5, 7, 4, 3, 3, up)
    x, weight, style, noise, bias = inputs(shape, torch.float32)
    following = torch.randn(2, 7, generator=torch.Generator().manual_seed(3))
    arguments = {"noise": noise, "bias": bias, "up": up, "next_style": following}
    got = modulated_conv2d(x, weight, style, **arguments, impl="cuda")
    torch.testing.assert_close(got, modulated_conv2d(x, weight, style, **arguments, impl="reference"))
