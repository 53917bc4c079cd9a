"""FID's Inception-v3 equals a transcription of its description."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from published_networks import FIDInception, randomised
from torch import Tensor

from guide_fast import brought
from guide_fast.artifacts import weights_sha256
from guide_fast.errors import IntegrityError, UsageError
from guide_fast.models.perceptual import load_perceptual
from guide_fast.models.perceptual.inception import NAME, InceptionV3, convert, shapes


@pytest.fixture(scope="module")
def published() -> FIDInception:
    return randomised(FIDInception(), 5, gain=1.2)


@pytest.fixture(scope="module")
def network(published: FIDInception) -> InceptionV3:
    return InceptionV3(*convert(NAME, published.state_dict()))


def test_pool3_equals_the_transcription_with_its_gradient(
    network: InceptionV3, published: FIDInception, smooth_images: Callable[..., Tensor]
) -> None:
    answers, gradients = [], []
    for function in (published, network.embed):
        x = smooth_images(1, 160).requires_grad_()
        y = function(x)
        (gradient,) = torch.autograd.grad(y.square().sum(), x)
        answers.append(y.detach())
        gradients.append(gradient)
    assert answers[0].shape == (1, 2048)
    for (expected, found), tolerance in ((answers, 5e-5), (gradients, 1e-2)):
        assert expected.std() > 1e-3 * expected.abs().max()
        # rounding puts a few of millions of activations on the other side of a kink, which moves a gradient
        assert (found - expected).norm() <= tolerance * expected.norm()


def test_taps_are_those_of_pytorch_fid(network: InceptionV3, smooth_images: Callable[..., Tensor]) -> None:
    with torch.no_grad():
        taps = network.features(smooth_images(1, 107), size=None)
    assert [tuple(tap.shape[1:]) for tap in taps] == [(64, 25, 25), (192, 11, 11), (768, 5, 5), (2048, 2, 2)]
    with pytest.raises(UsageError, match=r"75 px or more, not \[74, 74\]; give size=299"):
        network.features(torch.zeros(1, 3, 74, 74), size=None)


def test_added_file_gives_the_same_network(
    network: InceptionV3, published: FIDInception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUIDE_FAST_HOME", str(tmp_path / "home"))
    file = tmp_path / "pt_inception.pth"
    torch.save(published.state_dict(), file)
    brought.add(NAME, [file])
    loaded = load_perceptual(NAME)
    assert weights_sha256(loaded) == weights_sha256(network)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_every_published_tensor_but_the_classifier_is_read(published: FIDInception) -> None:
    names = {name for name in published.state_dict() if not name.endswith("num_batches_tracked")}
    assert shapes().keys() == names - {"fc.weight", "fc.bias"}


def test_other_weights_are_refused(published: FIDInception) -> None:
    state = dict(published.state_dict())
    with pytest.raises(UsageError, match="torchvision's Inception-v3, which is not the one of FID"):
        convert(NAME, state | {"AuxLogits.conv0.conv.weight": torch.zeros(1)})
    with pytest.raises(UsageError, match=r"holds no Inception-v3 \(it starts with 'a'\)"):
        convert(NAME, {"a": torch.zeros(1)})
    with pytest.raises(IntegrityError, match=r"Mixed_7c\.branch1x1\.conv\.weight has shape \[1\]"):
        convert(NAME, state | {"Mixed_7c.branch1x1.conv.weight": torch.zeros(1)})
    del state["Mixed_6e.branch_pool.bn.bias"]
    with pytest.raises(IntegrityError, match=r"FID's Inception-v3 lacks Mixed_6e\.branch_pool\.bn\.bias"):
        convert(NAME, state)
