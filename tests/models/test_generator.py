"""A rendering says what is compared, what frozen networks see."""

from __future__ import annotations

import torch
from tiny import seeded

from guide_fast.models.framing import ffhq_framed
from guide_fast.models.generator import Rendering

IMAGE, FEATURES, PLANES = seeded(1, 3, 40, 40, seed=1), seeded(1, 8, 20, 20, seed=2), seeded(1, 96, 4, 4, seed=3)


def test_flat_generators_compare_features_show_images_as_they_are() -> None:
    flat = Rendering(IMAGE, FEATURES)
    assert flat.compared is FEATURES
    assert flat.framed is IMAGE


def test_generators_with_planes_compare_these_show_images_in_ffhq_framing() -> None:
    solid = Rendering(IMAGE, FEATURES, PLANES)
    assert solid.compared is PLANES
    assert torch.equal(solid.framed, ffhq_framed(IMAGE))
    assert torch.equal(solid.framed[..., 3:, 1:], IMAGE[..., :-3, :-1])  # 0.0735, 0.025 of 40 px
    assert torch.equal(solid.framed[..., 0, 1:], IMAGE[..., 0, :-1])
