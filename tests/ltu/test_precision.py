"""float16 is for parts whose activations stay far inside its range, layer by layer."""

from __future__ import annotations

import pytest
import torch
from tiny import TinyPerceptual, tiny_generator
from tiny_eg3d import tiny_eg3d
from torch import Tensor, nn

from guide_fast.ltu.precision import LARGEST, MARGIN, fitting, half_blocks, largest_activations, set_half


def test_largest_output_of_any_layer_counts() -> None:
    part = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Tanh())
    nn.init.constant_(part[0].weight, 1e6)
    found = largest_activations(lambda: part(torch.ones(1, 2)), {"part": part, "idle": nn.Linear(1, 1)})
    assert found == {"part": 2e6, "idle": 0.0}
    assert not part[0]._forward_hooks


def test_activation_that_is_not_finite_fits_nothing() -> None:
    part = nn.Identity()
    found = largest_activations(lambda: part(torch.tensor([torch.nan, 1.0])), {"part": part})
    assert not fitting(found)


def test_only_parts_inside_the_range_fit() -> None:
    largest = {"small": 3.0, "edge": LARGEST / MARGIN, "large": LARGEST / MARGIN + 1, "idle": 0.0}
    assert fitting(largest) == {"small", "edge"}


def test_block_with_large_features_stays_in_float32(w_u: Tensor) -> None:
    teacher = tiny_generator()
    teacher.blocks[1].conv2.bias.data += 1e5
    blocks = half_blocks(teacher)
    assert list(blocks) == ["blocks.0", "blocks.1"]
    largest = largest_activations(lambda: teacher.synthesis(w_u[None]), blocks)
    assert fitting(largest) == {"blocks.0"}


def test_backbone_of_a_3d_generator_is_never_in_half_precision() -> None:
    assert not any(name.startswith("backbone") for name in half_blocks(tiny_eg3d()))


def test_half_precision_is_for_gpus(w_u: Tensor) -> None:
    teacher = tiny_generator()
    before = teacher.synthesis(w_u[None]).image
    set_half(teacher, frozenset(half_blocks(teacher)), half=True)
    assert all(block.half_precision for block in teacher.blocks)
    assert torch.equal(teacher.synthesis(w_u[None]).image, before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_half_precision_changes_the_image_by_its_rounding(w_u: Tensor) -> None:
    teacher = tiny_generator().cuda()
    w_u = w_u.cuda()
    before = teacher.synthesis(w_u[None]).image
    blocks = frozenset(half_blocks(teacher))
    set_half(teacher, blocks, half=True)
    after = teacher.synthesis(w_u[None]).image
    assert after.dtype == torch.float32
    assert 0 < float((after - before).abs().max()) < 0.02 * float(before.abs().max())
    set_half(teacher, blocks, half=False)
    assert torch.equal(teacher.synthesis(w_u[None]).image, before)


def test_perceptual_network_is_measured_as_a_whole() -> None:
    network = TinyPerceptual()
    found = largest_activations(lambda: network.features(torch.ones(1, 3, 16, 16)), {"perceptual": network})
    assert 0 < found["perceptual"] < 100
