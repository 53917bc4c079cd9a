"""The baselines compute the published losses, term by term, in the way that their docstrings promise."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import TinyIdentity, TinyPerceptual, person, tiny_generator
from tiny_eg3d import tiny_eg3d

from guide_fast.bench.baselines.guide_compiled import GuideCompiled
from guide_fast.bench.baselines.guide_method import Method, draw, train_all_layers, ufo_target
from guide_fast.bench.baselines.guide_published import GuidePublished
from guide_fast.config import PAPER_SLOTS
from guide_fast.kernels import _dispatch
from guide_fast.ltu import Networks
from guide_fast.ltu.terms import adjacency_offsets

METHOD = Method(d=4.0, radius=2.0, lr=1e-3)
SEED = 3


def networks() -> Networks:
    return Networks(TinyIdentity(), TinyPerceptual())


def published() -> GuidePublished:
    made = GuidePublished(tiny_generator(), networks(), METHOD)
    made.begin(person(tiny_generator()), SEED)
    return made


def compiled() -> GuideCompiled:
    made = GuideCompiled(tiny_generator(), networks(), METHOD, compiled=False)
    made.begin(person(tiny_generator()), SEED)
    return made


def written_out(student: Any) -> dict[str, float]:
    """The loss of step 0 in the paper's words, one image at a time."""
    base, seen_by = tiny_generator(), networks()
    identity, perceptual = seen_by.identity, seen_by.perceptual
    w_u = person(base)
    w_id = w_u - base.w_mean
    # FACTS: w_mean - d w_id / |w_id| flattened, d = 30 for 14 slots; METHOD's d is one slot's share
    w_t = base.w_mean - (METHOD.d * math.sqrt(base.num_ws)) * w_id / w_id.flatten().norm()
    drawn = draw(base, w_u, METHOD, SEED, 0)

    def pair(w: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        a, b = student.synthesis(w[None]), base.synthesis(wanted[None])
        mse = torch.nn.functional.mse_loss(a.features, b.features)
        features = [perceptual.features(image, size=METHOD.perceptual_size)[0] for image in (a.image, b.image)]
        unit = [f / f.square().sum(1, keepdim=True).add(1e-10).sqrt() for f in features]
        distance = (unit[0] - unit[1]).square().sum(1).mean()
        cosine = torch.nn.functional.cosine_similarity(identity.embed(a.image), identity.embed(b.image))
        return 1e-2 * mse + 1.0 * distance + 0.1 * (1 - cosine).sum()

    def image_alone(w: torch.Tensor) -> torch.Tensor:
        images = (generator.synthesis(w[None]).image for generator in (student, base))
        features = [perceptual.features(image, size=METHOD.perceptual_size)[0] for image in images]
        unit = [f / f.square().sum(1, keepdim=True).add(1e-10).sqrt() for f in features]
        return (unit[0] - unit[1]).square().sum(1).mean()

    with torch.no_grad():
        local = pair(w_u, w_t).item()
        adjacency = sum(pair(w_u + offset, w_t + offset).item() for offset in drawn.offsets)
        kept = sum(image_alone(w).item() for w in drawn.others)
    return {"local": local, "adjacency": adjacency, "global": kept, "loss": local + adjacency + kept}


def moved() -> Any:
    """A student that differs from the teacher, so that the global term is not 0."""
    student = tiny_generator()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(1.02)
    return student


def test_published_terms_are_the_papers() -> None:
    loop, student = published(), moved()
    loop.student.load_state_dict(student.state_dict())
    found, wanted = loop.step(), written_out(student)
    assert found.keys() == wanted.keys()
    for term, value in wanted.items():
        assert found[term] == pytest.approx(value, rel=1e-4), term
        assert value > 0


def test_compiled_loss_is_the_papers() -> None:
    loop, student = compiled(), moved()
    loop.student.load_state_dict(student.state_dict())
    assert loop.step()["loss"] == pytest.approx(written_out(student)["loss"], rel=1e-4)


def test_both_walk_the_same_way() -> None:
    a, b = published(), compiled()
    assert [a.step()["loss"] for _ in range(4)] == pytest.approx([b.step()["loss"] for _ in range(4)], rel=1e-3)


def test_neighbours_lie_where_ours_do() -> None:
    base = tiny_generator()
    w_u = person(base)
    drawn = draw(base, w_u, METHOD, SEED, 5)
    lengths = drawn.offsets.flatten(1).norm(dim=1) / math.sqrt(base.num_ws)
    assert (lengths > 0).all() and (lengths < METHOD.radius).all()
    towards = w_u + drawn.offsets * 1e6
    assert torch.allclose(adjacency_offsets(w_u, towards, lengths), drawn.offsets, atol=1e-4)
    again, other = draw(base, w_u, METHOD, SEED, 5), draw(base, w_u, METHOD, SEED, 6)
    assert torch.equal(again.offsets, drawn.offsets) and not torch.equal(other.offsets, drawn.offsets)


def test_published_length_is_the_papers_for_fourteen_slots() -> None:
    assert Method().d * math.sqrt(PAPER_SLOTS) == pytest.approx(30)
    base = tiny_generator()
    distance = (ufo_target(base, person(base), 4.0) - base.w_mean).norm(dim=1)
    assert torch.allclose(distance, torch.full_like(distance, 4.0), atol=1e-4)


def test_published_makes_sixteen_passes_of_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = published()
    calls: list[int] = []
    for generator in (loop.student, loop._teacher):
        before = generator.synthesis

        def counted(ws: torch.Tensor, *rest: Any, before: Callable = before, **more: Any) -> Any:
            calls.append(len(ws))
            return before(ws, *rest, **more)

        monkeypatch.setattr(generator, "synthesis", counted)
    loop.step()
    assert calls == [1] * 16


def test_published_trains_an_unfrozen_identity_network_for_nothing() -> None:
    seen_by = networks()
    seen_by.identity.weight = torch.nn.Parameter(seen_by.identity.weight, requires_grad=False)
    loop = GuidePublished(tiny_generator(), seen_by, METHOD)
    loop.begin(person(tiny_generator()), SEED)
    loop.step()
    assert loop._identity.weight.grad is not None and loop._identity.weight.grad.abs().max() > 0
    assert not seen_by.identity.weight.requires_grad, "the network of the others stays frozen"


@pytest.mark.parametrize("make", [published, compiled])
def test_every_layer_moves_while_the_base_and_its_mapping_stay(make: Callable[[], Any]) -> None:
    loop = make()
    fresh = tiny_generator()
    loop.step()
    layers = {name for layer in fresh.layers for name in fresh.layer_parameters(layer)}
    after = dict(loop.student.named_parameters())
    for name, parameter in fresh.named_parameters():
        assert torch.equal(after[name], parameter) == (name not in layers), name
    assert all(torch.equal(a, b) for a, b in zip(loop._base.parameters(), fresh.parameters(), strict=True))


@pytest.mark.parametrize("make", [published, compiled])
def test_next_person_starts_from_fresh_weights(make: Callable[[], Any]) -> None:
    loop = make()
    first = [loop.step()["loss"] for _ in range(3)]
    loop.begin(person(tiny_generator(), 9), SEED)
    loop.step()
    loop.begin(person(tiny_generator()), SEED)
    assert [loop.step()["loss"] for _ in range(3)] == pytest.approx(first, rel=1e-6)


@pytest.mark.parametrize("loop", [GuidePublished, GuideCompiled])
def test_no_kernel_of_ours_runs_in_a_baseline(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[str] = []
    before = _dispatch.choose

    def choose(*arguments: Any, **more: Any) -> str:
        chosen.append(before(*arguments, **more))
        return chosen[-1]

    monkeypatch.setattr(_dispatch, "choose", choose)
    more = {} if loop is GuidePublished else {"compiled": False}
    made = loop(tiny_generator(), networks(), METHOD, **more)
    made.begin(person(tiny_generator()), SEED)
    made.step()
    assert chosen and set(chosen) == {"reference"}


def test_both_take_a_generator_with_cameras_and_noise() -> None:
    base = tiny_eg3d()
    w_u = base.mapping(torch.randn(1, base.z_dim, generator=torch.Generator().manual_seed(1)))[0].detach()
    for loop in (GuidePublished(base, networks(), METHOD), GuideCompiled(base, networks(), METHOD, compiled=False)):
        loop.begin(w_u, SEED)
        assert math.isfinite(loop.step()["loss"])


def traced() -> GuideCompiled:
    """As the compiler sees it, forward with backward, but run without a C++ compiler."""
    return GuideCompiled(tiny_generator(), networks(), METHOD, backend="aot_eager")


def test_compiled_step_is_the_uncompiled_one() -> None:
    plain, loop = compiled(), traced()
    loop.begin(person(tiny_generator()), SEED)
    assert loop.compile_seconds > 0 and loop._lose != loop._loss
    loop.step()
    loop.begin(person(tiny_generator()), SEED)  # weights are fresh again, the code is kept
    assert [loop.step()["loss"] for _ in range(3)] == pytest.approx([plain.step()["loss"] for _ in range(3)], rel=1e-3)


def test_compiled_step_with_another_loss_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.compile

    def wrong(function: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
        made = before(function, **settings)
        return made if function.__name__ != "_loss" else lambda *arguments: made(*arguments) * 1.1

    monkeypatch.setattr(torch, "compile", wrong)
    with pytest.raises(RuntimeError, match="not the same method, so not timed"):
        traced()


def test_trained_parameters_are_those_of_the_layers() -> None:
    generator = copy.deepcopy(tiny_generator())
    names = {name for name, p in generator.named_parameters() if p.requires_grad}
    assert not names
    trained = train_all_layers(generator)
    assert len(trained) == len({n for layer in generator.layers for n in generator.layer_parameters(layer)})
