"""A step's losses are the paper's: on published checkpoints, against a transcription that knows no batch, no kernel."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import CONFIG, TinyIdentity, TinyPerceptual, seeded
from torch import Tensor
from torch.nn import functional as F

from guide_fast.config import LtuConfig
from guide_fast.ltu import Bank, Networks, preservation_bank
from guide_fast.ltu.step import Reading, Step
from guide_fast.ltu.terms import PERCEPTUAL_SIZE, observe
from guide_fast.models import loading
from guide_fast.models.checkpoint import read_checkpoint
from guide_fast.models.eg3d import EG3D
from guide_fast.models.framing import ffhq_framed
from guide_fast.models.stylegan2 import StyleGAN2
from guide_fast.randomness import stream

Published = StyleGAN2 | EG3D
Losses = tuple[Tensor, Tensor, Tensor]  # local, adjacency, global

# GUIDE's weights and counts; 1 per term where the paper has no weight
WEIGHTS = LtuConfig(n_adjacent=2, n_global=2, feature=1e-2, perceptual=1.0, identity=0.1)
STYLEGAN2, EG3D_TINY = "stylegan2_64.pkl", "eg3d_tiny.pkl"
RESOLUTION = {STYLEGAN2: 64, EG3D_TINY: 32}
MOVED = {STYLEGAN2: ("b32.conv1.convolution", "b16.conv0.modulation"), EG3D_TINY: ("b64.conv1.convolution",)}


class Case:
    """A published generator with everything of a request."""

    def __init__(self, teacher: Published, name: str) -> None:
        self.teacher = teacher
        self.config = replace(WEIGHTS, bank=4, population=64, resolution=RESOLUTION[name], seed=CONFIG.ltu.seed)
        self.networks = Networks(TinyIdentity(), TinyPerceptual())
        self.w_u, self.w_t = teacher.mapping(seeded(2, teacher.z_dim, seed=7))
        self.bank: Bank = preservation_bank(
            teacher, self.networks, size=self.config.bank, resolution=self.config.resolution, seed=11
        )
        self.student = copy.deepcopy(teacher)
        self.moving = {
            key: parameter
            for layer in MOVED[name]
            for key, parameter in self.student.layer_parameters(layer).items()
            if "noise" not in key
        }
        for parameter in self.moving.values():
            parameter.requires_grad_()

    def batched(self, step: int) -> dict[str, float]:
        """Ours; leaves gradients with the student."""
        with torch.no_grad():
            both = self.teacher.synthesis(torch.stack((self.w_t, self.w_u)), resolution=self.config.resolution)
            fixed = observe(both, self.networks)
        ours = Step(self.teacher, self.w_u, self.w_t, fixed[:1], fixed[1:], self.networks, self.bank, self.config)
        draws = ours.draw(step)
        numbers = ours.gradients(self.student, list(self.moving.values()), draws, rows=len(draws))
        return Reading(numbers, step, len(draws.kept)).values()[0]

    def transcribed(self, step: int) -> Losses:
        """FACTS section 1, a pair at a time, in plain PyTorch, from the draws that the step makes."""
        random = stream("step", self.config.seed, step)
        people = self.teacher.mapping(torch.randn(2, self.teacher.z_dim, generator=random))
        a = self.config.radius * torch.rand(2, generator=random)
        kept = torch.randperm(len(self.bank), generator=random)[:2]
        camera = None if self.teacher.cameras is None else self.teacher.cameras.draw(random)

        local = self.pair(self.w_u, self.w_t, camera, features=True)
        adjacency = torch.zeros(())
        for length, w_r in zip(a, people, strict=True):
            direction = w_r - self.w_u
            # the settings count lengths per style vector: the flattened norm is sqrt(L) times that
            offset = length * self.teacher.num_ws**0.5 * direction / direction.flatten().norm()
            adjacency = adjacency + self.pair(self.w_u + offset, self.w_t + offset, camera, features=True)
        # ours adds the identity term to the paper's global one
        everybody = sum((self.pair(w, w, camera, features=False) for w in self.bank.ws[kept]), torch.zeros(()))
        return local, adjacency, everybody

    def pair(self, w_student: Tensor, w_teacher: Tensor, camera: Tensor | None, *, features: bool) -> Tensor:
        """One term of one pair: 1e-2 * MSE(F, F_s) + LPIPS's place + 0.1 * (1 - cos)."""
        size = self.config.resolution
        seen = []
        for generator, w in ((self.student, w_student), (self.teacher, w_teacher)):
            generator.impl = "reference"
            seen.append(generator.synthesis(w[None], camera, resolution=size))
            generator.impl = "auto"
        ours, theirs = seen
        is_3d = ours.planes is not None
        images = [ffhq_framed(r.image) if is_3d else r.image for r in seen]
        total = torch.zeros(())
        if features:
            a, b = (ours.planes, theirs.planes) if is_3d else (ours.features, theirs.features)
            assert a is not None and b is not None
            total = total + 1e-2 * F.mse_loss(a, b)
        taps = [self.networks.perceptual.features(image, size=PERCEPTUAL_SIZE) for image in images]
        distances = [
            (F.normalize(x, dim=1) - F.normalize(y, dim=1)).square().sum(dim=1).mean()
            for x, y in zip(*taps, strict=True)
        ]
        embeddings = [self.networks.identity.embed(image) for image in images]
        cosine = F.cosine_similarity(*embeddings).mean()
        return total + torch.stack(distances).mean() + 0.1 * (1 - cosine)


@pytest.fixture(params=[STYLEGAN2, EG3D_TINY])
def case(shared: Path, request: pytest.FixtureRequest) -> Case:
    read = read_checkpoint(shared / "fixtures" / request.param)
    teacher = loading.from_tensors(read.tensors, read.config)
    assert isinstance(teacher, StyleGAN2 | EG3D)
    return Case(teacher, request.param)


def test_losses_of_step_0_are_the_transcriptions(case: Case) -> None:
    with torch.no_grad():
        local, adjacency, everybody = (term.item() for term in case.transcribed(0))
    values = case.batched(0)
    assert local > 0 and adjacency > 0
    assert values["forget_loss"] == pytest.approx(local + adjacency, rel=1e-5)
    assert everybody == pytest.approx(0, abs=1e-5 * local)  # student and teacher are one
    assert values["keep_loss"] == pytest.approx(0, abs=1e-5 * local)
    if case.teacher.cameras is None:  # fewer draws before a camera would move it
        case.config = replace(case.config, n_adjacent=0)
        assert case.batched(0)["forget_loss"] == pytest.approx(local, rel=1e-5)


def test_batched_step_has_the_gradient_of_its_pairs(case: Case) -> None:
    for i, parameter in enumerate(case.moving.values()):
        parameter.data.add_(0.1 * parameter.std() * torch.randn(parameter.shape, generator=stream("moved", i)))
    # two steps: what is equal draw by draw is equal on average
    for step in (0, 1):
        local, adjacency, everybody = case.transcribed(step)
        assert everybody.item() > 1e-4 * local.item()
        wanted = torch.autograd.grad(
            local + adjacency + case.config.preservation * everybody, list(case.moving.values())
        )
        values = case.batched(step)
        assert values["keep_loss"] == pytest.approx(everybody.item(), rel=1e-4)
        for parameter, gradient in zip(case.moving.values(), wanted, strict=True):
            assert parameter.grad is not None and gradient.abs().max() > 0
            assert (parameter.grad - gradient).norm() <= 1e-4 * gradient.norm()
