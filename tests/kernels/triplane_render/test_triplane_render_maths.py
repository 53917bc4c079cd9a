"""The device maths of triplane_render.cuh, built by the host's compiler, against the formulas in fp64."""

from __future__ import annotations

import ctypes
from pathlib import Path

import contract
import numpy as np
import pytest
import torch

from guide_fast.kernels import triplane_render

from . import ray_by_ray
from .scene import SCENES

CODE = """
#include <cstdarg>
using namespace gf::triplane;
extern "C" gf_status gf_fail(gf_status status, const char*, ...) { return status; }
extern "C" void texel_weights(int plane, const float* p, int w, int h, int* xy, float* weights) {
  const Cell c = cell_on_plane(plane, p[0], p[1], p[2], w, h);
  xy[0] = c.x, xy[1] = c.y;
  for (int k = 0; k < 4; ++k) weights[k] = corner_weight(c, k, w, h);
}
extern "C" void march(const float* depths, const float* sigma, int n, float* weights) {
  float alpha[256], through[256];
  for (int k = 0; k < n - 1; ++k) alpha[k] = opacity(sigma[k], sigma[k + 1], depths[k + 1] - depths[k]);
  transmittance(alpha, n - 1, through);
  for (int k = 0; k < n - 1; ++k) weights[k] = alpha[k] * through[k];
}
extern "C" void fine(const float* depths, const float* weights, int n, const float* u, int m, float* out) {
  float cdf[256];
  cumulate(weights, n - 1, cdf);
  for (int i = 0; i < m; ++i) out[i] = quantile(depths, cdf, n - 2, u[i]);
}
extern "C" void ranks(const float* values, int n, int* out) {
  for (int i = 0; i < n; ++i) out[i] = rank_of(values, n, i);
}
extern "C" void density_gradients(const float* depths, const float* sigma, const float* pull, int n, float* out) {
  float alpha[256], through[256], terms[256], behind[256];
  for (int k = 0; k < n - 1; ++k) alpha[k] = opacity(sigma[k], sigma[k + 1], depths[k + 1] - depths[k]);
  transmittance(alpha, n - 1, through);
  for (int k = 0; k < n - 1; ++k) terms[k] = alpha[k] * through[k] * pull[k];
  suffix_sums(terms, n - 1, behind);
  for (int k = 0; k < n - 1; ++k)
    out[k] = density_gradient(alpha[k], through[k], pull[k], behind[k], sigma[k], sigma[k + 1],
                              depths[k + 1] - depths[k]);
}
extern "C" int cached(const int* xy, const float* fxy, const float* values, int n, int w, int h, float* plane) {
  TexelCache cache;
  int flushes = 0;
  const auto flush = [&](int x, int y, float value) {
    if (x < 0 || y < 0 || x >= w || y >= h) return;
    plane[y * w + x] += value, ++flushes;
  };
  for (int i = 0; i < n; ++i) cache.add({xy[2 * i], xy[2 * i + 1], fxy[2 * i], fxy[2 * i + 1]}, values[i], flush);
  cache.finish(flush);
  return flushes;
}
"""


def pointer(a: np.ndarray) -> ctypes.c_void_p:
    return a.ctypes.data_as(ctypes.c_void_p)


