"""The whole method runs on EG3D: a camera a step, planes compared, metrics over 11 views."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from stopping import PHOTO_CONFIG, stand_ins
from tiny_eg3d import tiny_eg3d

from guide_fast import pipeline
from guide_fast.artifacts import weights_sha256
from guide_fast.models.eg3d import EG3D

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
