"""The parts of StyleGAN2 serve other generators: more image channels, blocks that do not up-sample, half precision."""

from __future__ import annotations

import pytest
import torch
from tiny import seeded
from torch import nn

from guide_fast.models.stylegan2_layers import Block, Mapping, Synthesis


def filled(module: nn.Module) -> nn.Module:
    """Seeded weights and noise maps, without gradients."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    with torch.no_grad():
        for i, (name, tensor) in enumerate(tensors):
            if not name.endswith("resample"):
                tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(i)) * 0.5)
    return module.requires_grad_(False)


def block(**changes: object) -> Block:
    options = {"w_dim": 8, "size": 16, "img_channels": 3, "last": True} | changes
    made = filled(Block(4, 6, **options))  # type: ignore[arg-type]
    assert isinstance(made, Block)
    return made


def test_synthesis_makes_as_many_image_channels_as_asked() -> None:
    network = filled(Synthesis(w_dim=8, img_resolution=16, img_channels=96, channel_base=64, channel_max=8))
    image, features = network(seeded(2, 6, 8, seed=0))
    assert image.shape == (2, 96, 16, 16)
    assert features.shape == (2, 4, 16, 16)


def test_block_without_up_sampling_adds_to_the_image_as_it_is() -> None:
    ws, x, image = seeded(2, 3, 8, seed=0), seeded(2, 4, 16, 16, seed=1), seeded(2, 3, 16, 16, seed=2)
    features, added = block(up=1)(x, image, ws)
    alone = block(up=1)(x, None, ws)
    assert features.shape == (2, 6, 16, 16)
    assert torch.equal(features, alone[0])
    assert torch.allclose(added, image + alone[1], atol=1e-6)


def test_up_sampling_block_keeps_the_brightness_of_the_image() -> None:
    ws, x = seeded(1, 3, 8, seed=0), seeded(1, 4, 8, 8, seed=1)
    flat = torch.full((1, 3, 8, 8), 0.75)
    difference = block()(x, flat, ws)[1] - block()(x, None, ws)[1]
    assert torch.allclose(difference[..., 2:-2, 2:-2], torch.tensor(0.75), atol=1e-5)


@pytest.mark.parametrize(
    ("count", "half"), [(0, []), (1, [64]), (2, [32, 64]), (4, [8, 16, 32, 64]), (9, [8, 16, 32, 64])]
)
def test_finest_resolutions_are_in_half_precision(count: int, half: list[int]) -> None:
    network = Synthesis(w_dim=8, img_resolution=64, img_channels=3, channel_base=64, channel_max=4, num_fp16_res=count)
    assert [size for size in network.sizes if network.block(size).half_precision] == half


def test_half_precision_is_left_out_on_a_cpu() -> None:
    ws, x = seeded(1, 3, 8, seed=0), seeded(1, 4, 8, 8, seed=1)
    for found, wanted in zip(block(half=True)(x, None, ws), block()(x, None, ws), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("architecture", ["skip", "resnet"])
def test_half_precision_on_a_gpu_is_near_single(architecture: str) -> None:
    options = {"w_dim": 8, "img_resolution": 32, "img_channels": 3, "channel_base": 512, "channel_max": 16}
    options |= {"architecture": architecture, "conv_clamp": 256.0}
    exact = filled(Synthesis(**options))  # type: ignore[arg-type]
    halved = filled(Synthesis(**options, num_fp16_res=3)).cuda()  # type: ignore[arg-type]
    ws = seeded(2, exact.num_ws, 8, seed=0)
    wanted, found = exact(ws)[0], halved(ws.cuda())[0].cpu()
    assert found.dtype == torch.float32
    assert (found - wanted).abs().max() <= 2e-2 * (wanted.max() - wanted.min())


@pytest.mark.parametrize("with_gradient", [True, False])
def test_style_of_the_next_layer_gives_the_same_either_way(with_gradient: bool) -> None:
    ws, x = seeded(2, 3, 8, seed=0), seeded(2, 4, 8, 8, seed=1)
    with torch.set_grad_enabled(with_gradient):
        found = block()(x, None, ws)[0]
    exact = block().double()(x.double(), None, ws.double(), impl="reference")[0]
    assert torch.allclose(found, exact.float(), atol=1e-5)


def test_label_is_normalised_before_it_joins_z() -> None:
    network = filled(Mapping(z_dim=5, c_dim=3, w_dim=8, num_layers=2, lr_multiplier=0.5))
    nn.init.zeros_(network.embed.bias)
    z, c = seeded(2, 5, seed=0), seeded(2, 3, seed=1)
    assert torch.allclose(network(z, 7 * c), network(z, c), atol=1e-5)
    assert torch.allclose(network(3 * z, c), network(z, c), atol=1e-5)
    assert not torch.allclose(network(z, c.flip(0)), network(z, c), atol=1e-3)


def test_widths_of_the_mapping_are_those_asked_for() -> None:
    network = Mapping(z_dim=5, c_dim=3, w_dim=8, num_layers=3, embed_features=7, layer_features=11)
    shapes = {name: tuple(p.shape) for name, p in network.named_parameters() if name.endswith("weight")}
    wanted = {"embed": (7, 3), "fc0": (11, 12), "fc1": (11, 11), "fc2": (8, 11)}
    assert shapes == {f"{name}.weight": shape for name, shape in wanted.items()}
