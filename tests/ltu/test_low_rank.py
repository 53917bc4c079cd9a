"""Low-rank updates start at nothing, have their rank, fold back into plain tensors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from guide_fast.artifacts import weights_sha256
from guide_fast.config import LtuConfig
from guide_fast.deltas import apply_delta, make_delta, rollback
from guide_fast.ltu import Bank, Networks, unlearn
from guide_fast.ltu.low_rank import make_low_rank, merge_low_rank
from guide_fast.ltu.population import Population
from guide_fast.ltu.student import Student
from guide_fast.models.mobile_stylegan import MobileStyleGAN


def owner() -> nn.Module:
    layer = nn.Conv2d(6, 8, 3)
    torch.nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(0))
    return layer


def test_update_starts_at_nothing_then_has_its_rank() -> None:
    layer = owner()
    before = layer.weight.detach().clone()
    trained = make_low_rank(layer, "weight", rank=2, seed=0, full_name="x.weight")
    assert {name: tuple(p.shape) for name, p in trained.items()} == {"x.weight.a": (2, 54), "x.weight.b": (8, 2)}
    assert torch.equal(layer.weight, before)
    with torch.no_grad():
        trained["x.weight.b"].normal_(generator=torch.Generator().manual_seed(1))
    moved = layer.weight.detach()
    assert torch.linalg.matrix_rank((moved - before).flatten(1)) == 2
    merge_low_rank(layer)
    assert type(layer.weight) is nn.Parameter and torch.equal(layer.weight, moved)
    assert {name for name, _ in layer.named_parameters()} == {"bias", "weight"}


@pytest.mark.parametrize(("name", "rank"), [("bias", 2), ("weight", 8), ("weight", 100)])
def test_tensor_that_has_no_lower_rank_moves_as_a_whole(name: str, rank: int) -> None:
    layer = owner()
    assert make_low_rank(layer, name, rank=rank, seed=0, full_name=name) == {name: getattr(layer, name)}


def test_start_depends_on_seed_with_name() -> None:
    def first(seed: int, name: str) -> Tensor:
        return make_low_rank(owner(), "weight", rank=2, seed=seed, full_name=name)[f"{name}.a"]

    assert torch.equal(first(0, "x"), first(0, "x"))
    assert not torch.equal(first(0, "x"), first(1, "x"))
    assert not torch.equal(first(0, "x"), first(0, "y"))


def test_student_keeps_what_the_closed_form_sent(
    teacher: MobileStyleGAN, population: Population, w_u: Tensor, w_t: Tensor
) -> None:
    plain, low = (Student(teacher, teacher.layers, population, ridge=1.0) for _ in range(2))
    for student in (plain, low):
        student.send(w_u, w_t)
    groups = low.trainable(rank=2)
    assert set(groups["conv1.modulation"]) == {"conv1.modulation.shift.a", "conv1.modulation.shift.b"}
    assert set(groups["conv1.convolution"]) == {"conv1.weight.a", "conv1.weight.b", "conv1.bias"}
    moving = {id(p) for p in low.generator.parameters() if p.requires_grad}
    assert moving == {id(p) for group in groups.values() for p in group.values()}
    assert weights_sha256(low.finish()) == weights_sha256(plain.finish())


def test_low_rank_run_forgets_by_an_update_of_that_rank(
    teacher: MobileStyleGAN, w_u: Tensor, w_t: Tensor, networks: Networks, bank: Bank, config: LtuConfig
) -> None:
    asked = replace(config, rank=1, layers="conv1.*", warm_start=False, steps=25, lr=0.01)
    result = unlearn(teacher, w_u, w_t, networks=networks, bank=bank, config=asked)
    assert result.curve[-1]["forget_loss"] < result.curve[0]["forget_loss"]
    before, after = dict(teacher.named_parameters()), dict(result.generator.named_parameters())
    moved = (after["conv1.weight"] - before["conv1.weight"]).flatten(1).double()
    singular = torch.linalg.svdvals(moved)
    assert singular[0] > 0 and singular[1] < 1e-4 * singular[0]
    again = unlearn(teacher, w_u, w_t, networks=networks, bank=bank, config=asked)
    assert weights_sha256(again.generator) == weights_sha256(result.generator)


def test_delta_of_a_low_rank_run_is_exact(
    teacher: MobileStyleGAN, w_u: Tensor, w_t: Tensor, networks: Networks, bank: Bank, config: LtuConfig
) -> None:
    result = unlearn(teacher, w_u, w_t, networks=networks, bank=bank, config=replace(config, rank=2, layers="all"))
    delta = make_delta(teacher, result.generator, config={}, seeds={}, metrics={})
    before = weights_sha256(teacher)
    assert weights_sha256(apply_delta(teacher, delta)) == weights_sha256(result.generator)
    assert weights_sha256(rollback(teacher, delta)) == before
