"""The small encoder's head reads maps of any width with the identity; what it reads is scaled alike everywhere."""

from __future__ import annotations

import torch
from tiny import Averages, TinyIdentity, seeded

from guide_fast.models.encoders import small
from guide_fast.models.encoders.small import Head, SmallEncoder, seen


def image(count: int = 2) -> torch.Tensor:
    return seeded(count, 3, small.SIZE, small.SIZE, seed=3).clamp(-1, 1)


def test_maps_have_unit_channels_and_at_most_sixteen_places_a_side() -> None:
    maps, embeddings = seen(image(), identity=TinyIdentity(), perceptual=Averages())
    assert [tuple(x.shape) for x in maps] == [(2, 3, 16, 16), (2, 3, 16, 16), (2, 3, 8, 8)]
    assert torch.allclose(maps[2].square().mean(dim=1), torch.ones(2, 8, 8), atol=1e-4)
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(2), atol=1e-5)


def test_slots_differ_from_the_common_code_by_mixtures_of_the_directions() -> None:
    torch.manual_seed(0)
    head = Head(channels=(3, 3, 3), dimension=24, num_ws=5, w_dim=6)
    with torch.no_grad():
        head.directions.copy_(seeded(small.DIRECTIONS, 30, seed=1))
        code = head(*seen(image(), identity=TinyIdentity(), perceptual=Averages()))
        head.directions.zero_()
        common = head(*seen(image(), identity=TinyIdentity(), perceptual=Averages()))
    assert code.shape == (2, 5, 6)
    assert torch.equal(common, common[:, :1].expand_as(common))
    assert (code - common).abs().amax() > 1e-3


def test_encoder_scales_its_code_and_is_frozen() -> None:
    torch.manual_seed(0)
    head = Head(channels=(3, 3, 3), dimension=24, num_ws=5, w_dim=6)
    config = {"name": "small", "family": "any", "num_ws": 5, "w_dim": 6, "scale": 1.0, "channels": [3, 3, 3]}
    networks = {"identity": TinyIdentity(), "perceptual": Averages()}
    one = SmallEncoder(head.state_dict(), config, **networks)
    three = SmallEncoder(head.state_dict(), config | {"scale": 3.0}, **networks)
    w_mean = seeded(6, seed=2)
    assert torch.allclose(
        three.encode(image(), w_mean=w_mean) - w_mean, 3 * (one.encode(image(), w_mean=w_mean) - w_mean), atol=1e-5
    )
    assert not any(parameter.requires_grad for parameter in one.parameters())
