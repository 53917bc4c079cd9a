"""The CUDA kernels of haar: run on the CPU, its block arithmetic, on a device where there is one."""

from __future__ import annotations

import ctypes
from pathlib import Path

import contract
import cuda_on_host
import pytest
import torch
from torch import Tensor

from guide_fast.kernels import _dispatch, haar
from guide_fast.kernels._dispatch import Backend
from guide_fast.kernels.haar.haar import BACKENDS, gradients, output

CODE = """
extern "C" gf_status forward(int dtype, int nhwc, const int64_t* n, void* x, void* style, void* y) {
  const gf_haar a{gf_dtype(dtype), nhwc, n[0], n[1], n[2], n[3], x, style, y};
  return gf_haar_cuda(&a, nullptr);
}
extern "C" gf_status backward(int dtype, int nhwc, const int64_t* n, void* gy, void* x, void* style, void* gx,
                              float* gstyle) {
  const gf_haar_backward a{gf_dtype(dtype), nhwc, n[0], n[1], n[2], n[3], gy, x, style, gx, gstyle};
  return gf_haar_backward_cuda(&a, nullptr);
}"""
SHAPES = {"one": (1, 4, 1, 1), "odd": (2, 20, 3, 5), "vectors": (1, 64, 5, 7), "blocks": (1, 8, 40, 30)}


def inputs(shape: tuple[int, ...], dtype: torch.dtype, *, nhwc: bool) -> list[Tensor]:
    random = torch.Generator().manual_seed(3)
    x = torch.randn(shape, generator=random).to(contract.DEVICE, dtype)
    x = x.contiguous(memory_format=torch.channels_last) if nhwc else x
    return [x, torch.randn(shape[:2], generator=random).to(x)]


@pytest.fixture(scope="module")
def on_host(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    library = cuda_on_host.build("haar", folder=tmp_path_factory.mktemp("haar"), code=CODE)

    def run(name: str, nhwc: bool, y: Tensor, *tensors: Tensor | None) -> None:
        n, c, h, w = y.shape
        sizes = (ctypes.c_int64 * 4)(n, c, h // 2, w // 2)
        dtype = contract.DTYPES.index(y.dtype)
        assert getattr(library, name)(dtype, nhwc, sizes, *map(cuda_on_host.pointer, tensors)) == 0

    def forward(x: Tensor, style: Tensor | None) -> Tensor:
        y = output(x)
        run("forward", _dispatch.is_nhwc(x), y, x, style, y)
        return y

    def backward(
        gy: Tensor, x: Tensor | None, style: Tensor | None, nhwc: bool, want_x: bool, want_style: bool
    ) -> list[Tensor]:
        gx, gstyle = gradients(gy, nhwc, want_x, want_style)
        run("backward", nhwc, gy, gy, x, style, gx, gstyle)
        return [t for t in (gx, gstyle) if t is not None]

    return Backend(forward, backward)


@pytest.mark.skipif(contract.DEVICE != "cpu", reason="a device runs the kernels themselves")
@pytest.mark.parametrize("dtype", contract.DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("nhwc", [False, True])
def test_cuda_kernel_on_the_host_matches_the_reference(
    on_host: Backend, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, shape: tuple[int, ...], nhwc: bool
) -> None:
    monkeypatch.setitem(BACKENDS, "triton", on_host)  # which takes every dtype on the CPU
    x, style = inputs(shape, dtype, nhwc=nhwc)
    contract.assert_matches(
        lambda x, s: haar(x, s, impl="triton"), lambda x, s: haar(x, s, impl="reference"), [x, style]
    )
    contract.assert_matches(lambda x: haar(x, impl="triton"), lambda x: haar(x, impl="reference"), [x])
    contract.assert_matches(
        lambda s: haar(x, s, impl="triton"), lambda s: haar(x.to(s.dtype), s, impl="reference"), [style]
    )


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", contract.DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("nhwc", [False, True])
def test_cuda_kernel_matches_the_reference(dtype: torch.dtype, shape: tuple[int, ...], nhwc: bool) -> None:
    contract.assert_matches(
        lambda x, s: haar(x, s, impl="cuda"),
        lambda x, s: haar(x, s, impl="reference"),
        inputs(shape, dtype, nhwc=nhwc),
    )


def test_block_arithmetic_is_its_own_inverse_to_the_bit(tmp_path: Path) -> None:
    code = 'extern "C" void block(float* v) { gf::haar_block(v[0], v[1], v[2], v[3]); }'
    maths = contract.compile_header("haar.cuh", code, tmp_path)
    bands = [1.0, -2.5, 0.75, 4.0]
    values = (ctypes.c_float * 4)(*bands)
    maths.block(values)
    assert list(values) == haar(torch.tensor(bands).reshape(1, 4, 1, 1), impl="reference").flatten().tolist()
    maths.block(values)
    assert list(values) == bands
