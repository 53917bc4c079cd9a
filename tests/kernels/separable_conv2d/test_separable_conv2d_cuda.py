"""The CUDA kernels of separable_conv2d: run on the CPU, their arithmetic, on a device where there is one."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import contract
import cuda_on_host
import pytest
import torch
from separable_layers import CASES, called, tensors
from torch import Tensor

from guide_fast.kernels import _dispatch
from guide_fast.kernels._dispatch import Backend
from guide_fast.kernels.separable_conv2d.separable_conv2d import BACKENDS, gradients, output

CODE = """
extern "C" gf_status forward(int dtype, int nhwc, const int64_t* n, void** p, int activation, const float* f) {
  const gf_separable_conv2d a{gf_dtype(dtype), nhwc, n[0], n[1], n[2], n[3], n[4], p[0], p[1], p[2], p[3], p[4],
                              p[5], n[5], p[6], p[7], p[8], gf_activation(activation), f[0], f[1], f[2]};
  return gf_separable_conv2d_cuda(&a, nullptr);
}
extern "C" gf_status backward(int dtype, int nhwc, const int64_t* n, void** p, int activation, const float* f) {
  auto sums = [&](int i) { return static_cast<float*>(p[i]); };
  const gf_separable_conv2d_backward a{gf_dtype(dtype), nhwc, n[0], n[1], n[2], n[3], n[4], p[0], p[1], p[2], p[3],
                                       p[4], p[5], p[6], n[5], p[7], sums(8), sums(9), sums(10), sums(11), sums(12),
                                       sums(13), nullptr, nullptr, gf_activation(activation), f[0], f[1], f[2]};
  return gf_separable_conv2d_backward_cuda(&a, nullptr);
}"""
LARGER = {
    "vectors": ((1, 40, 70, 9, 8), "depthwise noise bias", {"gain": 0.5}),
    "blocks": ((2, 66, 5, 11, 13), "depthwise bias", {}),
    "wavelet of vectors": ((1, 16, 24, 6, 10), "haar depthwise bias", {}),
}
ON_HOST = pytest.mark.skipif(contract.DEVICE != "cpu", reason="a device runs the kernels themselves")


@pytest.fixture(scope="module")
def on_host(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    folder = tmp_path_factory.mktemp("separable_conv2d")
    library = cuda_on_host.build("haar", "separable_conv2d", folder=folder, code=CODE)

    def run(name: str, x: Tensor, y: Tensor, inputs: int, noise_n: int, given: tuple, settings: tuple) -> None:
        activation, *numbers = settings
        n, o, h, w = y.shape
        sizes = (ctypes.c_int64 * 6)(n, inputs, o, h, w, noise_n)
        addresses = (ctypes.c_void_p * len(given))(*(None if t is None else t.data_ptr() for t in given))
        dtype, nhwc = contract.DTYPES.index(x.dtype), _dispatch.is_nhwc(x)
        numbers = (ctypes.c_float * 3)(*numbers)
        assert getattr(library, name)(dtype, nhwc, sizes, addresses, activation == "lrelu", numbers) == 0

    def forward(*arguments: Any) -> Tensor:
        x, haar_style, _, pointwise, _, noise, *_ = arguments
        y = output(x, haar_style, pointwise)
        noise_n = 1 if noise is None else len(noise)
        run("forward", x, y, pointwise.shape[1], noise_n, (*arguments[:8], y), arguments[8:])
        return y

    def backward(gy: Tensor, y: Tensor, x: Tensor, *rest: Any) -> list[Tensor]:
        haar_style, depthwise, pointwise, style, noise_n, wanted, *settings = rest
        grads = gradients(y, x, pointwise, noise_n, wanted)
        given = (gy, y, x, haar_style, depthwise, pointwise, style, *grads)
        run("backward", x, y, pointwise.shape[1], noise_n, given, tuple(settings))
        return [t for t in grads if t is not None]

    return Backend(forward, backward)


@ON_HOST
@pytest.mark.parametrize("dtype", contract.DTYPES, ids=str)
@pytest.mark.parametrize("case", (CASES | LARGER).values(), ids=CASES | LARGER)
@pytest.mark.parametrize("nhwc", [False, True])
def test_cuda_kernel_on_the_host_matches_the_reference(
    on_host: Backend, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, case: tuple, nhwc: bool
) -> None:
    monkeypatch.setitem(BACKENDS, "triton", on_host)  # which takes every dtype on the CPU
    given = tensors(case, dtype, nhwc=nhwc)
    function, reference = (called(list(given), impl, case[2], {}) for impl in ("triton", "reference"))
    contract.assert_matches(function, reference, list(given.values()))


@ON_HOST
@pytest.mark.parametrize("wanted", ["x", "style", "depthwise", "pointwise", "noise", "bias", "haar_style"])
def test_one_gradient_alone_is_the_same(on_host: Backend, monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    monkeypatch.setitem(BACKENDS, "triton", on_host)
    case = CASES["wavelet"]
    given = tensors(case, torch.float32, nhwc=True)
    leaf = given.pop(wanted)
    function, reference = (called([wanted], impl, case[2], given) for impl in ("triton", "reference"))
    contract.assert_matches(function, reference, [leaf])


@ON_HOST
def test_next_style_is_multiplied_in_the_same_pass(on_host: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "triton", on_host)
    given = tensors(CASES["odd"], torch.float32, nhwc=True)
    given["next_style"] = torch.randn(2, 7, generator=torch.Generator().manual_seed(6))
    function, reference = (called(list(given), impl, {}, {}) for impl in ("triton", "reference"))
    torch.testing.assert_close(function(*given.values()), reference(*given.values()), rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", contract.DTYPES, ids=str)
@pytest.mark.parametrize("case", (CASES | LARGER).values(), ids=CASES | LARGER)
@pytest.mark.parametrize("nhwc", [False, True])
def test_cuda_kernel_matches_the_reference(dtype: torch.dtype, case: tuple, nhwc: bool) -> None:
    given = tensors(case, dtype, nhwc=nhwc)
    function, reference = (called(list(given), impl, case[2], {}) for impl in ("cuda", "reference"))
    contract.assert_matches(function, reference, list(given.values()))


def test_window_arithmetic_covers_the_3x3_window(tmp_path: Path) -> None:
    code = """
    extern "C" int inside(int row, int column, int k) { return gf::window_inside(row, column, k, 2, 3); }
    extern "C" int offset(int k) { return gf::window_offset(k, 3); }"""
    maths = contract.compile_header("separable_conv2d.cuh", code, tmp_path)
    for k, (dy, dx) in enumerate((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)):
        assert maths.offset(k) == 3 * dy + dx
        for row in range(2):
            for column in range(3):
                assert maths.inside(row, column, k) == (0 <= row + dy < 2 and 0 <= column + dx < 3)