@pytest.fixture(scope="module")
def maths(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder: Path = tmp_path_factory.mktemp("maths")
    return contract.compile_header("triplane_render.cuh", CODE, folder)


def ray(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return np.sort(random.uniform(2, 3, count)).astype(np.float32), random.normal(0, 12, count).astype(np.float32)


def test_texels_are_those_of_grid_sample(maths: ctypes.CDLL) -> None:
    random = np.random.default_rng(0)
    plane = random.normal(size=(1, 5, 7))
    far = np.array([[1e30, 0, 0], [-1e30, 1e30, 2], [1, 1, 1], [-1, -1, -1]])
    for p in np.concatenate([random.uniform(-1.3, 1.3, (50, 3)), far]).astype(np.float32):
        for index, (across, down) in enumerate(((p[0], p[1]), (p[0], p[2]), (p[2], p[0]))):
            xy, weights = np.zeros(2, np.int32), np.zeros(4, np.float32)
            maths.texel_weights(index, pointer(p), 7, 5, pointer(xy), pointer(weights))
            corners = [(xy[0] + (k & 1), xy[1] + (k >> 1)) for k in range(4)]
            got = sum(w * plane[0, y, x] for w, (x, y) in zip(weights, corners, strict=True) if w)
            want = ray_by_ray.bilinear(plane, float(across), float(down))[0] if abs(p).max() < 2 else 0
            assert abs(got - want) < 1e-5


@pytest.mark.parametrize("count", [4, 48, 96, 256])
def test_march_and_quantiles(maths: ctypes.CDLL, count: int) -> None:
    depths, sigma = ray(count, count)
    weights, u = np.zeros(count - 1, np.float32), np.linspace(0, 0.999, 33).astype(np.float32)
    maths.march(pointer(depths), pointer(sigma), count, pointer(weights))
    want = ray_by_ray.interval_weights(depths.astype(float), sigma.astype(float))
    assert np.abs(weights - want).max() < 2e-6 * count
    fine = np.zeros(33, np.float32)
    maths.fine(pointer(depths), pointer(weights), count, pointer(u), 33, pointer(fine))
    assert np.abs(fine - ray_by_ray.fine_depths(depths.astype(float), want, u.astype(float))).max() < 1e-5 * count


def test_ranks_sort_and_keep_the_order_of_equals(maths: ctypes.CDLL) -> None:
    values = np.array([3, 1, 2, 1, 3, 0], np.float32)
    ranks = np.zeros(6, np.int32)
    maths.ranks(pointer(values), 6, pointer(ranks))
    assert ranks.tolist() == [4, 1, 3, 2, 5, 0]


@pytest.mark.parametrize("count", [4, 48, 96])
def test_reverse_march_is_the_gradient(maths: ctypes.CDLL, count: int) -> None:
    depths, sigma = ray(count, 5)
    pull = np.random.default_rng(6).normal(size=count - 1).astype(np.float32)
    out = np.zeros(count - 1, np.float32)
    maths.density_gradients(pointer(depths), pointer(sigma), pointer(pull), count, pointer(out))
    t, s = torch.from_numpy(depths).double(), torch.from_numpy(sigma).double()
    mean = ((s[1:] + s[:-1]) / 2).requires_grad_()
    alpha = 1 - torch.exp(-torch.nn.functional.softplus(mean - 1) * t.diff())
    through = torch.cat([torch.ones(1).double(), 1 - alpha + 1e-10]).cumprod(0)[:-1]
    (want,) = torch.autograd.grad((alpha * through * torch.from_numpy(pull)).sum(), mean)
    assert np.abs(out - want.numpy()).max() < 1e-5 * np.abs(want.numpy()).max()


def test_texel_cache_adds_up_what_single_sums_do(maths: ctypes.CDLL) -> None:
    random = np.random.default_rng(1)
    steps = np.concatenate([random.integers(-1, 2, (40, 2)), random.integers(-4, 5, (20, 2))])
    xy = np.ascontiguousarray(np.cumsum(steps, 0) % 9 - 1, np.int32)
    fxy, values = random.uniform(size=(60, 2)).astype(np.float32), random.normal(size=60).astype(np.float32)
    plane, want = np.zeros((7, 6), np.float32), np.zeros((7, 6))
    flushes = maths.cached(pointer(xy), pointer(fxy), pointer(values), 60, 6, 7, pointer(plane))
    for (x, y), (fx, fy), value in zip(xy, fxy, values, strict=True):
        for i, j in ((0, 0), (1, 0), (0, 1), (1, 1)):
            if 0 <= x + i < 6 and 0 <= y + j < 7:
                want[y + j, x + i] += value * (fx if i else 1 - fx) * (fy if j else 1 - fy)
    assert np.abs(plane - want).max() < 1e-5
    assert flushes < 4 * 60


def test_native_module_renders_numpy_arrays() -> None:
    contract.require_extension()
    from guide_fast import _native

    scene = SCENES["odd"]
    tensors = [t.cpu() for t in scene.tensors()]
    rays = [t.cpu() for t in scene.rays_into_the_box()]
    arrays = [tensors[0].permute(0, 1, 3, 4, 2).numpy(), *(t.numpy() for t in (*rays, *tensors[1:]))]
    features, depth, total = _native.triplane_render(*arrays, coarse=6, fine=5)
    want = triplane_render(
        tensors[0], *rays, tuple(tensors[1:]), depth_resolution=6, depth_resolution_importance=5, impl="cpu"
    )
    for got, expected in zip((features, depth[..., None], total[..., None]), want, strict=True):
        assert torch.equal(torch.from_numpy(got), expected)
    with pytest.raises(ValueError, match="directions has 3"):
        _native.triplane_render(arrays[0], arrays[1], arrays[2][:, [0, 0, 0]], *arrays[3:])
    with pytest.raises(ValueError, match="3 coarse"):
        _native.triplane_render(*arrays, coarse=3, fine=5)
