"""StyleGAN2's modules for graphs agree with the generator in every published form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import seeded
from tiny_stylegan2 import tiny_stylegan2

from guide_fast.export.onnx_layers import Weights
from guide_fast.export.onnx_parts import weights_of
from guide_fast.export.onnx_stylegan2 import Doubling, Mapping, Synthesis
from guide_fast.kernels.upfirdn2d.upfirdn2d import setup_filter, upsample2d
from guide_fast.models.stylegan2 import StyleGAN2

FORMS: dict[str, dict[str, Any]] = {
    "skip": {},
    "resnet": {"architecture": "resnet"},
    "orig": {"architecture": "orig"},
    "clamp": {"conv_clamp": 0.7, "num_fp16_res": 3},
    "clamped resnet": {"architecture": "resnet", "conv_clamp": 0.7},
    "smallest": {"img_resolution": 8, "channel_base": 64},
    "without noise": {"use_noise": False},
    "128 px": {"img_resolution": 128, "channel_base": 512, "channel_max": 8},
}


def check(generator: StyleGAN2, *, half: bool, noise: str, tolerance: float) -> None:
    tensors = Weights({name: value.numpy() for name, value in weights_of(generator).items()}, half=half)
    synthesis = Synthesis(generator.synthesis_network, tensors, "synthesis_network", noise=noise == "const")
    ws = seeded(3, generator.num_ws, generator.w_dim, seed=3)  # another vector in every slot
    expected, found = generator.synthesis(ws, noise=noise).image, synthesis(ws)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= tolerance * (expected.max() - expected.min())


@pytest.mark.parametrize("noise", ["const", "none"])
@pytest.mark.parametrize("form", FORMS)
def test_synthesis_agrees(form: str, noise: str) -> None:
    check(tiny_stylegan2(**FORMS[form]), half=False, noise=noise, tolerance=2e-6)


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_stays_near(form: str) -> None:
    check(tiny_stylegan2(**FORMS[form]), half=True, noise="const", tolerance=3e-3)


def test_published_weights_agree(shared: Path) -> None:
    from guide_fast.models.checkpoint import read_checkpoint

    read = read_checkpoint(shared / "fixtures" / "stylegan2_64.pkl")
    check(StyleGAN2.from_tensors(read.tensors, read.config), half=False, noise="const", tolerance=1e-5)


@pytest.mark.parametrize("c_dim", [0, 4])
def test_mapping_agrees(c_dim: int) -> None:
    generator = tiny_stylegan2(c_dim=c_dim)
    tensors = Weights({name: value.numpy() for name, value in weights_of(generator).items()}, half=True)
    mapping = Mapping(generator.mapping_network, tensors, "mapping_network", slots=generator.num_ws)
    z, c = seeded(3, generator.z_dim, seed=2), seeded(3, c_dim, seed=4) if c_dim else None
    psi = torch.tensor([1.0, 0.7, 0.0])
    for i in range(3):
        label = None if c is None else c[i : i + 1]
        expected = generator.mapping(z[i : i + 1], label, psi=float(psi[i]))
        assert torch.allclose(mapping(z, psi, c)[i : i + 1], expected, atol=1e-5)


def test_doubling_is_the_operation() -> None:
    x = seeded(2, 3, 5, 4, seed=1)
    expected = upsample2d(x, setup_filter([1, 3, 3, 1]), impl="reference")
    assert torch.allclose(Doubling(3, torch.float32)(x), expected, atol=1e-6)
