"""modulated_conv2d below the operator: device maths, the module on NumPy arrays, the measured choice."""

from __future__ import annotations

import ctypes
import math
import os
import subprocess
import sys
from pathlib import Path

import contract
import pytest
import torch
from modulated_conv2d.layers import SHAPES, Shape, inputs
from torch.nn import functional as F

from guide_fast.kernels import _choice, modulated_conv2d
from guide_fast.kernels.modulated_conv2d import _operator
from guide_fast.kernels.modulated_conv2d.modulated_conv2d_reference import fir, transposed


@pytest.fixture(scope="module")
def maths(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    code = """
    extern "C" float demodulation(float sum) { return gf::demodulation(sum); }
    extern "C" float epilogue(float v, float d, float noise, float bias, float next) {
      return gf::Epilogue{GF_LRELU, 0.2f, 1.5f, 2.f}(v, d, noise, bias, next);
    }
    extern "C" float backward(float gy, float y) { return gf::Epilogue{GF_LRELU, 0.2f, 1.5f, 2.f}.backward(gy, y); }
    extern "C" float before(float y) { return gf::Epilogue{GF_LRELU, 0.2f, 1.5f, 2.f}.pre_activation(y); }
    extern "C" float tap(int j) { return gf::fir_tap(j); }
    extern "C" void forward(int kernel, int up, int size, const double* x, const double* w, double* y) {
      for (int phase = 0; phase < up; ++phase) {
        const gf::ConvolutionAxis axis = gf::forward_axis(kernel, up, phase);
        const long rows = up == 1 ? size : gf::phase_size(gf::transposed_size(size, kernel), phase);
        for (int row = 0; row < rows; ++row)
          for (int t = 0; t < axis.taps; ++t) {
            const int from = axis.input(row, t);
            if (from >= 0 && from < size) y[axis.output(row)] += x[from] * w[axis.weight(t)];
          }
      }
    }
    extern "C" void gradient(int kernel, int up, int size, int out, const double* g, const double* w, double* gx) {
      const gf::ConvolutionAxis axis = gf::gradient_axis(kernel, up);
      for (int row = 0; row < size; ++row)
        for (int t = 0; t < axis.taps; ++t) {
          const int from = axis.input(row, t);
          if (from >= 0 && from < out) gx[row] += g[from] * w[axis.weight(t)];
        }
    }"""
    library = contract.compile_header("modulated_conv2d.cuh", code, tmp_path_factory.mktemp("maths"))
    for name in ("demodulation", "epilogue", "backward", "before", "tap"):
        getattr(library, name).restype = ctypes.c_float
    return library


def numbers(*values: float) -> list[ctypes.c_float]:
    return [ctypes.c_float(value) for value in values]


@pytest.mark.parametrize("v", [-3.0, -0.25, 0.0, 0.5, 1.0, 4.0])
def test_device_epilogue_matches_torch_to_the_bit(maths: ctypes.CDLL, v: float) -> None:
    d, noise, bias, following = 0.75, 0.125, -0.5, 3.0
    pre = torch.tensor(v) * d + noise + bias
    y = (F.leaky_relu(pre, 0.2) * 1.5).clamp(-2, 2)
    assert maths.epilogue(*numbers(v, d, noise, bias, following)) == (y * following).item()
    held = abs(y.item()) >= 2
    slope = torch.tensor(0.2 if y < 0 else 1.0).mul(1.5)
    assert maths.backward(*numbers(0.5, y.item())) == (0.0 if held else slope.mul(0.5).item())
    if not held:
        assert maths.before(*numbers(y.item())) == pytest.approx(pre.item(), rel=2**-22)


@pytest.mark.parametrize("total", [0.0, 1e-6, 1.0, 3.7e5])
def test_device_demodulation_matches_torch(maths: ctypes.CDLL, total: float) -> None:
    want = 1 / math.sqrt(total + 1e-8)
    assert maths.demodulation(*numbers(total)) == pytest.approx(want, rel=2**-21)


def test_device_fir_is_the_reference(maths: ctypes.CDLL) -> None:
    impulse = torch.zeros(1, 1, 9, 9)
    impulse[0, 0, 4, 4] = 1
    assert [maths.tap(j) ** 2 for j in range(4)] == [fir(impulse, 3)[0, 0, i, i].item() for i in range(2, 6)]


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_device_indices_are_a_convolution_with_its_adjoint(maths: ctypes.CDLL, k: int, up: int, size: int) -> None:
    random = torch.Generator().manual_seed(1)
    x, w = (torch.randn(n, generator=random, dtype=torch.float64) for n in (size, k))
    x.requires_grad_()
    if up == 1:
        want = F.conv1d(x[None, None], w[None, None], padding=k // 2).flatten()
    else:
        want = F.conv_transpose1d(x[None, None], w[None, None], stride=2).flatten()
    assert up == 1 or transposed(x[None, None, None], w.expand(1, 1, k, k))[0, 0, 0].shape == want.shape
    got = torch.zeros_like(want)
    arrays = [ctypes.c_void_p(t.data_ptr()) for t in (x, w, got)]
    maths.forward(k, up, size, *arrays)
    torch.testing.assert_close(got, want.detach())
    g = torch.randn(len(want), generator=random, dtype=torch.float64)
    gx = torch.zeros(size, dtype=torch.float64)
    maths.gradient(k, up, size, len(g), *[ctypes.c_void_p(t.data_ptr()) for t in (g, w, gx)])
    torch.testing.assert_close(gx, torch.autograd.grad(want, x, g)[0])


@pytest.mark.parametrize("shape", [SHAPES["odd"], SHAPES["up"], SHAPES["up point"]], ids=str)
@pytest.mark.parametrize("demodulate", [False, True])
def test_native_module_computes_the_same_on_numpy_arrays(shape: Shape, demodulate: bool) -> None:
    contract.require_extension()
    from guide_fast import _native

    x, weight, style, noise, bias = inputs(shape, torch.float32)
    settings = {"up": shape.up, "demodulate": demodulate, "gain": 1.5, "clamp": 1}
    want = modulated_conv2d(x, weight, style, noise=noise, bias=bias, **settings, impl="reference")
    got = _native.modulated_conv2d(
        x.permute(0, 2, 3, 1).numpy(),
        weight.numpy(),
        style.numpy(),
        noise=noise[:, 0].numpy(),
        bias=bias.numpy(),
        **settings,
    )
    torch.testing.assert_close(torch.from_numpy(got).permute(0, 3, 1, 2), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"style": (2, 4)}, "2, 4"),
        ({"weight": (7, 5, 2, 2)}, "7, 5, 2, 2"),
        ({"up": 3}, "up=3"),
        ({"x": (2, 3)}, "rank 2"),
    ],
)
def test_native_module_names_bad_input(change: dict, said: str) -> None:
    contract.require_extension()
    from guide_fast import _native

    shapes = {"x": (2, 6, 3, 5), "weight": (7, 5, 3, 3), "style": (2, 5), "up": 1} | change
    arguments = {name: torch.zeros(shape).numpy() if name != "up" else shape for name, shape in shapes.items()}
    with pytest.raises(ValueError, match=said):
        _native.modulated_conv2d(**arguments)


