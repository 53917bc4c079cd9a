"""EfficientNet-Lite0 gives what its package gives; the perceptual distance behaves as one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from guide_fast.errors import IntegrityError, UsageError
from guide_fast.models.perceptual import load_perceptual
from guide_fast.models.perceptual.efficientnet_lite import WEIGHTS_FILE, EfficientNetLite0, convert

Files = Callable[[str], dict[str, Path]]


@pytest.fixture(scope="module")
def network(source_files: Files) -> EfficientNetLite0:
    return EfficientNetLite0(*convert(source_files("efficientnet-lite0")))


@pytest.fixture(scope="module")
def reference(source_files: Files) -> torch.nn.Module:
    package = pytest.importorskip(
        "efficientnet_lite_pytorch",
        reason="efficientnet-lite-pytorch is absent: pip install --no-deps efficientnet-lite-pytorch",
    )
    path = str(source_files("efficientnet-lite0")[WEIGHTS_FILE])
    return package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()


def test_pooled_vector_equals_the_package(
    network: EfficientNetLite0, reference: torch.nn.Module, smooth_images: Callable[..., Tensor]
) -> None:
    images = smooth_images(2, 224)
    with torch.no_grad():
        expected = reference.extract_features((images * 127.5 + 127.5 - 127) / 128).mean(dim=(2, 3))
        torch.testing.assert_close(network.embed(images), expected, rtol=1e-4, atol=1e-4)


def test_published_input_normalisation_is_the_surest_about_a_known_photo(
    reference: torch.nn.Module, demo_photo: Path, photo: Callable[..., Tensor]
) -> None:
    pixels = photo(demo_photo, 224) * 127.5 + 127.5
    imagenet = [
        torch.tensor(values).view(1, 3, 1, 1) for values in ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    ]

    def entropy(mean: Tensor | float, deviation: Tensor | float) -> float:
        probability = reference((pixels - mean) / deviation).softmax(dim=1)
        return float(-(probability * probability.log()).sum())

    with torch.no_grad():
        assert entropy(127, 128) < min(entropy(*imagenet), entropy(0, 255))


@pytest.mark.parametrize("size", [64, 97, 224])
def test_taps_halve_in_size(size: int, network: EfficientNetLite0) -> None:
    taps = network.features(torch.zeros(1, 3, size, size), size=None)
    assert [tap.shape[1] for tap in taps] == [16, 24, 40, 112, 320]
    assert [tap.shape[2] for tap in taps] == [-(-size // stride) for stride in (2, 4, 8, 16, 32)]


def test_images_are_resampled_to_the_size_asked_for(
    network: EfficientNetLite0, smooth_images: Callable[..., Tensor]
) -> None:
    images = smooth_images(1, 256)
    reduced = F.interpolate(images, size=(96, 96), mode="bilinear", antialias=True)
    for tap, expected in zip(network.features(images, size=96), network.features(reduced, size=None), strict=True):
        torch.testing.assert_close(tap, expected)


def test_distance_is_zero_to_itself_symmetric_and_grows_with_noise(
    network: EfficientNetLite0, smooth_images: Callable[..., Tensor]
) -> None:
    images = smooth_images(2, 96)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    features = [network.features(images + level * noise, size=None) for level in (0.0, 0.02, 0.2)]
    nothing, little, much = (network.distance(features[0], other) for other in features)
    assert nothing.shape == (2,)
    torch.testing.assert_close(nothing, torch.zeros(2))
    assert (little > 0).all() and (much > 2 * little).all() and (much < 4).all()
    torch.testing.assert_close(much, network.distance(features[2], features[0]))


def test_distance_of_taps_that_do_not_match_is_refused(network: EfficientNetLite0) -> None:
    images = torch.zeros(1, 3, 64, 64)
    with pytest.raises(UsageError, match="taps"):
        network.distance(network.features(images, size=64), network.features(images, size=96))
    with pytest.raises(UsageError, match="taps"):
        network.distance([], [])


def test_distance_gradient_is_exact(
    source_files: Files, smooth_images: Callable[..., Tensor], assert_gradient: Callable[..., None]
) -> None:
    network = EfficientNetLite0(*convert(source_files("efficientnet-lite0"))).double()
    target = network.features(smooth_images(1, 48, seed=1).double(), size=40)
    assert_gradient(
        lambda x: network.distance(network.features(x, size=40), target).sum(),
        smooth_images(1, 48),
        step=1e-8,
        tolerance=1e-4,
    )


def test_distance_of_an_image_to_itself_has_a_finite_gradient(network: EfficientNetLite0) -> None:
    images = torch.zeros(1, 3, 64, 64, requires_grad=True)
    features = network.features(images, size=None)
    network.distance(features, [tap.detach() for tap in features]).sum().backward()
    assert images.grad is not None and torch.isfinite(images.grad).all()


def test_state_dict_without_a_tensor_is_refused(source_files: Files, tmp_path: Path) -> None:
    state = torch.load(source_files("efficientnet-lite0")[WEIGHTS_FILE], weights_only=True)
    del state["_blocks.3._bn1.running_var"]
    torch.save(state, tmp_path / WEIGHTS_FILE)
    with pytest.raises(IntegrityError, match=r"_blocks.3._bn1.running_var"):
        convert({WEIGHTS_FILE: tmp_path / WEIGHTS_FILE})


def test_load_perceptual_gives_a_frozen_network(asset_or_skip: Callable[[str], object]) -> None:
    asset_or_skip("efficientnet-lite0")
    network = load_perceptual()
    assert not network.training and not any(parameter.requires_grad for parameter in network.parameters())
    assert network.embed(torch.zeros(2, 3, 64, 64)).shape == (2, 1280)
