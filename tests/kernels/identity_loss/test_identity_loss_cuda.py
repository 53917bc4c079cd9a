"""The CUDA kernels of identity_loss, run on the CPU against the reference."""

from __future__ import annotations

import ctypes

import contract
import cuda_on_host
import pytest
import torch
from torch import Tensor

from guide_fast.kernels._dispatch import Backend
from guide_fast.kernels.identity_loss.identity_loss import BACKENDS, KINDS, identity_loss

pytestmark = pytest.mark.skipif(contract.DEVICE != "cpu", reason="a device runs the kernels themselves")

CODE = """
extern "C" gf_status run(int dtype, int64_t rows, int64_t width, void** p, int kind, int normalise, int reduce,
                         float scale, float eps) {
  auto out = [&](int i) { return static_cast<float*>(p[i]); };
  const gf_identity_loss a{gf_dtype(dtype), rows, width, p[0], p[1], out(2), out(3), out(4), gf_identity_kind(kind),
                           normalise, reduce, scale, eps};
  return gf_identity_loss_cuda(&a, nullptr);
}"""
SETTINGS = {
    "cosine": {},
    "l2": {"kind": "l2", "scale": 0.5},
    "squared": {"kind": "squared_l2", "reduction": "sum"},
    "raw": {"kind": "l2", "normalise": False, "reduction": "mean"},
    "mean": {"reduction": "mean"},
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return cuda_on_host.build("identity_loss", folder=tmp_path_factory.mktemp("identity_loss"), code=CODE)


@pytest.mark.parametrize("dtype", contract.DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 7), (8, 128), (9, 33), (130, 5), (300, 3)], ids=str)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_cuda_kernel_matches_the_reference(
    library: ctypes.CDLL,
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    shape: tuple[int, int],
    settings: dict[str, object],
) -> None:
    def on_host(
        a: Tensor,
        b: Tensor,
        loss: Tensor,
        da: Tensor | None,
        db: Tensor | None,
        kind: str,
        normalise: bool,
        reduce: bool,
        scale: float,
        eps: float,
    ) -> None:
        given = (ctypes.c_void_p * 5)(*(None if t is None else t.data_ptr() for t in (a, b, loss, da, db)))
        sizes = (ctypes.c_int64(size) for size in a.shape)
        numbers = (ctypes.c_float(scale), ctypes.c_float(eps))
        code = contract.DTYPES.index(a.dtype)
        assert library.run(code, *sizes, given, KINDS.index(kind), normalise, reduce, *numbers) == 0

    monkeypatch.setitem(BACKENDS, "triton", Backend(on_host, on_host))  # which takes every dtype on the CPU
    random = torch.Generator().manual_seed(2)
    contract.assert_matches(
        lambda a, b: identity_loss(a, b, impl="triton", **settings),
        lambda a, b: identity_loss(a, b, impl="reference", **settings),
        [torch.randn(shape, generator=random).to(dtype) for _ in range(2)],
    )
