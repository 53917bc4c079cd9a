"""Inversion finds the latent of a photo, or refuses with the similarity it measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import seeded
from tiny_eg3d import tiny_eg3d
from tiny_stylegan2 import tiny_stylegan2
from torch import Tensor

from guide_fast.artifacts import Face, Latent
from guide_fast.config import InvertConfig
from guide_fast.errors import GuideFastError, RefusedError, UsageError
from guide_fast.invert import invert
from guide_fast.models.encoders import Encoder
from guide_fast.models.identity import IdentityNetwork
from guide_fast.models.low_resolution import attach_head
from guide_fast.models.mobile_stylegan import MobileStyleGAN
from guide_fast.models.perceptual import PerceptualNetwork

Run = Callable[..., Latent]


@pytest.fixture
def face(generator: MobileStyleGAN) -> Face:
    """A rendering of a latent that no bank holds."""
    z = torch.randn(1, generator.z_dim, generator=torch.Generator().manual_seed(99))
    return Face(generator.synthesis(generator.mapping(z)).image[0], "a" * 64)


@pytest.fixture
def run(
    face: Face,
    generator: MobileStyleGAN,
    identity: IdentityNetwork,
    perceptual: PerceptualNetwork,
    judge: IdentityNetwork,
    config: InvertConfig,
) -> Run:
    """`invert` with the small networks; settings of the configuration are changed by name."""
    settings = {field.name for field in dataclasses.fields(InvertConfig)}

    def call(**changed: object) -> Latent:
        known = {"identity": identity, "perceptual": perceptual, "judge": judge}
        known["config"] = dataclasses.replace(config, **{k: v for k, v in changed.items() if k in settings})
        return invert(face, generator, **known | {k: v for k, v in changed.items() if k not in settings})

    return call


class Recalling(Encoder):
    """Answers with latents it was told, whatever it is shown."""

    name, family, resolution = "recalling", "mobilestylegan", 16

    def __init__(self, code: Tensor) -> None:
        super().__init__(torch.zeros_like(code))
        self.code, (self.num_ws, self.w_dim) = code, code.shape
        self.settle()

    def forward(self, images: Tensor) -> Tensor:
        return self.code.expand(len(images), -1, -1)


def near(generator: MobileStyleGAN, off: float = 0.3) -> Recalling:
    """The latent of `face` with other noise in each slot, as encoders are wrong."""
    z = torch.randn(1, generator.z_dim, generator=torch.Generator().manual_seed(99))
    w = generator.mapping(z)[0]
    return Recalling(w + off * w.std() * torch.randn(w.shape, generator=torch.Generator().manual_seed(1)))


def error(generator: MobileStyleGAN, w: Tensor, face: Face) -> float:
    return (generator.synthesis(w[None]).image[0] - face.image).square().mean().item()


def test_rendered_latent_is_recovered_better_than_the_first_guess(
    run: Run, generator: MobileStyleGAN, face: Face
) -> None:
    guess, found = run(steps_w=0, steps_w_plus=0, force=True), run()
    assert found.w.shape == (generator.num_ws, generator.w_dim) and found.w.dtype == torch.float32
    assert found.w.isfinite().all()
    assert error(generator, found.w, face) < 0.3 * error(generator, guess.w, face)
    assert found.notes["curve"][0] > found.notes["loss"] == min(found.notes["curve"])
    assert found.similarity is not None and found.similarity > 0.9
    assert found.generator == "tiny" and found.origin == f"photo:{'a' * 64}"


def test_same_seed_gives_the_same_latent(run: Run) -> None:
    first, second, other = run(), run(), run(seed=1)
    assert torch.equal(first.w, second.w) and first.notes == second.notes
    assert not torch.equal(first.w, other.w)


def test_poor_inversion_is_refused_with_its_similarity(run: Run) -> None:
    with pytest.raises(RefusedError, match=r"similarity to the photo is 0\.\d+, below 1\.0 .*--force") as caught:
        run(min_similarity=1.0, steps_w=1, steps_w_plus=0)
    assert caught.value.exit_code == 4


def test_force_goes_on(run: Run) -> None:
    latent = run(min_similarity=1.0, steps_w=1, steps_w_plus=0, force=True)
    assert latent.similarity is not None and latent.similarity < 1


def test_without_a_judge_nothing_is_done_unless_forced(run: Run) -> None:
    with pytest.raises(RefusedError, match="no judge"):
        run(judge=None)
    assert run(judge=None, force=True).similarity is None


def test_judge_is_measured_but_never_optimised(run: Run, judge: IdentityNetwork) -> None:
    seen: list[bool] = []
    judge.register_forward_hook(lambda module, inputs, output: seen.append(torch.is_grad_enabled()))
    run()
    assert seen == [False, False]


def test_descent_stops_early_without_progress(run: Run) -> None:
    latent = run(lr=1e-30, patience=20, steps_w=100, steps_w_plus=100)
    assert latent.notes["steps"] == 40  # 20 in each phase


def test_divergence_is_reported(run: Run) -> None:
    with pytest.raises(GuideFastError, match=r"loss is (nan|inf).*invert\.lr"):
        run(lr=1e30)


def test_second_photo_takes_the_samples_from_the_cache(run: Run, tmp_path: Path) -> None:
    stages: list[str] = []
    first = run(cache_dir=tmp_path)
    second = run(cache_dir=tmp_path, progress=lambda stage, done, total, values: stages.append(stage))
    assert torch.equal(first.w, second.w)
    assert set(stages) == {"invert"}


def test_progress_counts_every_step(run: Run) -> None:
    told: list[tuple[str, int, int]] = []
    run(steps_w=3, steps_w_plus=2, force=True, progress=lambda *call: told.append(call[:3]))
    assert [(done, total) for stage, done, total in told if stage == "invert"] == [(i, 5) for i in range(6)]


def test_low_resolution_head_is_used(run: Run, generator: MobileStyleGAN, face: Face) -> None:
    attach_head(generator, 16)
    rendered: list[tuple[int, bool]] = []
    synthesis = generator.synthesis

    def counted(ws: Tensor, **options: object) -> object:
        rendering = synthesis(ws, **options)
        rendered.append((rendering.image.shape[-1], torch.is_grad_enabled()))
        return rendering

    generator.synthesis = counted  # type: ignore[assignment,method-assign]
    found = run(resolution=16)
    assert {size for size, differentiated in rendered if differentiated} == {16}
    assert found.notes["loss"] < found.notes["curve"][0]


def test_search_starts_at_the_encoders_code_and_betters_it(run: Run, generator: MobileStyleGAN, face: Face) -> None:
    encoder = near(generator)
    start, found = run(encoder=encoder, steps_w_plus=0, force=True), run(encoder=encoder)
    torch.testing.assert_close(start.w, encoder.code)
    assert found.notes["curve"][0] == start.notes["loss"] > found.notes["loss"]
    assert error(generator, found.w, face) < 0.7 * error(generator, start.w, face)
    assert found.notes["encoder"] == "recalling"
    assert found.notes["steps"] == 40  # those in W are left out


def test_with_an_encoder_no_samples_are_rendered(run: Run, generator: MobileStyleGAN) -> None:
    told: list[tuple[str, int, int]] = []
    run(encoder=near(generator), steps_w=9, steps_w_plus=3, progress=lambda *call: told.append(call[:3]))
    assert told == [("invert", i, 3) for i in range(4)]


def test_encoder_of_another_generator_gives_way_to_the_mean_face(run: Run, generator: MobileStyleGAN) -> None:
    astray = Recalling(generator.w_mean - 5 * (near(generator, 0).code - generator.w_mean))
    with pytest.warns(UserWarning, match=r"recalling is of no use for this photo .*, the search starts at the mean"):
        found = run(encoder=astray, steps_w=2, steps_w_plus=1, force=True)
    assert found.notes["encoder"] is None and found.notes["steps"] == 3
    with pytest.warns(UserWarning, match="loss is nan"):
        run(encoder=Recalling(astray.code * float("nan")), steps_w=0, steps_w_plus=0, force=True)


@pytest.mark.parametrize("family", ["stylegan2", "eg3d"])
def test_every_family_is_refined_from_a_code(
    family: str, identity: IdentityNetwork, perceptual: PerceptualNetwork, config: InvertConfig
) -> None:
    generator: Any = tiny_stylegan2() if family == "stylegan2" else tiny_eg3d()
    with torch.no_grad():
        w = generator.mapping(seeded(1, generator.z_dim, seed=3))[0]
        face = Face(generator.synthesis(w[None]).framed[0], "a" * 64)
    encoder = Recalling(w + 0.3 * w.std() * seeded(*w.shape, seed=4))
    encoder.family = family
    config = dataclasses.replace(config, steps_w=50, steps_w_plus=20, lr=0.02)
    looks = {"identity": identity, "perceptual": perceptual, "judge": None}
    found = invert(face, generator, **looks, encoder=encoder, config=config, force=True)
    assert found.notes["encoder"] == "recalling" and found.notes["steps"] == 20
    assert found.notes["loss"] < 0.95 * found.notes["curve"][0]


def test_encoder_of_another_shape_is_refused(run: Run, generator: MobileStyleGAN) -> None:
    with pytest.raises(UsageError, match=r"recalling gives latents \[5, 16\] of mobilestylegan, tiny takes \[8, 16\]"):
        run(encoder=Recalling(near(generator).code[:5]))


def test_inversion_that_began_at_a_code_is_resumed_to_the_same_latent(run: Run, generator: MobileStyleGAN) -> None:
    encoder, kept = near(generator), []

    def stop(stage: str, done: int, total: int, values: object) -> None:
        if done == 7:
            raise KeyboardInterrupt

    whole = run(encoder=encoder)
    with pytest.raises(KeyboardInterrupt):
        run(encoder=encoder, progress=stop, keep=kept.append)
    told: list[tuple[int, int]] = []
    resumed = run(
        encoder=encoder, resume=kept[0], progress=lambda stage, done, total, values: told.append((done, total))
    )
    assert torch.equal(whole.w, resumed.w) and whole.notes == resumed.notes
    assert told[0] == (7, 40)
