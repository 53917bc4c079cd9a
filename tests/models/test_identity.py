"""Identity networks are loaded by name; the check that the network tests rely on can fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from guide_fast.errors import UsageError
from guide_fast.models.framing import Box
from guide_fast.models.identity import IDENTITY_NETWORKS, IdentityNetwork, load_identity


class Blind(IdentityNetwork):
    """Sees the mean colour only."""

    name, size, dimension = "blind", 8, 3

    def forward(self, crops: Tensor) -> Tensor:
        return crops.mean(dim=(2, 3))


def test_assert_separates_rejects_a_network_that_cannot_tell_people_apart(
    assert_separates: Callable[[IdentityNetwork], object],
) -> None:
    with pytest.raises(AssertionError, match="strangers up to"):
        assert_separates(Blind(Box(0, 1, 0, 1)))


def test_unknown_identity_network_is_refused_with_the_known_names() -> None:
    with pytest.raises(UsageError, match="dlib-resnet-v1, faceres, mobileface"):
        load_identity("arcface")


@pytest.mark.parametrize("name", IDENTITY_NETWORKS)
def test_load_identity_gives_a_frozen_network(name: str, asset_or_skip: Callable[[str], object]) -> None:
    asset_or_skip(name)
    network = load_identity(name)
    assert network.name == name
    assert not network.training and not any(parameter.requires_grad for parameter in network.parameters())
    assert network.embed(torch.zeros(2, 3, 40, 40)).shape == (2, network.dimension)
