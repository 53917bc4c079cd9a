"""The CUDA kernel of fused_adam, run on the CPU: every kind of tensor in one launch."""

from __future__ import annotations

import ctypes
from typing import Any

import contract
import cuda_on_host
import pytest
import torch

from guide_fast.kernels._dispatch import Backend
from guide_fast.kernels.fused_adam import fused_adam as door
from guide_fast.kernels.fused_adam._table import CHUNK

pytestmark = pytest.mark.skipif(contract.DEVICE != "cpu", reason="a device runs the kernels themselves")

CODE = """
extern "C" gf_status run(int64_t* row, int64_t tensors, const int32_t* chunk_tensor, const int64_t* chunk_start,
                         int64_t chunks, int64_t chunk_size, const float* table, const float* f) {
  auto at = [&](int i) { return row + i * tensors; };
  gf_fused_adam a{};
  a.chunks = chunks, a.chunk_size = chunk_size, a.chunk_tensor = chunk_tensor, a.chunk_start = chunk_start;
  a.parameter = reinterpret_cast<float* const*>(at(0));
  a.gradient = reinterpret_cast<const void* const*>(at(1));
  a.exp_avg = reinterpret_cast<float* const*>(at(2));
  a.exp_avg_sq = reinterpret_cast<float* const*>(at(3));
  a.copy = reinterpret_cast<void* const*>(at(4));
  a.size = at(5), a.kind = at(6);
  if (table) {
    a.setting = at(7), a.factors = table;
  } else {
    a.one_minus_beta1 = f[0], a.beta2 = f[1], a.one_minus_beta2 = f[2], a.step_size = f[3], a.bias2_rsqrt = f[4];
    a.eps = f[5], a.weight_decay = f[6];
  }
  return gf_fused_adam_cuda(&a, nullptr);
}"""
SHAPES = [(4, 3), (7,), (CHUNK + 5,), (9,)]
GRADS = [torch.float32, torch.float16, torch.bfloat16, torch.float16]
COPIES = [None, torch.bfloat16, torch.float16, torch.float32]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return cuda_on_host.build("fused_adam", folder=tmp_path_factory.mktemp("fused_adam"), code=CODE)


@pytest.mark.parametrize("settings", [{"lr": 1e-2}, {"lr": [1e-2, 1e-3, 0.1, 0.0]}], ids=["shared", "each"])
def test_cuda_kernel_matches_the_reference(
    library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    launched = []

    def on_host(*arguments: Any) -> None:
        table, factors, factor_table = door._prepared(*arguments)
        launched.append(table)
        count, chunks = (ctypes.c_int64(n) for n in (table.rows.shape[1], len(table.chunk_tensor)))
        pointers = [cuda_on_host.pointer(t) for t in (table.rows, table.chunk_tensor, table.chunk_start, factor_table)]
        numbers = (ctypes.c_float * 7)(*factors[:7])
        rows, tensor, start, several = pointers
        assert library.run(rows, count, tensor, start, chunks, ctypes.c_int64(CHUNK), several, numbers) == 0

    monkeypatch.setitem(door.BACKENDS, "triton", Backend(on_host, on_host))  # which takes every dtype on the CPU
    random = torch.Generator().manual_seed(1)
    states = [[torch.randn(shape, generator=random) for shape in SHAPES] for _ in range(3)]
    states[2] = [t.square() for t in states[2]]
    grads = [torch.randn(shape, generator=random).to(d) for shape, d in zip(SHAPES, GRADS, strict=True)]
    copies = [None if d is None else torch.full(s, torch.nan, dtype=d) for s, d in zip(SHAPES, COPIES, strict=True)]
    expected = [[t.clone() for t in group] for group in states]
    door.fused_adam(states[0], grads, *states[1:], step=3, **settings, working_copies=copies, impl="triton")
    door.fused_adam(expected[0], grads, *expected[1:], step=3, **settings, impl="reference")
    assert len(launched) == 1
    for ours, theirs in zip(states, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=2e-6, atol=2e-7)
    for param, copy in zip(states[0], copies, strict=True):
        assert copy is None or torch.equal(copy, param.to(copy.dtype))
