"""A step renders once for all pairs, reads its numbers once, stops its backward pass where nothing moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import TinyIdentity, person
from tiny_eg3d import tiny_eg3d
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from guide_fast.config import LtuConfig
from guide_fast.kernels import FusedAdam
from guide_fast.ltu import Bank, Networks, preservation_bank
from guide_fast.ltu.population import Population
from guide_fast.ltu.step import Reading, Step
from guide_fast.ltu.student import Student
from guide_fast.ltu.terms import observe
from guide_fast.models.mobile_stylegan import MobileStyleGAN

Make = Callable[..., Step]


class Reads(TorchDispatchMode):
    """Counts what makes the host wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        self.count += function in (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.nonzero.default,
            torch.ops.aten.equal.default,
        )
        return function(*arguments, **(named or {}))


@pytest.fixture
def make(teacher: MobileStyleGAN, w_u: Tensor, w_t: Tensor, networks: Networks, bank: Bank, config: LtuConfig) -> Make:
    def build(**settings: Any) -> Step:
        with torch.no_grad():
            views = observe(teacher.synthesis(torch.stack((w_t, w_u)), resolution=16), networks)
        return Step(teacher, w_u, w_t, views[:1], views[1:], networks, bank, replace(config, **settings))

    return build


def counted(generator: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images of each synthesis call from now on."""
    calls: list[int] = []
    synthesis = generator.synthesis

    def count(ws: Tensor, *arguments: Any, **named: Any) -> Any:
        calls.append(len(ws))
        return synthesis(ws, *arguments, **named)

    monkeypatch.setattr(generator, "synthesis", count)
    return calls


@pytest.mark.parametrize(
    ("settings", "students", "teachers"),
    [
        ({}, [5], [2]),
        ({"n_adjacent": 0}, [3], []),
        ({"banked": False}, [5], [4]),
        ({"cached_target": False}, [5], [3]),
        ({"cached_target": False, "banked": False}, [5], [5]),
        ({"preserve": "ewc"}, [3], [2]),
    ],
)
def test_step_is_one_student_with_at_most_one_teacher_pass(
    make: Make,
    population: Population,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    students: list[int],
    teachers: list[int],
) -> None:
    step = make(**settings)
    student = Student(step.teacher, step.teacher.layers, population, ridge=1.0)
    parameters = [p for group in student.trainable().values() for p in group.values()]
    draws = step.draw(0)
    seen = counted(student.generator, monkeypatch), counted(step.teacher, monkeypatch)
    step.gradients(student.generator, parameters, draws, rows=step.rows)
    assert seen == (students, teachers)


def test_planes_of_a_3d_generator_come_with_the_image(config: LtuConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = tiny_eg3d()
    networks = Networks(TinyIdentity(), make_perceptual())
    size = generator.resolutions[0]
    bank = preservation_bank(generator, networks, size=3, resolution=size, seed=1)
    w_u, w_t = person(generator, 1), person(generator, 2)
    with torch.no_grad():
        views = observe(generator.synthesis(torch.stack((w_t, w_u)), resolution=size), networks)
    small = replace(config, resolution=size, n_adjacent=1, n_global=1)
    step = Step(generator, w_u, w_t, views[:1], views[1:], networks, bank, small)
    draws = step.draw(0)
    assert draws.camera is not None
    backbone: list[int] = []
    hook = generator.backbone.synthesis.register_forward_hook(lambda module, ws, out: backbone.append(len(ws[0])))
    step.losses(generator, draws, 0, len(draws))
    hook.remove()
    assert backbone == [3, 4]  # the student; the teacher, with the person as they were


def make_perceptual() -> Any:
    from tiny import TinyPerceptual

    return TinyPerceptual()


def test_step_reads_its_numbers_once(make: Make, population: Population) -> None:
    step = make(layers="all")
    student = Student(step.teacher, step.teacher.layers, population, ridge=1.0)
    parameters = [p for group in student.trainable().values() for p in group.values()]
    draws = step.draw(0)
    with Reads() as reads:
        numbers = step.gradients(student.generator, parameters, draws, rows=step.rows)
        assert reads.count == 0
        values, exploded = Reading(numbers, 0, len(draws.kept)).values()
    assert reads.count <= 1
    assert not exploded and values["loss"] > 0


def test_counter_of_reads_counts(teacher: MobileStyleGAN) -> None:
    with Reads() as reads:
        teacher.w_mean.sum().item()
    assert reads.count == 1


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5])
def test_smaller_passes_sum_to_the_same_gradients(make: Make, population: Population, rows: int) -> None:
    step = make()
    student = Student(step.teacher, step.teacher.layers, population, ridge=1.0)
    parameters = [p for group in student.trainable().values() for p in group.values()]
    draws = step.draw(0)
    whole = step.gradients(student.generator, parameters, draws, rows=5)
    wanted = [None if p.grad is None else p.grad.clone() for p in parameters]
    parts = step.gradients(student.generator, parameters, draws, rows=rows)
    assert torch.allclose(parts, whole, rtol=1e-4, atol=1e-6)
    for parameter, gradient in zip(parameters, wanted, strict=True):
        assert (parameter.grad is None) == (gradient is None)
        if gradient is not None:
            assert (parameter.grad - gradient).abs().max() <= 1e-4 * gradient.abs().max() + 1e-7


def test_scaled_loss_gives_the_same_gradients(make: Make, population: Population) -> None:
    step = make()
    student = Student(step.teacher, step.teacher.layers, population, ridge=1.0)
    parameters = [p for group in student.trainable().values() for p in group.values()]
    draws = step.draw(0)
    step.gradients(student.generator, parameters, draws, rows=5)
    wanted = [p.grad.clone() for p in parameters if p.grad is not None]
    replace(step, loss_scale=1024.0).gradients(student.generator, parameters, draws, rows=5)
    found = [p.grad for p in parameters if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))  # a power of two only moves exponents


def test_draws_are_those_of_seed_with_index(make: Make) -> None:
    step = make()
    assert torch.equal(step.draw(3).offsets, step.draw(3).offsets)
    assert not torch.equal(step.draw(3).offsets, step.draw(4).offsets)
    assert not torch.equal(step.draw(3).offsets, make(seed=1).draw(3).offsets)
    assert len(step.draw(0)) == step.rows == 5


@pytest.mark.parametrize(
    ("chosen", "needs"),
    [
        (("blocks.0.conv2.modulation",), {"conv1": False, "blocks.0.conv1": False, "blocks.0.conv2": True}),
        (("conv1.convolution",), {"conv1": True, "blocks.0.conv1": True, "blocks.0.conv2": True}),
    ],
)
def test_backward_pass_stops_above_the_coarsest_chosen_layer(
    make: Make, population: Population, chosen: tuple[str, ...], needs: dict[str, bool]
) -> None:
    step = make()
    student = Student(step.teacher, chosen, population, ridge=1.0)
    parameters = [p for group in student.trainable().values() for p in group.values()]
    recorded = dict.fromkeys(needs, False)
    visited = dict.fromkeys(needs, 0)
    for name in needs:

        def record(module: Any, inputs: Any, output: Tensor, name: str = name) -> None:
            recorded[name] = output.requires_grad
            if output.requires_grad:
                output.register_hook(lambda gradient: visited.__setitem__(name, visited[name] + 1))

        student.generator.get_submodule(name).register_forward_hook(record)
    step.gradients(student.generator, parameters, step.draw(0), rows=5)
    assert recorded == needs
    assert {name: count > 0 for name, count in visited.items()} == needs
    moving = {id(p) for p in parameters}
    assert all(p.grad is None for p in student.generator.parameters() if id(p) not in moving)


def test_without_restriction_every_layer_gets_a_gradient(make: Make, population: Population) -> None:
    step = make(restrict_backward=False)
    student = Student(step.teacher, ("blocks.0.conv2.modulation",), population, ridge=1.0)
    parameters = [p for g in student.trainable(restrict=False).values() for p in g.values()]
    step.gradients(student.generator, parameters, step.draw(0), rows=5)
    assert student.generator.conv1.weight.grad is not None
    optimizer = FusedAdam(parameters, lr=0.1)
    before = student.generator.conv1.weight.detach().clone()
    optimizer.step()
    assert torch.equal(student.generator.conv1.weight, before)


@pytest.mark.parametrize(
    ("place", "said"),
    [(7, ["the local term (perceptual)"]), (14, ["the global term (identity)"]), (5, ["the gradient of the loss"])],
)
def test_number_that_is_not_finite_names_its_term(place: int, said: list[str]) -> None:
    numbers = torch.zeros(15)
    numbers[place] = torch.inf
    assert Reading(numbers, 0, 1).values()[1] == said


def test_step_without_bystanders_reports_none() -> None:
    assert "retained" not in Reading(torch.zeros(15), 0, 0).values()[0]
    assert Reading(torch.zeros(15), 4, 2).values()[0]["retained"] == 0
