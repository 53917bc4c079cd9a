"""IR networks in the published key naming equal a transcription of their description."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable

import pytest
import torch
from published_networks import IRNetwork, randomised
from torch import Tensor

from guide_fast.errors import IntegrityError, UsageError
from guide_fast.models.identity.iresnet import NETWORKS, IResNet, convert

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def networks() -> dict[str, IRNetwork]:
    """One of each architecture; CurricularFace has no weights in its last batch norm."""
    return {
        name: randomised(IRNetwork(known.units, known.excited, affine=name != "curricularface-ir101"), seed)
        for seed, (name, known) in enumerate(NETWORKS.items())
        if name != "arcface-ir100"  # the architecture of curricularface-ir101
    }


@pytest.fixture
def state(networks: dict[str, IRNetwork]) -> State:
    """An IR-50 to damage."""
    return copy.copy(networks["arcface-ir50"].state_dict())


@pytest.mark.parametrize("name", ["arcface-ir50", "arcface-irse50", "curricularface-ir101"])
def test_network_equals_the_transcription_with_its_gradient(
    name: str, networks: dict[str, IRNetwork], smooth_images: Callable[..., Tensor]
) -> None:
    published = networks[name]
    network = IResNet(*convert(name, published.state_dict()))
    images, direction = smooth_images(2, 112), torch.randn(2, 512, generator=torch.Generator().manual_seed(1))
    answers, gradients = [], []
    for function in (published, lambda x: network(x * 127.5 + 127.5)):
        x = images.clone().requires_grad_()
        y = function(x)
        (gradient,) = torch.autograd.grad((y * direction).sum(), x)
        answers.append(y.detach())
        gradients.append(gradient)
    for (expected, found), tolerance in ((answers, 5e-5), (gradients, 1e-2)):
        assert expected.std() > 1e-3
        # rounding puts a few of millions of activations on the other side of a kink, which moves a gradient
        assert (found - expected).norm() <= tolerance * expected.norm()
    assert network.name == name
    assert not network.training and not any(parameter.requires_grad for parameter in network.parameters())


def test_embedding_sees_the_crop_of_arcface(
    networks: dict[str, IRNetwork], smooth_images: Callable[..., Tensor]
) -> None:
    published = networks["arcface-ir50"]
    images = smooth_images(1, 512)
    small = torch.nn.functional.adaptive_avg_pool2d(images, 256)[:, :, 35:223, 32:220]
    with torch.no_grad():
        expected = published(torch.nn.functional.adaptive_avg_pool2d(small, 112))
        found = IResNet(*convert("arcface-ir50", published.state_dict())).embed(images)
    assert torch.allclose(found, torch.nn.functional.normalize(expected), atol=1e-5)


def test_ir100_with_weights_in_the_last_norm_is_curricularface_too(networks: dict[str, IRNetwork]) -> None:
    state = dict(networks["curricularface-ir101"].state_dict())
    plain, _ = convert("arcface-ir100", state)
    state["output_layer.4.weight"], state["output_layer.4.bias"] = torch.full((512,), 2.0), torch.full((512,), 3.0)
    tensors, config = convert("curricularface-ir101", state)
    assert config == {"name": "curricularface-ir101"}
    assert torch.allclose(tensors["head.weight"], 2 * plain["head.weight"])
    assert torch.allclose(tensors["head.bias"], 2 * plain["head.bias"] + 3, atol=1e-5)


def test_missing_tensor_is_named(state: State) -> None:
    del state["body.3.shortcut_layer.1.running_mean"]
    with pytest.raises(IntegrityError, match=r"^an IR-50 lacks body\.3\.shortcut_layer\.1\.running_mean; get the file"):
        convert("arcface-ir50", state)


def test_wrong_shape_is_named_with_both(state: State) -> None:
    state["output_layer.3.weight"] = torch.zeros(512, 100)
    said = r"output_layer.3.weight has shape [512, 100] where an IR-50 has [512, 25088]; get the file again"
    with pytest.raises(IntegrityError, match=f"^{re.escape(said)}$"):
        convert("arcface-ir50", state)


def test_whole_numbers_are_no_weights(state: State) -> None:
    state["input_layer.2.weight"] = torch.zeros(64, dtype=torch.int64)
    with pytest.raises(IntegrityError, match=r"input_layer\.2\.weight holds torch\.int64"):
        convert("arcface-ir50", state)


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("arcface-ir50", "arcface-irse50", "holds an IR-SE50, not the IR-50 of arcface-ir50; add it as arcface-irse50"),
        ("arcface-irse50", "curricularface-ir101", "add it as arcface-ir100 or curricularface-ir101"),
    ],
)
def test_other_architecture_says_under_which_name(
    name: str, given: str, said: str, networks: dict[str, IRNetwork]
) -> None:
    with pytest.raises(UsageError, match=said):
        convert(name, networks[given].state_dict())


def test_unknown_depth_is_refused_with_the_known_ones(state: State) -> None:
    state = {name: value for name, value in state.items() if not name.startswith("body.23.")}
    with pytest.raises(UsageError, match=r"23 blocks without .* known are 24 \(IR-50\), 24 \(IR-SE50\), 49 \(IR-100\)"):
        convert("arcface-ir50", state)


@pytest.mark.parametrize("number", ["x", "²", "9" * 5000])
def test_names_that_are_no_blocks_do_not_count(state: State, number: str) -> None:
    tensors, _ = convert("arcface-ir50", state | {f"body.{number}.weight": torch.zeros(1)})
    assert len([name for name in tensors if name.endswith(".slope")]) == 1 + 24


def test_another_network_is_not_taken_for_one() -> None:
    with pytest.raises(UsageError, match=r"no IR network \(it starts with 'conv1.weight'\)"):
        convert("arcface-ir50", {"conv1.weight": torch.zeros(1)})
