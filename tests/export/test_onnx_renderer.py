"""The renderer for graphs agrees with the generator's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import seeded
from tiny_eg3d import tiny_eg3d

from guide_fast.export.onnx_layers import Weights
from guide_fast.export.onnx_parts import weights_of
from guide_fast.export.onnx_renderer import Renderer
from guide_fast.kernels.triplane_render.triplane_render_reference import coarse_depths
from guide_fast.models.eg3d import EG3D

FORMS: dict[str, dict[str, Any]] = {
    "published": {},
    "limits of the box": {"ray_start": "auto", "ray_end": "auto"},
    "limits of a small box": {"ray_start": "auto", "ray_end": "auto", "box_warp": 0.3},  # many rays miss it
    "limits of a box that is behind": {"ray_start": "auto", "ray_end": "auto", "box_warp": 1e-4},
    "coarse only": {"depth_resolution_importance": 0},
    "white": {"white_back": True},
    "odd counts": {"depth_resolution": 7, "depth_resolution_importance": 3},
}


def check(generator: EG3D, size: int, tolerance: float, *, depth: float) -> None:
    tensors = Weights({name: value.numpy() for name, value in weights_of(generator).items()}, half=True)
    renderer = Renderer(generator.renderer, generator.decoder, tensors, "decoder", resolution=size)
    ws = seeded(2, generator.num_ws, generator.w_dim, seed=1)
    camera = generator.cameras.draw(torch.Generator().manual_seed(2), 2)
    with torch.inference_mode():
        expected = generator.synthesis(ws, camera, resolution=size)
        assert expected.planes is not None and expected.depth is not None
        features, found = renderer(expected.planes, camera)
    span = expected.features.max() - expected.features.min()
    assert features.shape == expected.features.shape
    assert (features - expected.features).abs().max() <= tolerance * span
    assert found.shape == expected.depth.shape
    assert (found - expected.depth).abs().max() <= depth


@pytest.mark.parametrize("form", FORMS)
def test_renderer_agrees(form: str) -> None:
    check(tiny_eg3d(**FORMS[form]), 32, 1e-5, depth=1e-3)


def test_published_weights_agree(shared: Path) -> None:
    """In float64: planes of random numbers turn a rounding of a ray into a thousandth of what is seen along it."""
    from guide_fast.models.checkpoint import read_checkpoint

    read = read_checkpoint(shared / "fixtures" / "eg3d_tiny.pkl")
    generator = EG3D.from_tensors(read.tensors, read.config)
    tensors = Weights({name: value.numpy() for name, value in weights_of(generator).items()}, half=False)
    sampling, size = generator.renderer, 32
    renderer = Renderer(sampling, generator.decoder, tensors, "decoder", resolution=size).double()
    ends = (torch.tensor([[float(end)]], dtype=torch.float64) for end in (sampling.ray_start, sampling.ray_end))
    renderer.even = coarse_depths(*ends, sampling.coarse, None).reshape(1, 1, -1)
    renderer.quantiles = torch.linspace(0, 1, sampling.fine + 2, dtype=torch.float64)[1:-1]
    camera = generator.cameras.draw(torch.Generator().manual_seed(2), 1).double()
    with torch.inference_mode():
        ws = seeded(1, generator.num_ws, generator.w_dim, seed=1)
        planes = generator.synthesis(ws, camera.float(), resolution=size).planes
        assert planes is not None
        decoder = generator.decoder.double()
        expected, _ = sampling.render(planes.double().unflatten(1, (3, -1)), decoder, camera, size, impl="reference")
        features, _ = renderer(planes.double(), camera)
    assert (features - expected).abs().max() <= 1e-5
