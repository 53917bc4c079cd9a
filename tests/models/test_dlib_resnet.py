"""dlib's network gives without dlib what it gives in dlib; it tells people apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from guide_fast.errors import IntegrityError
from guide_fast.models.identity import IdentityNetwork
from guide_fast.models.identity.dlib_resnet import WEIGHTS_FILE, DlibResNet, convert

Files = Callable[[str], dict[str, Path]]
Separates = Callable[[IdentityNetwork], tuple[Tensor, Tensor]]


@pytest.fixture(scope="module")
def network(source_files: Files) -> DlibResNet:
    return DlibResNet(*convert(source_files("dlib-resnet-v1")))


def test_embedding_equals_dlib(network: DlibResNet, source_files: Files, smooth_images: Callable[..., Tensor]) -> None:
    dlib = pytest.importorskip("dlib", reason="dlib is absent: pip install dlib-bin")
    reference = dlib.face_recognition_model_v1(str(source_files("dlib-resnet-v1")[WEIGHTS_FILE]))
    noise = torch.randint(0, 256, (1, 3, 150, 150), generator=torch.Generator().manual_seed(0)).float()
    crops = torch.cat([(smooth_images(3, 150) * 127.5 + 127.5).round(), noise])
    expected = [reference.compute_face_descriptor(crop.permute(1, 2, 0).byte().contiguous().numpy()) for crop in crops]
    with torch.no_grad():
        torch.testing.assert_close(network(crops), torch.tensor(np.array(expected)).float(), rtol=0, atol=2e-6)


def test_one_person_is_nearer_than_strangers(network: DlibResNet, assert_separates: Separates) -> None:
    same, strangers = assert_separates(network)
    assert same.mean() > 0.5
    assert abs(strangers.mean()) < 0.15


def test_similarity_of_a_picture_with_itself_is_one_with_a_finite_gradient(
    network: DlibResNet, smooth_images: Callable[..., Tensor]
) -> None:
    images = smooth_images(2, 64).requires_grad_()
    embedding = network.embed(images)
    similarity = network.similarity(embedding, embedding.detach())
    torch.testing.assert_close(similarity.detach(), torch.ones(2))
    similarity.sum().backward()
    assert images.grad is not None and torch.isfinite(images.grad).all()


def test_embedding_gradient_is_exact(
    source_files: Files, smooth_images: Callable[..., Tensor], assert_gradient: Callable[..., None]
) -> None:
    network = DlibResNet(*convert(source_files("dlib-resnet-v1"))).double()
    target = torch.linspace(-0.2, 0.2, 128, dtype=torch.float64)
    assert_gradient(lambda x: (network.embed(x) - target).square().sum(), smooth_images(1, 48))


@pytest.mark.parametrize("length", [0, 100, 20_000])
def test_file_that_was_cut_is_refused(length: int, source_files: Files, tmp_path: Path) -> None:
    cut = tmp_path / WEIGHTS_FILE
    cut.write_bytes(source_files("dlib-resnet-v1")[WEIGHTS_FILE].read_bytes()[:length])
    with pytest.raises(IntegrityError, match=WEIGHTS_FILE):
        convert({WEIGHTS_FILE: cut})


def test_file_with_more_bytes_is_refused(source_files: Files, tmp_path: Path) -> None:
    longer = tmp_path / WEIGHTS_FILE
    longer.write_bytes(source_files("dlib-resnet-v1")[WEIGHTS_FILE].read_bytes() + b"\0")
    with pytest.raises(IntegrityError):
        convert({WEIGHTS_FILE: longer})
