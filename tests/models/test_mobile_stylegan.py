"""MobileStyleGAN agrees with its published graph, says what it cannot do, renders alike in every mode."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import ARCHITECTURE, person, seeded, tiny_generator
from torch import Tensor

from guide_fast.errors import IntegrityError, UsageError
from guide_fast.kernels import haar
from guide_fast.models.generator import Generator
from guide_fast.models.low_resolution import attach_head
from guide_fast.models.mobile_stylegan import ASSET_NAME, MobileStyleGAN, _interleaved

TOLERANCE = 2e-3  # of images in [-1, 1], absolute
Asset = tuple[dict[str, Tensor], dict[str, Any]]


@pytest.fixture
def tiny() -> MobileStyleGAN:
    return tiny_generator()


@pytest.fixture(scope="module")
def published(asset_or_skip: Callable[[str], Asset]) -> MobileStyleGAN:
    return MobileStyleGAN.from_tensors(*asset_or_skip(ASSET_NAME))


@pytest.fixture(scope="module")
def expected(shared: Path) -> dict[str, Tensor]:
    with np.load(shared / "fixtures" / "mobilestylegan.expected.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def assert_near(found: Tensor, wanted: Tensor, tolerance: float = TOLERANCE) -> None:
    assert found.shape == wanted.shape
    worst = (found - wanted).abs().max().item()
    assert worst <= tolerance, f"off by {worst}, {tolerance} is allowed"


def test_assert_near_can_fail() -> None:
    assert_near(torch.zeros(3), torch.full((3,), 1e-3))
    for wrong in (torch.full((3,), 3e-3), torch.tensor([0.0, 0.0, float("nan")]), torch.zeros(1)):
        with pytest.raises(AssertionError):
            assert_near(torch.zeros(3), wrong)


def test_mapping_agrees_with_the_published_outputs(published: MobileStyleGAN, expected: dict[str, Tensor]) -> None:
    ws = published.mapping(expected["z"])
    assert ws.shape == (3, 23, 512)
    for slot in range(23):
        assert_near(ws[:, slot], expected["w"])


@pytest.mark.parametrize("sample", range(3))
@torch.inference_mode()
def test_image_agrees_with_the_published_outputs(
    published: MobileStyleGAN, expected: dict[str, Tensor], sample: int
) -> None:
    image = published.synthesis(published.mapping(expected["z"][sample : sample + 1])).image[0]
    assert image.shape == (3, 1024, 1024)
    assert_near(image[:, ::8, ::8], expected["image_every8"][sample])
    assert_near(image.mean(dim=(1, 2)), expected["image_mean"][sample], 1e-4)
    assert_near(image.std(dim=(1, 2), correction=0), expected["image_std"][sample], 1e-4)


@torch.inference_mode()
def test_every_pixel_agrees_with_openvino(
    published: MobileStyleGAN, source_files: Callable[[str], dict[str, Path]]
) -> None:
    core = pytest.importorskip("openvino").Core()
    files = source_files(ASSET_NAME)
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    networks = [core.compile_model(files[f"{n}Network.xml"], "CPU", options) for n in ("Mapping", "Synthesis")]
    z = seeded(1, 512, seed=123)
    w = networks[0]([z.numpy()])[0]
    image = networks[1]([w])[0]
    ws = published.mapping(z)
    assert_near(ws[:, 0], torch.from_numpy(w))
    assert_near(published.synthesis(ws).image, torch.from_numpy(image))


def test_mean_style_is_the_mean_of_the_mapping(published: MobileStyleGAN) -> None:
    ws = published.mapping(seeded(4096, 512, seed=0))[:, 0]
    assert_near(published.w_mean, ws.mean(dim=0), 1e-5)


def test_tiny_generator_satisfies_the_protocol(tiny: MobileStyleGAN) -> None:
    assert isinstance(tiny, Generator)
    assert (tiny.num_ws, tiny.img_resolution, tiny.resolutions) == (8, 32, (32,))


def test_mapping_ignores_the_length_of_z(tiny: MobileStyleGAN) -> None:
    z = seeded(4, 16, seed=0)
    assert_near(tiny.mapping(3 * z), tiny.mapping(z), 1e-5)
    assert torch.equal(tiny.mapping(z)[:, 0], tiny.mapping(z)[:, -1])


@pytest.mark.parametrize("shape", [(16,), (2, 15), (2, 16, 1)])
def test_z_of_another_shape_is_refused(tiny: MobileStyleGAN, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"tiny takes \[N, 16\]"):
        tiny.mapping(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(8, 16), (1, 16), (2, 7, 16), (2, 9, 16), (2, 8, 15), (2, 8, 16, 1)])
def test_ws_of_another_shape_are_refused(tiny: MobileStyleGAN, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"tiny takes \[N, 8, 16\]"):
        tiny.synthesis(torch.zeros(shape))


@pytest.mark.parametrize("resolution", [8, 16, 31, 64])
def test_resolution_without_output_is_refused_with_the_known_ones(tiny: MobileStyleGAN, resolution: int) -> None:
    with pytest.raises(UsageError, match=f"has no {resolution} px output; it renders at 32"):
        tiny.synthesis(torch.zeros(1, 8, 16), resolution=resolution)


def test_conditioning_is_refused(tiny: MobileStyleGAN) -> None:
    with pytest.raises(UsageError, match="takes no conditioning"):
        tiny.mapping(torch.zeros(1, 16), torch.zeros(1, 2))
    with pytest.raises(UsageError, match="takes no conditioning"):
        tiny.synthesis(torch.zeros(1, 8, 16), torch.zeros(1, 2))


def test_unknown_noise_is_refused(tiny: MobileStyleGAN) -> None:
    with pytest.raises(UsageError, match="noise='random' is not known"):
        tiny.synthesis(torch.zeros(1, 8, 16), noise="random")


def test_noise_none_is_the_generator_with_zero_maps(tiny: MobileStyleGAN) -> None:
    ws = person(tiny)[None]
    const, none = tiny.synthesis(ws).image, tiny.synthesis(ws, noise="none").image
    assert not torch.equal(const, none)
    for name, buffer in tiny.named_buffers():
        if name.endswith("noise"):
            buffer.zero_()
    assert torch.equal(tiny.synthesis(ws).image, none)


@pytest.mark.parametrize("resolution", [16, 32])
def test_image_with_a_graph_is_the_one_without(tiny: MobileStyleGAN, resolution: int) -> None:
    attach_head(tiny, 16)
    ws = torch.stack((person(tiny, 1), person(tiny, 2)))
    recorded = tiny.requires_grad_(True).synthesis(ws, resolution=resolution)
    assert recorded.image.requires_grad
    with torch.no_grad():
        silent = tiny.synthesis(ws, resolution=resolution)
    with torch.inference_mode():
        inferred = tiny.synthesis(ws, resolution=resolution)
    for other in (silent, inferred):
        assert torch.equal(other.image, recorded.image)
        assert torch.equal(other.features, recorded.features)


def test_rendering_changes_neither_weights_nor_ws(tiny: MobileStyleGAN) -> None:
    ws = person(tiny)[None]
    before = {name: value.clone() for name, value in tiny.state_dict().items()}, ws.clone()
    with torch.no_grad():
        first = tiny.synthesis(ws).image
        assert torch.equal(tiny.synthesis(ws).image, first)
    assert all(torch.equal(value, before[0][name]) for name, value in tiny.state_dict().items())
    assert torch.equal(ws, before[1])


def test_people_of_a_batch_do_not_meet(tiny: MobileStyleGAN) -> None:
    ws = torch.stack([person(tiny, seed) for seed in range(3)])
    together = tiny.synthesis(ws).image
    for i in range(3):
        assert_near(tiny.synthesis(ws[i : i + 1]).image[0], together[i], 1e-5)


def test_every_slot_reaches_the_image(tiny: MobileStyleGAN) -> None:
    ws = person(tiny)[None].requires_grad_()
    tiny.synthesis(ws).image.square().sum().backward()
    assert ws.grad is not None
    assert ws.grad[0].abs().sum(dim=1).min() > 0


def test_gradient_of_the_weights_agrees_with_differences(
    tiny: MobileStyleGAN, assert_gradient: Callable[..., None]
) -> None:
    tiny = tiny.double()
    ws = person(tiny.float())[None].double()
    tiny = tiny.double()
    for name in ("conv1.weight", "blocks.0.up.modulation.weight", "blocks.1.conv1.depthwise"):

        def loss(value: Tensor, name: str = name) -> Tensor:
            image = torch.func.functional_call(tiny, {name: value}, (ws,)).image
            return image.square().sum()

        tiny.forward = tiny.synthesis
        assert_gradient(loss, tiny.get_parameter(name))


def test_layers_cover_every_trainable_tensor_once(tiny: MobileStyleGAN) -> None:
    covered = [name for layer in tiny.layers for name in tiny.layer_parameters(layer)]
    every = {name for name, _ in tiny.named_parameters()}
    assert len(covered) == len(set(covered))
    assert set(covered) == {name for name in every if not name.startswith("mapping_layers.") and name != "input"}
    for layer in tiny.layers:
        for name, parameter in tiny.layer_parameters(layer).items():
            assert tiny.get_parameter(name) is parameter


def test_layers_run_from_coarse_to_fine(tiny: MobileStyleGAN) -> None:
    slots = list(dict.fromkeys(layer.rsplit(".", 1)[0] for layer in tiny.layers))
    blocks = [f"blocks.{i}.{part}" for i in range(2) for part in ("up", "conv1", "conv2")]
    assert slots == ["conv1", *blocks, "to_img"]
    assert len(slots) == tiny.num_ws


@pytest.mark.parametrize("layer", ["mapping_layers.0", "conv1", "blocks.0.up.convolution", ""])
def test_unknown_layer_is_refused(tiny: MobileStyleGAN, layer: str) -> None:
    with pytest.raises(UsageError, match="doctor --layers"):
        tiny.layer_parameters(layer)


def test_weights_of_another_shape_are_an_integrity_error(tiny: MobileStyleGAN) -> None:
    tensors = tiny.state_dict() | {"conv1.weight": torch.zeros(1)}
    with pytest.raises(IntegrityError, match="do not fit tiny"):
        MobileStyleGAN.from_tensors(tensors, ARCHITECTURE)


@pytest.mark.parametrize("shape", [(1, 4, 1, 1), (2, 12, 3, 5)])
def test_haar_is_orthonormal(shape: tuple[int, ...]) -> None:
    count = shape[1] * shape[2] * shape[3]
    basis = torch.eye(count).reshape(count, *shape[1:])
    matrix = haar(basis).flatten(1)
    assert_near(matrix @ matrix.T, torch.eye(count), 1e-6)


def test_haar_follows_the_published_order_of_pixels() -> None:
    ll, lh, hl, hh = 1.0, 0.2, 0.03, 0.004
    block = haar(torch.tensor([ll, lh, hl, hh]).reshape(1, 4, 1, 1))[0, 0]
    signs = ((ll + lh + hl + hh, ll + lh - hl - hh), (ll - lh + hl - hh, ll - lh - hl + hh))
    assert_near(block, torch.tensor(signs) / 2, 1e-6)


def test_published_bands_become_interleaved() -> None:
    rows = torch.arange(8)  # ll of 2 outputs, then lh, hl, hh of each
    assert _interleaved(rows).tolist() == [0, 2, 3, 4, 1, 5, 6, 7]
