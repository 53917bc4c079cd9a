"""The CUDA kernels of upfirdn2d, run on the CPU against the reference."""

from __future__ import annotations

import ctypes

import contract
import cuda_on_host
import pytest
import torch
from torch import Tensor

from guide_fast.kernels import _dispatch
from guide_fast.kernels._dispatch import Backend
from guide_fast.kernels.upfirdn2d.upfirdn2d import BACKENDS, upfirdn2d

pytestmark = pytest.mark.skipif(contract.DEVICE != "cpu", reason="a device runs the kernels themselves")

CODE = """
extern "C" gf_status run(int dtype, int nhwc, const int64_t* n, void* x, float* f, void* y, const int* s) {
  const gf_upfirdn2d a{gf_dtype(dtype), nhwc, n[0], n[1], n[2], n[3], n[4], n[5], x, f, y,
                       s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]};
  return gf_upfirdn2d_cuda(&a, nullptr);
}"""
# x, taps, settings: each of the kernels, sizes around a tile, every edge of the window arithmetic
CASES = {
    "blur over tiles": ((2, 2, 35, 33), (4, 4), {"padding": (2, 1, 2, 1)}),
    "up 2 over tiles": ((1, 3, 17, 20), (4, 4), {"up": 2, "padding": (2, 1, 2, 1), "gain": 4.0}),
    "down 2 over tiles": ((1, 2, 70, 66), (4, 4), {"down": 2, "padding": (1, -1, 2, 0)}),
    "up 2, cropped": ((1, 2, 9, 11), (4, 4), {"up": 2, "padding": (-3, -2, -1, -5)}),
    "up 4 down 3": ((1, 2, 7, 6), (5, 6), {"up": 4, "down": 3, "padding": (5, 1, 2, -3)}),
    "vectors of channels": ((1, 16, 5, 6), (4, 4), {"up": 2, "padding": (2, 1, 2, 1)}),
    "filter beyond shared memory": ((1, 1, 120, 3), (118, 1), {"up": (1, 2)}),
    "one pixel": ((1, 1, 1, 1), (1, 1), {}),
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return cuda_on_host.build("upfirdn2d", folder=tmp_path_factory.mktemp("upfirdn2d"), code=CODE)


@pytest.mark.parametrize("dtype", contract.DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("nhwc", [False, True])
def test_cuda_kernel_matches_the_reference(
    library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, case: tuple, nhwc: bool
) -> None:
    def on_host(x: Tensor, f: Tensor, out_h: int, out_w: int, *settings: int) -> Tensor:
        is_nhwc, f = _dispatch.is_nhwc(x), f.contiguous()
        y = _dispatch.empty((*x.shape[:2], out_h, out_w), x, nhwc=is_nhwc)
        sizes = (ctypes.c_int64 * 6)(*x.shape, out_h, out_w)
        pointers = map(cuda_on_host.pointer, (x, f, y))
        numbers = (ctypes.c_int * 8)(*f.shape, *settings)
        assert library.run(contract.DTYPES.index(x.dtype), is_nhwc, sizes, *pointers, numbers) == 0
        return y

    monkeypatch.setitem(BACKENDS, "triton", Backend(on_host, on_host))  # which takes every dtype on the CPU
    shape, size, settings = case
    random = torch.Generator().manual_seed(1)
    x = contract.on_a_grid(torch.randn(shape, generator=random)).to(dtype)
    f = contract.on_a_grid(torch.randn(size, generator=random))
    contract.assert_matches(
        lambda x: upfirdn2d(x, f, **settings, impl="triton"),
        lambda x: upfirdn2d(x, f, **settings, impl="reference"),
        [x.contiguous(memory_format=torch.channels_last) if nhwc else x],
    )
