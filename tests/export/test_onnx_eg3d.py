"""EG3D's super-resolution for graphs agrees with the generator's."""

from __future__ import annotations

import pytest
import torch
from tiny import seeded
from tiny_eg3d import tiny_eg3d
from torch.nn import functional as F

from guide_fast.export.onnx_eg3d import Enlarging, resizing
from guide_fast.export.onnx_layers import Weights
from guide_fast.export.onnx_parts import weights_of


@pytest.mark.parametrize("raw", [64, 48, 80])
def test_enlarging_agrees(raw: int) -> None:
    generator = tiny_eg3d()
    tensors = Weights({name: value.numpy() for name, value in weights_of(generator).items()}, half=False)
    part = Enlarging(generator.superresolution, tensors, "superresolution", resolution=raw)
    features, ws = seeded(2, 32, raw, raw, seed=1), seeded(2, generator.num_ws, generator.w_dim, seed=2)
    with torch.inference_mode():
        expected, found = generator.superresolution(features, ws), part(features, ws)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 2e-6 * (expected.max() - expected.min())


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("before", "after"), [(5, 9), (9, 5), (7, 7)])
def test_resizing_is_bilinear(before: int, after: int, antialias: bool) -> None:
    x = seeded(2, 3, before, before, seed=1)
    rows = resizing(before, after, antialias=antialias)
    expected = F.interpolate(x, size=(after, after), mode="bilinear", align_corners=False, antialias=antialias)
    assert torch.allclose(rows @ x @ rows.T, expected, atol=1e-6)
