"""The whole method runs on EG3D: a camera a step, planes compared, metrics over 11 views."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from stopping import PHOTO_CONFIG, stand_ins
from tiny import TinyIdentity, TinyPerceptual, seeded
from tiny_eg3d import tiny_eg3d

from guide_fast import _networks, pipeline
from guide_fast.artifacts import weights_sha256
from guide_fast.config import LtuConfig
from guide_fast.ltu import Bank, Networks, preservation_bank
from guide_fast.ltu.step import Reading, Step
from guide_fast.ltu.terms import PERCEPTUAL_SIZE, observe
from guide_fast.models import loading
from guide_fast.models.checkpoint import read_checkpoint
from guide_fast.models.eg3d import EG3D
from guide_fast.models.framing import ffhq_framed
from guide_fast.randomness import stream

pytestmark = pytest.mark.usefixtures(stand_ins.__name__)
CONFIG = replace(
    PHOTO_CONFIG,
    target=replace(PHOTO_CONFIG.target, max_similarity=1.0),  # random weights make much the same of everybody
    ltu=replace(PHOTO_CONFIG.ltu, resolution=32),
    invert=replace(PHOTO_CONFIG.invert, resolution=32),
)


@pytest.fixture(scope="module")
def generator() -> EG3D:
    return tiny_eg3d()


def test_forget_changes_the_backbone_alone_and_rolls_back(generator: EG3D) -> None:
    before = weights_sha256(generator)
    result = pipeline.forget(generator, seed=777, config=CONFIG)
    assert weights_sha256(generator) == before == result.delta.base_sha256
    assert all(name.startswith("backbone.synthesis.") for name in result.delta.tensors)
    changed = pipeline.apply_delta(copy.deepcopy(generator), result.delta)
    with torch.inference_mode():
        after, now = (some.synthesis(result.source.w[None], resolution=32).image for some in (changed, generator))
    assert (after - now).abs().max() > 1e-3
    assert weights_sha256(pipeline.rollback(changed, result.delta)) == before
    views = result.metrics["forgotten_person_views"]
    assert len(views) == 11
    assert result.metrics["forgotten_person_over_views"] == pytest.approx(sum(views) / 11)
    # the middle view is the frontal camera, from which the person is judged otherwise
    assert views[5] == pytest.approx(result.metrics["forgotten_person"], abs=1e-4)


@pytest.mark.slow
def test_a_photo_goes_through_a_published_checkpoint_to_a_delta_that_rolls_back(shared: Path) -> None:
    read = read_checkpoint(shared / "fixtures" / "eg3d_tiny.pkl")
    generator = loading.from_tensors(read.tensors, read.config)
    generator.neural_rendering_resolution = 32  # a sixteenth of the rays
    before = weights_sha256(generator)
    photo = shared / "photos" / "eg3d_aligned_512" / "aligned_1.jpg"
    small = replace(
        CONFIG,
        invert=replace(CONFIG.invert, samples=4, steps_w=1, steps_w_plus=1),
        evaluate=replace(CONFIG.evaluate, neighbours=1, bystanders=2, fd_images=3, stranger_pairs=2),
    )
    result = pipeline.forget(generator, photo=photo, aligned=True, force=True, config=small)
    assert result.source.origin == f"photo:{hashlib.sha256(photo.read_bytes()).hexdigest()}"
    assert result.source.similarity is not None and result.source.w.shape == (generator.num_ws, generator.w_dim)
    assert len(result.metrics["forgotten_person_views"]) == 11
    changed = pipeline.apply_delta(copy.deepcopy(generator), result.delta)
    assert weights_sha256(changed) != before == weights_sha256(pipeline.rollback(changed, result.delta))


def test_brought_curricularface_sees_every_view_but_no_step(generator: EG3D, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = pipeline.forget(generator, seed=777, config=CONFIG)
    load = _networks.load_identity
    monkeypatch.setattr(_networks.brought, "available", lambda name: name == _networks.CURRICULARFACE)
    # the judge's own weights, so that both say the same
    monkeypatch.setattr(
        _networks, "load_identity", lambda name: load(_networks.JUDGE if name == _networks.CURRICULARFACE else name)
    )
    result = pipeline.forget(generator, seed=777, config=CONFIG)
    opinion = result.metrics["id_curricularface"]
    assert opinion["forgotten_person_over_views"] == result.metrics["forgotten_person_over_views"]
    assert result.metrics["forgotten_person_views"] == plain.metrics["forgotten_person_views"]
    assert result.delta.sha256 == plain.delta.sha256
    assert "forgotten_person_over_views" not in result.metrics["third_opinion"]


def test_steps_draw_one_camera_each_for_student_and_teacher(generator: EG3D, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, torch.Tensor]] = []
    plain = EG3D.synthesis

    def watched(self: EG3D, ws: torch.Tensor, c: torch.Tensor | None = None, **options: object) -> object:
        if c is not None and options.get("resolution") == 32:
            seen.append((torch.is_grad_enabled(), c))
        return plain(self, ws, c, **options)

    monkeypatch.setattr(EG3D, "synthesis", watched)
    pipeline.forget(generator, seed=777, config=CONFIG)
    students = [c for learns, c in seen if learns]
    teachers = [c for learns, c in seen if not learns]
    assert len(students) == len(teachers) == CONFIG.ltu.steps
    for student, teacher in zip(students, teachers, strict=True):
        assert torch.equal(student, teacher)
    assert len({tuple(c.flatten().tolist()) for c in students}) == CONFIG.ltu.steps


def eager_losses(
    student: EG3D,
    teacher: EG3D,
    w_u: torch.Tensor,
    w_t: torch.Tensor,
    bank: Bank,
    networks: Networks,
    config: LtuConfig,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Local + adjacency loss, global loss of step 0, pair by pair, as the paper writes them."""
    random = stream("step", config.seed, 0)
    people = teacher.mapping(torch.randn(config.n_adjacent, teacher.z_dim, generator=random))
    lengths = config.radius * torch.rand(config.n_adjacent, generator=random)
    kept = torch.randperm(len(bank), generator=random)[: config.n_global]
    camera = teacher.cameras.draw(random)

    def pair(w_s: torch.Tensor, w_g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        ours = student.synthesis(w_s[None], camera, resolution=config.resolution)
        with torch.no_grad():
            theirs = teacher.synthesis(w_g[None], camera, resolution=config.resolution)
        assert ours.planes is not None and theirs.planes is not None
        a, b = ffhq_framed(ours.image), ffhq_framed(theirs.image)
        taps = [networks.perceptual.features(image, size=PERCEPTUAL_SIZE) for image in (a, b)]
        same = networks.identity.similarity(networks.identity.embed(a), networks.identity.embed(b))
        feature = torch.nn.functional.mse_loss(ours.planes, theirs.planes)
        return feature, networks.perceptual.distance(tuple(taps[0]), tuple(taps[1]))[0], 1 - same[0]

    forget, keep = torch.zeros(()), torch.zeros(())
    directions = [person - w_u for person in people]
    # the configuration's lengths are per slot: the flattened norm is sqrt(L) times that
    offsets = [a * d / d.norm() * teacher.num_ws**0.5 for a, d in zip(lengths, directions, strict=True)]
    for offset in (torch.zeros_like(w_u), *offsets):
        feature, perceptual, identity = pair(w_u + offset, w_t + offset)
        forget = forget + config.feature * feature + config.perceptual * perceptual + config.identity * identity
    for w in bank.ws[kept]:
        _, perceptual, identity = pair(w, w)
        keep = keep + config.perceptual * perceptual + config.identity * identity
    return forget, keep


def test_batched_step_is_the_papers_sum_over_pairs(generator: EG3D) -> None:
    config = CONFIG.ltu
    networks = Networks(TinyIdentity(), TinyPerceptual())
    w_u, w_t = generator.mapping(seeded(2, generator.z_dim, seed=7))
    bank = preservation_bank(generator, networks, size=config.bank, resolution=config.resolution, seed=11)
    student = copy.deepcopy(generator)
    moving = student.layer_parameters("b16.conv1.convolution") | student.layer_parameters("b8.conv0.modulation")
    for i, parameter in enumerate(moving.values()):
        parameter.requires_grad_().data.add_(0.05 * torch.randn(parameter.shape, generator=stream("moved", i)))
    with torch.no_grad():
        fixed = observe(generator.synthesis(torch.stack((w_t, w_u)), resolution=config.resolution), networks)
    step = Step(generator, w_u, w_t, fixed[:1], fixed[1:], networks, bank, config)
    draws = step.draw(0)
    values, _ = Reading(step.gradients(student, list(moving.values()), draws, rows=len(draws)), 0, 1).values()
    forget, keep = eager_losses(student, generator, w_u, w_t, bank, networks, config)
    assert values["forget_loss"] == pytest.approx(forget.item(), rel=1e-5)
    assert values["keep_loss"] == pytest.approx(keep.item(), rel=1e-5, abs=1e-5 * forget.item())
    assert forget.item() > 0 and keep.item() > 0
    wanted = torch.autograd.grad(forget + config.preservation * keep, list(moving.values()))
    for parameter, gradient in zip(moving.values(), wanted, strict=True):
        assert parameter.grad is not None
        assert (parameter.grad - gradient).abs().max() <= 1e-4 * gradient.abs().max()


def test_bank_is_not_rendered_where_the_camera_moves(generator: EG3D, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EG3D, "synthesis", lambda *_, **__: pytest.fail("rendered"))
    networks = Networks(TinyIdentity(), TinyPerceptual())
    bank = preservation_bank(generator, networks, size=4, resolution=32, seed=11)
    assert bank.views is None
    assert bank.ws.shape == (4, generator.num_ws, generator.w_dim)
