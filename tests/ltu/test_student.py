"""A student moves where it may, knows the closed form, ends as a plain generator."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from guide_fast.artifacts import weights_sha256
from guide_fast.errors import UsageError
from guide_fast.ltu.population import Population
from guide_fast.ltu.selective import SelectiveModulation
from guide_fast.ltu.student import Student, layer_gradients
from guide_fast.models.mobile_stylegan import MobileStyleGAN


def test_only_the_chosen_layers_can_move(teacher: MobileStyleGAN, population: Population) -> None:
    student = Student(teacher, ("conv1.convolution", "blocks.0.up.modulation"), population, ridge=1.0)
    groups = student.trainable()
    assert {layer: list(group) for layer, group in groups.items()} == {
        "conv1.convolution": ["conv1.weight", "conv1.bias"],
        "blocks.0.up.modulation": ["blocks.0.up.modulation.shift"],
    }
    moving = [p for p in student.generator.parameters() if p.requires_grad]
    assert {id(p) for p in moving} == {id(p) for group in groups.values() for p in group.values()}
    assert not any(p.requires_grad for p in teacher.parameters())


def test_sent_person_is_rendered_as_the_target(
    teacher: MobileStyleGAN, population: Population, w_u: Tensor, w_t: Tensor
) -> None:
    student = Student(teacher, teacher.layers, population, ridge=1.0)
    student.send(w_u, w_t)
    with torch.no_grad():
        found = student.generator.synthesis(w_u[None]).image
        wanted = teacher.synthesis(w_t[None]).image
        before = teacher.synthesis(w_u[None]).image
    assert (found - wanted).abs().max() < 1e-3 < (before - wanted).abs().max()


def test_each_slot_is_sent_by_its_own_styles(teacher: MobileStyleGAN, population: Population) -> None:
    rng = torch.Generator().manual_seed(0)
    w_u, w_t = (torch.randn(8, 16, generator=rng) for _ in range(2))
    student = Student(teacher, teacher.layers, population, ridge=1.0)
    student.send(w_u, w_t)
    with torch.no_grad():
        found, wanted = student.generator.synthesis(w_u[None]).image, teacher.synthesis(w_t[None]).image
    assert (found - wanted).abs().max() < 1e-3 * wanted.abs().max()


def test_finished_student_is_plain_and_renders_alike(
    teacher: MobileStyleGAN, population: Population, w_u: Tensor, w_t: Tensor
) -> None:
    before = weights_sha256(teacher)
    student = Student(teacher, teacher.layers, population, ridge=1.0)
    student.send(w_u, w_t)
    student.trainable()
    with torch.no_grad():
        wanted = student.generator.synthesis(w_u[None]).image
        found = student.finish().synthesis(w_u[None]).image
    assert torch.allclose(found, wanted, atol=1e-4)
    assert not any(isinstance(module, SelectiveModulation) for module in student.generator.modules())
    assert not any(p.requires_grad for p in student.generator.parameters())
    assert {n for n, _ in student.generator.named_parameters()} == {n for n, _ in teacher.named_parameters()}
    assert weights_sha256(teacher) == before != weights_sha256(student.generator)


def test_slot_is_the_one_the_layer_reads(teacher: MobileStyleGAN) -> None:
    for layer in teacher.layers:
        if layer.endswith("modulation"):
            ws = torch.zeros(1, 8, 16)
            seen = []
            module = teacher.get_submodule(layer)
            hook = module.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(inputs[0]))
            ws[0, teacher.slot(layer)] = 1
            teacher.synthesis(ws)
            hook.remove()
            assert torch.equal(seen[0], torch.ones(1, 16)), layer


def test_unknown_layer_has_no_slot(teacher: MobileStyleGAN) -> None:
    with pytest.raises(UsageError, match="conv9"):
        teacher.slot("conv9.modulation")


def test_layers_past_the_resolution_have_zero_gradient(
    teacher: MobileStyleGAN, population: Population, w_u: Tensor
) -> None:
    groups = (student := Student(teacher, teacher.layers, population, ridge=1.0)).trainable()
    loss = student.generator.synthesis(w_u[None], resolution=16).image.square().sum()
    gradients = layer_gradients(groups, loss)
    assert tuple(gradients) == teacher.layers
    for layer, gradient in gradients.items():
        assert gradient.numel() == sum(p.numel() for p in groups[layer].values())
        past = layer.startswith(("blocks.1.", "to_img.")) and layer != "blocks.1.up.modulation"
        assert bool(gradient.any()) != past, layer
