"""The bank holds what the teacher makes of its people, computed once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import TinyIdentity, TinyPerceptual, tiny_generator

from guide_fast.ltu import Bank, Networks, preservation_bank
from guide_fast.ltu.terms import observe
from guide_fast.models.low_resolution import attach_head
from guide_fast.models.mobile_stylegan import MobileStyleGAN


def build(teacher: MobileStyleGAN, networks: Networks, folder: Path | None = None, **settings: int) -> Bank:
    return preservation_bank(
        teacher, networks, cache_dir=folder, **({"size": 5, "resolution": 16, "seed": 11} | settings)
    )


def test_views_are_the_networks_answers_to_the_teacher(teacher: MobileStyleGAN, networks: Networks) -> None:
    bank = build(teacher, networks)
    assert len(bank) == 5
    assert bank.ws.shape == (5, 8, 16)
    views = observe(teacher.synthesis(bank.ws, resolution=16), networks)
    assert torch.allclose(bank.views.identity, views.identity, atol=1e-5)
    assert torch.allclose(bank.views.taps[0], views.taps[0], atol=1e-5)
    assert bank.views.features is None
    assert not bank.views.identity.requires_grad


def test_second_bank_comes_from_the_cache(teacher: MobileStyleGAN, networks: Networks, tmp_path: Path) -> None:
    first = build(teacher, networks, tmp_path)

    def refuse(*arguments: object, **settings: object) -> None:
        raise AssertionError("rendered again")

    teacher.synthesis = refuse
    second = build(teacher, networks, tmp_path)
    assert torch.equal(second.ws, first.ws)
    assert torch.equal(second.views.identity, first.views.identity)
    assert torch.equal(second.views.taps[0], first.views.taps[0])


@pytest.mark.parametrize("setting", ["size", "seed", "resolution"])
def test_other_settings_get_their_own_file(
    teacher: MobileStyleGAN, networks: Networks, tmp_path: Path, setting: str
) -> None:
    build(teacher, networks, tmp_path)
    build(teacher, networks, tmp_path, **{setting: 32 if setting == "resolution" else 3})
    assert len(list(tmp_path.iterdir())) == 2


def test_other_weights_get_their_own_file(teacher: MobileStyleGAN, networks: Networks, tmp_path: Path) -> None:
    build(teacher, networks, tmp_path)
    other = tiny_generator(seed=1)
    attach_head(other, 16)
    build(other, networks, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(("name", "seed"), [("another", 7), ("tiny-identity", 2)])
def test_other_networks_get_their_own_file(
    teacher: MobileStyleGAN, networks: Networks, tmp_path: Path, name: str, seed: int
) -> None:
    build(teacher, networks, tmp_path)
    build(teacher, Networks(TinyIdentity(name, seed=seed), TinyPerceptual()), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_same_weights_with_another_head_get_their_own_file(
    teacher: MobileStyleGAN, networks: Networks, tmp_path: Path
) -> None:
    first = build(teacher, networks, tmp_path)
    teacher.heads["16"].bias.add_(0.5)  # as when one was fitted before a delta, the other afterwards
    assert not torch.equal(build(teacher, networks, tmp_path).views.identity, first.views.identity)


def test_damaged_cache_is_rendered_anew(
    teacher: MobileStyleGAN, networks: Networks, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = build(teacher, networks, tmp_path)
    (file,) = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(bytes(data))
    second = build(teacher, networks, tmp_path)
    assert torch.equal(second.views.identity, first.views.identity)
    assert torch.equal(second.views.taps[0], first.views.taps[0])
    assert "made anew" in caplog.text


def test_progress_counts_people(teacher: MobileStyleGAN, networks: Networks) -> None:
    seen = []
    preservation_bank(
        teacher,
        networks,
        size=2,
        resolution=16,
        seed=0,
        progress=lambda stage, done, total, values: seen.append((done, total)),
    )
    assert seen == [(0, 2), (1, 2), (2, 2)]
