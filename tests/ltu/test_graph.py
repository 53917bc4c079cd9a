"""On a GPU a step replayed as a graph is the step, waits for nothing, repeats to the byte."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import TinyIdentity, TinyPerceptual, person, tiny_generator

from guide_fast.artifacts import weights_sha256
from guide_fast.config import LtuConfig
from guide_fast.ltu import Networks, Unlearned, preservation_bank, unlearn
from guide_fast.ltu.graph import GraphedGradients
from guide_fast.ltu.population import sample_population
from guide_fast.ltu.step import Reading, Step
from guide_fast.ltu.student import Student
from guide_fast.ltu.terms import observe
from guide_fast.models.low_resolution import attach_head

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

# Of the length of the change: the graph runs the same kernels, so that only the order of atomics may differ.
TOLERANCE = 1e-3


@pytest.fixture
def setting(config: LtuConfig) -> dict[str, Any]:
    teacher = tiny_generator()
    attach_head(teacher, 16)
    teacher = teacher.cuda()
    networks = Networks(TinyIdentity().cuda(), TinyPerceptual().cuda())
    bank = preservation_bank(teacher, networks, size=config.bank, resolution=16, seed=11)
    w_u, w_t = (person(teacher.cpu(), seed).cuda() for seed in (777, 778))
    plain = replace(config, precision="fp32", layers="all", warm_start=False, steps=4)
    return {"teacher": teacher.cuda(), "w_u": w_u, "w_t": w_t, "networks": networks, "bank": bank, "config": plain}


def run(setting: dict[str, Any], **changes: Any) -> Unlearned:
    return unlearn(**setting | {"config": replace(setting["config"], **changes)})


def built(setting: dict[str, Any]) -> tuple[Step, Any, list[torch.nn.Parameter]]:
    teacher, networks = setting["teacher"], setting["networks"]
    with torch.no_grad():
        ws = torch.stack((setting["w_t"], setting["w_u"]))
        views = observe(teacher.synthesis(ws, resolution=16), networks)
    step = Step(
        teacher, setting["w_u"], setting["w_t"], views[:1], views[1:], networks, setting["bank"], setting["config"]
    )
    random = torch.Generator().manual_seed(0)
    population = sample_population(teacher, samples=256, random=random)
    student = Student(teacher, teacher.layers, population, ridge=1.0)
    return step, student.generator, [p for group in student.trainable().values() for p in group.values()]


def test_graph_gives_what_the_step_gives(setting: dict[str, Any]) -> None:
    before = torch.nn.utils.parameters_to_vector(setting["teacher"].parameters())
    with_graph, without = (
        torch.nn.utils.parameters_to_vector(run(setting, cuda_graph=said).generator.parameters())
        for said in ("on", "off")
    )
    assert (with_graph - without).norm() < TOLERANCE * (without - before).norm()


@pytest.mark.parametrize("graph", ["on", "off"])
def test_equal_requests_give_equal_bytes(setting: dict[str, Any], graph: str) -> None:
    hashes = {weights_sha256(run(setting, cuda_graph=graph).generator) for _ in range(2)}
    assert len(hashes) == 1


@pytest.mark.parametrize("graph", [True, False])
def test_step_waits_for_nothing(setting: dict[str, Any], graph: bool) -> None:
    step, student, parameters = built(setting)

    def gradients(draws: Any) -> torch.Tensor:
        return step.gradients(student, parameters, draws, rows=step.rows)

    call = GraphedGradients(gradients, step.draw(0)) if graph else gradients
    call(step.draw(0))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        draws = step.draw(1)
        reading = Reading(call(draws), 1, len(draws.kept))
        optimizer = torch.optim.SGD(parameters, lr=0.0)
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    values, exploded = reading.values()
    assert values["loss"] > 0 and not exploded


def test_replays_follow_their_draws(setting: dict[str, Any]) -> None:
    step, student, parameters = built(setting)

    def gradients(draws: Any) -> torch.Tensor:
        return step.gradients(student, parameters, draws, rows=step.rows)

    plain = [gradients(step.draw(i)).clone() for i in range(3)]
    graphed = GraphedGradients(gradients, step.draw(0))
    for i in (2, 0, 1):
        assert torch.allclose(graphed(step.draw(i)), plain[i], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("changes", [{"identity_stream": "on"}, {"precision": "half"}])
def test_gpu_switches_change_the_result_by_rounding_alone(setting: dict[str, Any], changes: dict[str, str]) -> None:
    plain = {"identity_stream": "off", "cuda_graph": "off"}
    one, other = run(setting, **plain), run(setting, **plain | changes)
    tolerance = 0.1 if "precision" in changes else 1e-3
    for a, b in zip(one.curve, other.curve, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=tolerance)
