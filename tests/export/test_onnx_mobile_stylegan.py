"""MobileStyleGAN's modules for graphs agree with the generator."""

from __future__ import annotations

import pytest
import torch
from tiny import seeded, tiny_generator

from guide_fast.export.onnx_layers import Weights
from guide_fast.export.onnx_mobile_stylegan import Haar, Mapping, Synthesis
from guide_fast.export.onnx_parts import weights_of
from guide_fast.kernels import haar


def tiny_weights(*, half: bool = False) -> Weights:
    return Weights({name: value.numpy() for name, value in weights_of(tiny_generator()).items()}, half=half)


def test_mapping_agrees() -> None:
    tiny = tiny_generator()
    z, psi = seeded(3, 16, seed=2), torch.tensor([1.0, 0.7, 0.0])
    expected = tiny.w_mean + psi[:, None, None] * (tiny.mapping(z) - tiny.w_mean)
    assert torch.allclose(Mapping(tiny, tiny_weights())(z, psi), expected, atol=1e-5)


@pytest.mark.parametrize("noise", ["const", "none"])
@pytest.mark.parametrize(("half", "tolerance"), [(False, 1e-6), (True, 3e-3)])
def test_synthesis_agrees(noise: str, half: bool, tolerance: float) -> None:
    tiny = tiny_generator()
    ws = seeded(3, tiny.num_ws, tiny.w_dim, seed=3)  # another vector in every slot
    expected = tiny.synthesis(ws, noise=noise).image
    found = Synthesis(tiny, tiny_weights(half=half), noise=noise == "const")(ws)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= tolerance * (expected.max() - expected.min())


def test_haar_is_the_operation() -> None:
    x = seeded(2, 12, 5, 4, seed=1)
    assert torch.allclose(Haar(3, torch.float32)(x), haar(x, impl="reference"), atol=1e-6)
