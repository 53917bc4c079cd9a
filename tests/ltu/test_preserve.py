"""Others are kept by a bound on the change, or by a penalty where they depend on the weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from guide_fast.artifacts import weights_sha256
from guide_fast.config import LtuConfig
from guide_fast.ltu import Bank, Networks, Unlearned, unlearn
from guide_fast.ltu.population import Population
from guide_fast.ltu.preserve import Elastic, TrustRegion, fisher_information
from guide_fast.ltu.student import Student
from guide_fast.models.mobile_stylegan import MobileStyleGAN


def group(*values: float) -> dict[str, nn.Parameter]:
    return {str(i): nn.Parameter(torch.full((2, 2), value)) for i, value in enumerate(values)}


def test_layer_outside_is_drawn_back_onto_the_bound() -> None:
    groups = {"far": group(1.0, 2.0), "near": group(1.0)}
    trust = TrustRegion(groups, 0.1)
    with torch.no_grad():
        groups["far"]["0"] += 3
        groups["near"]["0"] += 0.05
    trust.project()
    assert torch.allclose(groups["far"]["0"], torch.full((2, 2), 1 + 0.1 * 2**0.5))  # its tensor moved alone, of two
    assert torch.equal(groups["far"]["1"], torch.full((2, 2), 2.0))
    assert torch.equal(groups["near"]["0"], torch.full((2, 2), 1.05))


def test_layer_that_has_not_moved_stays() -> None:
    groups = {"still": group(1.0)}
    TrustRegion(groups, 0.1).project()
    assert torch.equal(groups["still"]["0"], torch.ones(2, 2))


def test_penalty_with_its_gradient_is_the_formula() -> None:
    parameters = group(1.0, 2.0)
    fisher = {"0": torch.tensor([[0.0, 1.0], [2.0, 3.0]]), "1": torch.ones(2, 2)}
    elastic = Elastic(parameters, fisher, 5.0)
    with torch.no_grad():
        parameters["0"] += 0.5
        parameters["1"] -= 1.0
    parameters["0"].grad = torch.ones(2, 2)  # of the rest of the loss
    parameters["1"].grad = None  # not seen by the loss
    penalty = elastic()
    assert penalty.item() == pytest.approx(5 * (6 * 0.25 + 4))
    assert torch.allclose(parameters["0"].grad, 1 + 2 * 5 * fisher["0"] * 0.5)
    assert parameters["1"].grad is None


def test_fisher_information_is_where_others_depend_on_weights(
    teacher: MobileStyleGAN, population: Population, bank: Bank, networks: Networks
) -> None:
    student = Student(teacher, teacher.layers, population, ridge=1.0)
    parameters = {name: p for g in student.trainable().values() for name, p in g.items()}
    settings = {"people": 3, "resolution": 16, "seed": 0}
    found = fisher_information(student.generator, parameters, bank, networks, **settings)
    assert found.keys() == parameters.keys()
    assert all((value >= 0).all() for value in found.values())
    assert found["conv1.weight"].sum() > 0
    assert not found["to_img.weight"].any()  # past the image that is looked at
    again = fisher_information(student.generator, parameters, bank, networks, **settings)
    assert all(torch.equal(found[name], again[name]) for name in found)


def moved(teacher: MobileStyleGAN, result: Unlearned) -> float:
    before, after = (torch.nn.utils.parameters_to_vector(g.parameters()) for g in (teacher, result.generator))
    return float((after - before).norm())


@pytest.fixture
def free(config: LtuConfig) -> LtuConfig:
    return replace(config, layers="conv1.convolution", warm_start=False, steps=12, lr=0.01)


def test_trust_region_bounds_the_change_of_a_run(
    teacher: MobileStyleGAN, w_u: Tensor, w_t: Tensor, networks: Networks, bank: Bank, free: LtuConfig
) -> None:
    asked = replace(free, preserve="trust_region", trust=0.004)
    result = unlearn(teacher, w_u, w_t, networks=networks, bank=bank, config=asked)
    count = teacher.conv1.weight.numel() + teacher.conv1.bias.numel()
    assert moved(teacher, result) == pytest.approx(0.004 * count**0.5, rel=1e-3)
    assert "retained" not in result.curve[0]


def test_heavier_penalty_moves_less(
    teacher: MobileStyleGAN, w_u: Tensor, w_t: Tensor, networks: Networks, bank: Bank, free: LtuConfig
) -> None:
    results = [
        unlearn(
            teacher, w_u, w_t, networks=networks, bank=bank, config=replace(free, preserve="ewc", ewc=weight, fisher=4)
        )
        for weight in (0.0, 1e4, 1e4)
    ]
    assert moved(teacher, results[1]) < 0.7 * moved(teacher, results[0])
    assert results[1].curve[-1]["keep_loss"] > 0
    assert weights_sha256(results[1].generator) == weights_sha256(results[2].generator)
