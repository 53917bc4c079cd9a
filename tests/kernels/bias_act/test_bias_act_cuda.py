"""The CUDA kernels of bias_act, run on the CPU against the reference."""

from __future__ import annotations

import ctypes

import contract
import cuda_on_host
import pytest
import torch
from torch import Tensor

from guide_fast.kernels import _dispatch
from guide_fast.kernels._dispatch import Backend
from guide_fast.kernels.bias_act.bias_act import BACKENDS, bias_act

pytestmark = pytest.mark.skipif(contract.DEVICE != "cpu", reason="a device runs the kernels themselves")

CODE = """
extern "C" gf_status forward(int dtype, const int64_t* n, void** p, int activation, const float* f) {
  const gf_bias_act a{gf_dtype(dtype), n[0], n[1], n[2], p[0], p[1], p[2], gf_activation(activation), f[0], f[1], f[2]};
  return gf_bias_act_cuda(&a, nullptr);
}
extern "C" gf_status backward(int dtype, const int64_t* n, void** p, int activation, const float* f) {
  const gf_bias_act_backward a{gf_dtype(dtype), n[0], n[1], n[2], p[0], p[1], p[2], gf_activation(activation),
                               f[0], f[1], f[2]};
  return gf_bias_act_backward_cuda(&a, nullptr);
}"""
SHAPES = {"one": (1, 1, 1, 1), "odd": (2, 5, 7, 3), "blocks": (1, 3, 19, 11)}
SETTINGS = {"plain": {}, "clamp": {"clamp": 0.5, "gain": 1.7}, "linear": {"activation": "linear"}}


@pytest.fixture(scope="module")
def on_host(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    library = cuda_on_host.build("bias_act", folder=tmp_path_factory.mktemp("bias_act"), code=CODE)

    def run(name: str, sizes: tuple[int, ...], tensors: tuple[Tensor | None, ...], activation: str, *f: float) -> None:
        given = (ctypes.c_void_p * 3)(*(None if t is None else t.data_ptr() for t in tensors))
        dtype, lrelu = contract.DTYPES.index(tensors[0].dtype), activation == "lrelu"
        assert getattr(library, name)(dtype, (ctypes.c_int64 * 3)(*sizes), given, lrelu, (ctypes.c_float * 3)(*f)) == 0

    def forward(x: Tensor, bias: Tensor | None, *settings: float) -> Tensor:
        n, c, h, w = x.shape
        y = _dispatch.empty(tuple(x.shape), x, nhwc=_dispatch.is_nhwc(x))
        run("forward", (n * h * w, c, 1) if _dispatch.is_nhwc(x) else (n, c, h * w), (x, bias, y), *settings)
        return y

    def backward(gy: Tensor, y: Tensor, *settings: float) -> Tensor:
        gx = _dispatch.empty(tuple(y.shape), y, nhwc=_dispatch.is_nhwc(y))
        run("backward", (1, 1, y.numel()), (gy, y, gx), *settings)
        return gx

    return Backend(forward, backward)


@pytest.mark.parametrize("dtype", contract.DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("nhwc", [False, True])
def test_cuda_kernel_matches_the_reference(
    on_host: Backend,
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    settings: dict[str, object],
    nhwc: bool,
) -> None:
    monkeypatch.setitem(BACKENDS, "triton", on_host)  # which takes every dtype on the CPU
    random = torch.Generator().manual_seed(1)
    x = contract.on_a_grid(torch.randn(shape, generator=random), offset=1 / 16).to(dtype)
    bias = contract.on_a_grid(torch.randn(shape[1], generator=random)).to(dtype)
    contract.assert_matches(
        lambda x, b: bias_act(x, b, impl="triton", **settings),
        lambda x, b: bias_act(x, b, impl="reference", **settings),
        [x.contiguous(memory_format=torch.channels_last) if nhwc else x, bias],
    )
