"""A selective modulation sends one person elsewhere, and folds back into a plain one that does the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from guide_fast.ltu.population import Population
from guide_fast.ltu.selective import SelectiveModulation, make_selective, merge_selective
from guide_fast.models.mobile_stylegan import MobileStyleGAN
from guide_fast.models.modulation import Modulation


@pytest.fixture
def selective(teacher: MobileStyleGAN, population: Population) -> SelectiveModulation:
    base = teacher.blocks[0].conv1.modulation
    return SelectiveModulation(base, population.whitening(ridge=1.0), population.mean)


def sent(selective: SelectiveModulation, population: Population, w_u: Tensor, w_t: Tensor) -> Tensor:
    """`send` of the first slot; returns the response [D]."""
    w_id = w_u[:1] - population.mean
    response = population.response(w_id, ridge=1.0)[0]
    selective.send(w_id[0], response, w_t[0] - w_u[0])
    return response


def assert_close(found: Tensor, wanted: Tensor) -> None:
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4), (found - wanted).abs().max()


def test_fresh_module_does_what_the_plain_one_does(selective: SelectiveModulation, styles: Tensor) -> None:
    assert torch.equal(selective(styles), selective.base(styles))


def test_send_makes_the_layer_treat_the_person_as_the_target(
    selective: SelectiveModulation, population: Population, w_u: Tensor, w_t: Tensor
) -> None:
    before = selective(w_u[:1])
    sent(selective, population, w_u, w_t)
    assert_close(selective(w_u[:1]), selective.base(w_t[:1]))
    assert not torch.allclose(selective(w_u[:1]), before, atol=1e-2)


def test_send_leaves_alone_who_does_not_answer_the_read_out(
    selective: SelectiveModulation, population: Population, w_u: Tensor, w_t: Tensor, styles: Tensor
) -> None:
    response = sent(selective, population, w_u, w_t)
    answers = (styles - population.mean) @ response
    w_id = w_u[0] - population.mean
    unmoved = styles - answers[:, None] * w_id  # the answer to w_id is 1
    assert_close(selective(unmoved), selective.base(unmoved))
    moved = selective(styles) - selective.base(styles)
    whole = selective.base(w_t[:1]) - selective.base(w_u[:1])
    assert_close(moved, answers[:, None, None, None] * whole)


def test_mean_person_is_not_moved(
    selective: SelectiveModulation, population: Population, w_u: Tensor, w_t: Tensor
) -> None:
    sent(selective, population, w_u, w_t)
    assert_close(selective(population.mean[None]), selective.base(population.mean[None]))


def test_merged_weights_do_the_same(
    selective: SelectiveModulation, population: Population, w_u: Tensor, w_t: Tensor, styles: Tensor
) -> None:
    sent(selective, population, w_u, w_t)
    plain = Modulation(16, len(selective.base.bias), selective.base.scale)
    weight, bias = selective.merged()
    plain.load_state_dict({"weight": weight, "bias": bias})
    everyone = torch.cat((styles, w_u[:1], w_t[:1]))
    assert_close(plain(everyone), selective(everyone))


def test_make_then_merge_gives_plain_modulations_with_the_shift(
    teacher: MobileStyleGAN, population: Population, w_u: Tensor, w_t: Tensor
) -> None:
    layers = ("conv1.modulation", "conv1.convolution", "blocks.1.up.modulation")
    replaced = make_selective(teacher, layers, population.whitening(ridge=1.0), population.mean)
    assert set(replaced) == {"conv1.modulation", "blocks.1.up.modulation"}
    assert teacher.conv1.modulation is replaced["conv1.modulation"]
    for modulation in replaced.values():
        sent(modulation, population, w_u, w_t)
    with torch.no_grad():
        before = teacher.synthesis(w_u[None]).image
        merge_selective(teacher)
        assert_close(teacher.synthesis(w_u[None]).image, before)
    assert not any(isinstance(module, SelectiveModulation) for module in teacher.modules())


def test_merging_an_untouched_shift_keeps_the_bits(teacher: MobileStyleGAN, population: Population) -> None:
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    make_selective(teacher, teacher.layers, population.whitening(ridge=1.0), population.mean)
    merge_selective(teacher)
    after = teacher.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
