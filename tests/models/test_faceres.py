"""FaceRes gives in torch what it gives in TF.js; it tells people apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from guide_fast.models.identity import IdentityNetwork
from guide_fast.models.identity.faceres import OUTPUT_NODE, FaceRes, convert

Files = Callable[[str], dict[str, Path]]
Separates = Callable[[IdentityNetwork], tuple[Tensor, Tensor]]


@pytest.fixture(scope="module")
def network(source_files: Files) -> FaceRes:
    return FaceRes(*convert(source_files("faceres")))


def test_embedding_equals_tfjs(
    network: FaceRes,
    source_files: Files,
    smooth_images: Callable[..., Tensor],
    run_tfjs: Callable[[Path, str, Tensor], Tensor],
) -> None:
    crops = smooth_images(2, 224) * 127.5 + 127.5
    pixels = crops.flip(1) - torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    expected = run_tfjs(source_files("faceres")["faceres.json"], OUTPUT_NODE, pixels.permute(0, 2, 3, 1).contiguous())
    with torch.no_grad():
        torch.testing.assert_close(network(crops), expected, rtol=1e-4, atol=1e-4)


def test_embedding_has_unit_length(network: FaceRes, smooth_images: Callable[..., Tensor]) -> None:
    torch.testing.assert_close(network.embed(smooth_images(3, 64)).norm(dim=1), torch.ones(3))


def test_every_pair_of_one_person_scores_above_strangers(network: FaceRes, assert_separates: Separates) -> None:
    same, strangers = assert_separates(network)
    assert same.mean() > 0.75
    assert 0.3 < strangers.mean() < 0.45


def test_resolution_of_the_image_hardly_matters(network: FaceRes, shared: Path, photo: Callable[..., Tensor]) -> None:
    file = sorted((shared / "photos/celebahq_1024").glob("*.jpg"))[0]
    with torch.no_grad():
        embeddings = [network.embed(photo(file, size)) for size in (1024, 512, 256)]
    assert network.similarity(embeddings[0], embeddings[1]).item() > 0.99
    assert network.similarity(embeddings[0], embeddings[2]).item() > 0.95


def test_embedding_gradient_is_exact(
    source_files: Files, smooth_images: Callable[..., Tensor], assert_gradient: Callable[..., None]
) -> None:
    network = FaceRes(*convert(source_files("faceres"))).double()
    target = torch.linspace(-1, 1, network.dimension, dtype=torch.float64)
    assert_gradient(lambda x: (network.embed(x) * target).sum(), smooth_images(1, 48), step=1e-7, tolerance=1e-4)
