"""The CUDA kernels of feature_distance, run on the CPU against the reference."""

from __future__ import annotations

import ctypes

import contract
import cuda_on_host
import pytest
import torch
from torch import Tensor

from guide_fast.kernels import _dispatch
from guide_fast.kernels._dispatch import Backend
from guide_fast.kernels.feature_distance.feature_distance import BACKENDS, PIXELS, feature_distance

pytestmark = pytest.mark.skipif(contract.DEVICE != "cpu", reason="a device runs the kernels themselves")

CODE = """
extern "C" gf_status run(int backward, int dtype, int taps, int64_t batch, const int64_t* n, void** p,
                         const float* scale, int normalised, float eps, float* gout, float* partial, float* out) {
  gf_feature_distance a{};
  a.dtype = gf_dtype(dtype), a.batch = batch, a.taps = taps, a.normalised = normalised, a.eps = eps;
  a.gout = gout, a.partial = partial, a.out = out;
  for (int t = 0; t < taps; ++t, n += 4, p += 5)
    a.tap[t] = {n[0], n[1], p[0], p[1], static_cast<float*>(p[2]), p[3], p[4], scale[t], int(n[2]), int(n[3])};
  return backward ? gf_feature_distance_backward_cuda(&a, nullptr) : gf_feature_distance_cuda(&a, nullptr);
}"""
TAPS = {"one": [(1, 3, 2, 2)], "odd": [(2, 5, 3, 7), (2, 9, 2, 1)], "blocks": [(2, 40, 13, 11), (2, 70, 5, 5)]}


@pytest.fixture(scope="module")
def on_host(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    library = cuda_on_host.build("feature_distance", folder=tmp_path_factory.mktemp("feature_distance"), code=CODE)
    Tensors = list[Tensor]

    def run(outputs: list[Tensor | None], maps: list[Tensors], scales: list[float], normalised: bool, eps: float):
        a, b, weights, ga, gb = maps
        sizes, addresses = [], []
        for i, tap in enumerate(a):
            sizes += [tap.shape[1], tap.shape[2] * tap.shape[3], _dispatch.is_nhwc(tap), len(b[i]) == 1]
            addresses += [group[i].data_ptr() if group else None for group in (a, b, weights, ga, gb)]
        arguments = (
            int(outputs[0] is not None),
            contract.DTYPES.index(a[0].dtype),
            len(a),
            ctypes.c_int64(len(a[0])),
            (ctypes.c_int64 * len(sizes))(*sizes),
            (ctypes.c_void_p * len(addresses))(*addresses),
            (ctypes.c_float * len(scales))(*scales),
            int(normalised),
            ctypes.c_float(eps),
        )
        assert library.run(*arguments, *map(cuda_on_host.pointer, outputs)) == 0

    def forward(a: Tensors, b: Tensors, weights: Tensors, *settings) -> Tensor:
        blocks = sum(-(-tap.shape[2] * tap.shape[3] // PIXELS) for tap in a)
        partial, out = (_dispatch.empty(s, a[0], dtype=torch.float32) for s in ((len(a[0]), blocks), (len(a[0]),)))
        run([None, partial, out], [a, b, weights, [], []], *settings)
        return out

    def backward(gout: Tensor, a: Tensors, b: Tensors, weights: Tensors, ga: Tensors, gb: Tensors, *settings) -> None:
        run([gout, None, None], [a, b, weights, ga, gb], *settings)

    return Backend(forward, backward)


@pytest.mark.parametrize("dtype", contract.DTYPES, ids=str)
@pytest.mark.parametrize("taps", TAPS.values(), ids=TAPS)
@pytest.mark.parametrize("nhwc", [False, True])
def test_cuda_kernel_matches_the_reference(
    on_host: Backend, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, taps: list[tuple[int, ...]], nhwc: bool
) -> None:
    monkeypatch.setitem(BACKENDS, "triton", on_host)  # which takes every dtype on the CPU
    random = torch.Generator().manual_seed(1)
    layout = torch.channels_last if nhwc else torch.contiguous_format
    maps = [torch.randn(s, generator=random).to(dtype).contiguous(memory_format=layout) for s in taps * 2]

    def distance(impl: str):
        return lambda *m: feature_distance(list(m[: len(taps)]), list(m[len(taps) :]), impl=impl)

    contract.assert_matches(distance("triton"), distance("reference"), maps)
