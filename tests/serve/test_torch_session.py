"""A session on a PyTorch generator: the generator's own images, exchanged weights, refusals that leave the old ones."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from changed_generators import Chain
from hammering import expected, hammer, latents
from tiny_stylegan2 import tiny_stylegan2

from guide_fast.deltas import apply_delta
from guide_fast.errors import GuideFastError, IntegrityError, UsageError
from guide_fast.serve.session import Session, Version
from guide_fast.serve.torch_session import TorchSession, sharing


def own_images(chain: Chain, deltas: int, z: np.ndarray) -> np.ndarray:
    """What the generator itself renders after so many deltas."""
    generator = copy.deepcopy(chain.generator)
    for delta in chain.deltas[:deltas]:
        apply_delta(generator, delta)
    with torch.inference_mode():
        return np.concatenate([generator.synthesis(generator.mapping(torch.from_numpy(one[None]))).image for one in z])


def test_images_are_those_of_the_generator_after_every_swap(family: Chain) -> None:
    z = latents(2, family.generator.z_dim)
    wanted = [own_images(family, count, z) for count in range(3)]
    session = TorchSession(family.generator)
    assert isinstance(session, Session)
    steps = [
        None,
        *(lambda path=path: session.apply(path) for path in family.deltas),
        session.rollback,
        session.rollback,
    ]
    for count, step in zip((0, 1, 2, 1, 0), steps, strict=True):
        if step is not None:
            swap = step()
            assert swap.after.weights_sha256 == family.hashes[count]
        made = session.render(z=z)
        assert made.version == session.version
        assert made.version.weights_sha256 == family.hashes[count] and len(made.version.lineage) == count
        assert np.array_equal(made.images, wanted[count])
    assert not np.array_equal(wanted[0], wanted[1])


def test_threads_never_see_two_versions_in_one_image(family: Chain) -> None:
    session = TorchSession(family.generator)
    z = latents(3, session.shape.z_dim)
    images = expected(session, family.deltas, z)

    def render(one: np.ndarray) -> tuple[np.ndarray, str]:
        made = session.render(z=one)
        return made.images[0], made.version.weights_sha256

    found = hammer(session, render, family.deltas, images, z, seconds=1.0)
    assert found.wrong == [] and len(found.seen) == 3, found
    assert max(swap.exchange_seconds for swap in found.swaps) < 0.5


def test_image_does_not_depend_on_who_else_asked(mobile: Chain) -> None:
    session = TorchSession(mobile.generator)
    z = latents(5, 16)
    together = session.render(z=z).images
    assert all(np.array_equal(together[i], session.render(z=z[i : i + 1]).images[0]) for i in range(5))


def test_next_version_shares_what_a_delta_leaves_alone(mobile: Chain) -> None:
    session = TorchSession(mobile.generator)
    before = dict(session._current().generator.named_parameters())
    session.apply(mobile.deltas[0])
    from guide_fast.artifacts import Delta

    touched = Delta.load(mobile.deltas[0]).tensors
    for name, parameter in session._current().generator.named_parameters():
        assert (parameter.data_ptr() == before[name].data_ptr()) == (name not in touched)


def test_copy_that_shares_has_its_own_tensors_where_named(mobile: Chain) -> None:
    made = sharing(mobile.generator, ["conv1.bias"])
    made.conv1.bias.data += 1
    assert not torch.equal(made.conv1.bias, mobile.generator.conv1.bias)
    assert made.conv1.weight is mobile.generator.conv1.weight


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("flipped bit", IntegrityError, "does not lead to the promised weights"),
        ("unknown weight", IntegrityError, "'blocks.9.bias', which tiny does not have"),
        ("missing weight", IntegrityError, "does not lead to the promised weights"),
        ("other shape", IntegrityError, "does not have in that form"),
        ("truncated file", IntegrityError, "is damaged or no safetensors file"),
        ("no delta", IntegrityError, "is damaged or no safetensors file"),
        ("no file", UsageError, "does not exist"),
        ("other base", UsageError, "can only be applied to weights with sha256"),
    ],
)
def test_bad_delta_is_refused_and_the_old_weights_render_on(
    what: str, error: type[GuideFastError], message: str, mobile: Chain, damaged: dict[str, Path]
) -> None:
    session = TorchSession(mobile.generator)
    z = latents(1, 16)
    before = session.render(z=z)
    with pytest.raises(error, match=message):
        session.apply(damaged[what])
    after = session.render(z=z)
    assert after.version == before.version and np.array_equal(after.images, before.images)
    assert session.apply(mobile.deltas[0]).after.weights_sha256 == mobile.hashes[1]


def test_truncation_goes_from_the_latent_to_the_mean_face(mobile: Chain) -> None:
    session = TorchSession(mobile.generator)
    z = latents(2, 16)
    with torch.inference_mode():
        ws, mean = mobile.generator.mapping(torch.from_numpy(z)), mobile.generator.w_mean
    given = session.render(w=ws.numpy(), truncation=[0.0, 0.5]).images
    assert np.array_equal(given[0], session.render(w=mean.numpy()[None]).images[0])
    half = mean + 0.5 * (ws[1, 0] - mean)
    np.testing.assert_allclose(given[1], session.render(w=half.numpy()[None]).images[0], atol=1e-5)
    np.testing.assert_allclose(given[1], session.render(z=z, truncation=0.5).images[1], atol=1e-5)


def test_label_of_a_conditional_generator_is_needed_unless_it_has_one() -> None:
    generator = tiny_stylegan2(c_dim=3)
    session = TorchSession(generator)
    z = latents(1, 12)
    assert session.shape.c_needed
    with pytest.raises(UsageError, match="needs a label"):
        session.render(z=z)
    images = [session.render(z=z, c=np.eye(3)[i : i + 1]).images for i in range(3)]
    assert not np.array_equal(images[0], images[1])
    generator = tiny_stylegan2(c_dim=3)
    generator.label = torch.eye(3)[1]
    assert np.array_equal(TorchSession(generator).render(z=z).images, images[1])
    assert session.warm_up() > 0


def test_unknown_device_is_refused(mobile: Chain) -> None:
    with pytest.raises(UsageError, match="device 'abacus' cannot be used"):
        TorchSession(mobile.generator, device="abacus")


def test_earlier_deltas_are_in_the_lineage(mobile: Chain) -> None:
    apply_delta(mobile.generator, mobile.deltas[0])
    session = TorchSession(mobile.generator)
    assert session.version == Version(mobile.hashes[1], tuple(mobile.generator.lineage))
    with pytest.raises(UsageError, match="applied no delta"):
        session.rollback()
