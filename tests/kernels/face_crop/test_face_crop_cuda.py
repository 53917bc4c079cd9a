"""The CUDA kernel of face_crop, run on the CPU against the reference."""

from __future__ import annotations

import ctypes

import contract
import cuda_on_host
import pytest
import torch
from torch import Tensor

from guide_fast.kernels import Framing, _dispatch, face_crop
from guide_fast.kernels.face_crop import face_crop as door

pytestmark = pytest.mark.skipif(contract.DEVICE != "cpu", reason="a device runs the kernels themselves")

CODE = """
extern "C" gf_status run(int dtype, const int64_t* n, void** p, int nhwc, const int* source, const float* f) {
  auto axis = [&](int at, int64_t in) -> gf_axis {
    return {in, n[at], n[at + 1], static_cast<const int32_t*>(p[at]), static_cast<const float*>(p[at + 1])};
  };
  gf_face_crop a{};
  a.dtype = gf_dtype(dtype), a.batch = n[0], a.x = p[0], a.y = p[1], a.nhwc = nhwc;
  a.rows = axis(2, n[1]), a.columns = axis(4, n[6]);
  for (int c = 0; c < 3; ++c) a.source[c] = source[c], a.scale[c] = f[c], a.offset[c] = f[c + 3];
  return gf_face_crop_cuda(&a, nullptr);
}"""
FRAMINGS = {
    "smaller": Framing((0.1, 0.9, 0.2, 0.8), 6),
    "larger": Framing((0.2, 0.7, 0.1, 0.9), 23),
    "area": Framing((0.5, 1, 0.5, 1), 5, "area"),
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return cuda_on_host.build("face_crop", folder=tmp_path_factory.mktemp("face_crop"), code=CODE)


@pytest.mark.parametrize("dtype", contract.DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 13, 9), (1, 3, 16, 16)], ids=str)
@pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS)
@pytest.mark.parametrize("nhwc", [False, True])
def test_cuda_kernel_matches_the_reference(
    library: ctypes.CDLL,
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    framing: Framing,
    nhwc: bool,
) -> None:
    def on_host(
        x: Tensor,
        y: Tensor,
        rows: door.Axis,
        columns: door.Axis,
        source: list[int],
        scale: list[float],
        offset: list[float],
    ) -> None:
        bands = (rows.start, rows.weights, columns.start, columns.weights)
        sizes = (len(y), x.shape[2], *reversed(rows.weights.shape), *reversed(columns.weights.shape), x.shape[3])
        given = (ctypes.c_void_p * 6)(*(t.data_ptr() for t in (x, y, *bands)))
        numbers = (ctypes.c_float * 6)(*scale, *offset)
        places = (ctypes.c_int * 3)(*source)
        dtype = contract.DTYPES.index(x.dtype)
        assert library.run(dtype, (ctypes.c_int64 * 7)(*sizes), given, _dispatch.is_nhwc(x), places, numbers) == 0

    monkeypatch.setitem(door.BACKENDS, "triton", door._backend(on_host))  # which takes every dtype on the CPU
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    contract.assert_matches(
        lambda x: face_crop(x, framing, impl="triton"),
        lambda x: face_crop(x, framing, impl="reference"),
        [x.contiguous(memory_format=torch.channels_last) if nhwc else x],
    )
