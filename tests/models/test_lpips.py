"""LPIPS equals a transcription of its paper, for both backbones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from published_networks import alexnet, linear_heads, lpips, randomised, vgg16
from torch import Tensor, nn

from guide_fast.errors import IntegrityError, UsageError
from guide_fast.models.perceptual.lpips import LPIPS, convert

TAPS = {"lpips-vgg16": (3, 8, 15, 22, 29), "lpips-alex": (1, 4, 7, 9, 11)}
CHANNELS = {"lpips-vgg16": (64, 128, 256, 512, 512), "lpips-alex": (64, 192, 384, 256, 256)}


@pytest.fixture(scope="module")
def backbones() -> dict[str, nn.Module]:
    return {"lpips-vgg16": randomised(vgg16(), 3), "lpips-alex": randomised(alexnet(), 4)}


def published(name: str, backbones: dict[str, nn.Module]) -> dict[str, Tensor]:
    return backbones[name].state_dict() | linear_heads(CHANNELS[name])


@pytest.mark.parametrize("name", TAPS)
def test_distance_equals_the_transcription_with_its_gradient(
    name: str, backbones: dict[str, nn.Module], smooth_images: Callable[..., Tensor]
) -> None:
    network = LPIPS(*convert(name, published(name, backbones)))
    a, b = smooth_images(2, 64).requires_grad_(), smooth_images(2, 64, seed=1)
    expected = lpips(backbones[name].features, TAPS[name], linear_heads(CHANNELS[name]), a, b)
    found = network.distance(network.features(a, size=None), network.features(b, size=None))
    assert found.shape == (2,) and (expected > 1e-2).all()
    assert torch.allclose(found, expected, rtol=1e-4)
    (slope,), (wanted,) = (torch.autograd.grad(value.sum(), a) for value in (found, expected))
    assert (slope - wanted).norm() <= 1e-3 * wanted.norm()


def test_same_images_have_no_distance_and_one_stands_for_many(
    backbones: dict[str, nn.Module], smooth_images: Callable[..., Tensor]
) -> None:
    network = LPIPS(*convert("lpips-alex", published("lpips-alex", backbones)))
    features = network.features(smooth_images(2, 64), size=64)
    one = [tap[:1] for tap in features]
    assert network.distance(features, features).tolist() == [0, 0]
    there, back = network.distance(features, one), network.distance(one, features)
    assert there[0] == 0 and there[1] > 0
    assert torch.allclose(there, back)
    assert network.distance([tap[:0] for tap in features], one).shape == (0,)
    with pytest.raises(UsageError, match="take both at the same size"):
        network.distance(features, network.features(smooth_images(1, 96), size=96))


def test_images_are_resampled_to_256_px_unless_told_otherwise(
    backbones: dict[str, nn.Module], smooth_images: Callable[..., Tensor]
) -> None:
    network = LPIPS(*convert("lpips-alex", published("lpips-alex", backbones)))
    images = smooth_images(1, 100)
    assert network.features(images)[0].shape == (1, 64, 63, 63)
    assert network.features(images, size=None)[0].shape == (1, 64, 24, 24)
    assert network.embed(images).shape == (1, 256)
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_saved_lpips_model_has_both_halves(backbones: dict[str, nn.Module]) -> None:
    state = published("lpips-vgg16", backbones)
    whole = {name.replace("features.", "net.slice1."): value for name, value in state.items()}
    whole |= {"scaling_layer.shift": torch.zeros(1, 3, 1, 1)}
    expected, found = convert("lpips-vgg16", state)[0], convert("lpips-vgg16", whole)[0]
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_half_of_the_weights_says_which_half_is_missing(backbones: dict[str, nn.Module]) -> None:
    with pytest.raises(UsageError, match=r"LPIPS' linear heads .* is in neither; add vgg.pth of LPIPS v0.1 as well"):
        convert("lpips-vgg16", backbones["lpips-vgg16"].state_dict())
    with pytest.raises(UsageError, match=r"torchvision's AlexNet .* add the state dict of torchvision as well"):
        convert("lpips-alex", linear_heads(CHANNELS["lpips-alex"]))


def test_features_of_the_other_backbone_are_refused(backbones: dict[str, nn.Module]) -> None:
    with pytest.raises(UsageError, match="kernel of 11 px, so they are no VGG16; it belongs to lpips-alex"):
        convert("lpips-vgg16", published("lpips-alex", backbones))


def test_damaged_weights_are_named(backbones: dict[str, nn.Module]) -> None:
    state = published("lpips-vgg16", backbones)
    with pytest.raises(IntegrityError, match=r"lin2\.model\.1\.weight has shape \[1, 3, 1, 1\] where LPIPS on VGG16"):
        convert("lpips-vgg16", state | {"lin2.model.1.weight": torch.zeros(1, 3, 1, 1)})
    del state["features.28.bias"]
    with pytest.raises(IntegrityError, match=r"LPIPS on VGG16 lacks features\.28\.bias"):
        convert("lpips-vgg16", state)