@pytest.mark.parametrize("level", ["base", "v3"])
def test_lower_instruction_sets_agree(level: str) -> None:
    contract.require_extension()
    code = """
import numpy as np
from guide_fast import _native
random = np.random.default_rng(1)
draw = lambda *shape: random.standard_normal(shape, dtype=np.float32)
for up in (1, 2):
    y = _native.modulated_conv2d(draw(1, 7, 13, 9), draw(70, 9, 3, 3), draw(1, 9), bias=draw(70), up=up)
    print(y.size, float(np.abs(y).sum(dtype=np.float64)), float(y.sum(dtype=np.float64)))
"""

    def run(chosen: dict) -> list[float]:
        environment = os.environ | chosen
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        return [float(word) for word in done.stdout.split()]

    root = {"PYTHONPATH": os.pathsep.join([str(Path(contract.ROOT)), *sys.path])}
    assert run(root | {"GUIDE_FAST_ISA": level}) == pytest.approx(run(root), rel=1e-5)


@pytest.mark.parametrize("frozen", [False, True])
def test_measured_choice_runs_every_candidate_with_the_gradients_it_needs(
    frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = inputs(SHAPES["up"], torch.float32, contract.DEVICE)
    tensors[0] = tensors[0].contiguous(memory_format=torch.channels_last).requires_grad_()
    tensors[1].requires_grad_(not frozen)
    asked = []

    def choose(op: str, key: str, candidates: dict, device: torch.device) -> str:
        for call in candidates.values():
            call()
        asked.append((op, key, list(candidates)))
        return "dense"

    monkeypatch.setattr(_choice, "choose", choose)
    if contract.DEVICE == "cpu":
        monkeypatch.setattr(_operator, "_candidates", lambda: ("triton", "dense"))
    settings = (2, True, False, "lrelu", 0.2, 1.5, -1.0)
    assert _operator.fastest(tuple(tensors), settings, recorded=True) == "dense"
    assert _operator.fastest(tuple(tensors), settings, recorded=False) == "dense"
    (op, recorded, names), (_, plain, _) = asked
    assert op == "modulated_conv2d" and names[:2] == ["triton", "dense"]
    size = "2x6x3x4 to 5 k3 up2 float32 demodulated gradients "
    assert recorded == size + ("x" if frozen else "xw") and plain == size + "none"
    assert tensors[0].grad is None
