"""Fixed addresses: padded batches, one copy of the changed weights, no image of two versions.

Without a GPU a recording is the call itself, so that everything but the replay runs here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from changed_generators import Chain
from hammering import expected, hammer, latents
from tiny_stylegan2 import tiny_stylegan2

from guide_fast.errors import IntegrityError, UsageError
from guide_fast.serve.session import Session
from guide_fast.serve.static_session import Call, StaticSession
from guide_fast.serve.torch_session import TorchSession


def as_it_is(call: Call) -> Call:
    return call


def static(generator: object, batch: int = 4) -> StaticSession:
    return StaticSession(generator, device="cpu", batch=batch, record=as_it_is)


def test_images_are_those_of_the_other_session_in_every_batch_size(family: Chain) -> None:
    session, other = static(family.generator), TorchSession(family.generator)
    assert isinstance(session, Session)
    z = latents(6, session.shape.z_dim)
    wanted = other.render(z=z, truncation=0.8)
    for count in (1, 2, 3, 6):
        made = session.render(z=z[:count], truncation=0.8)
        assert made.version == wanted.version and made.images.shape == wanted.images[:count].shape
        np.testing.assert_allclose(made.images, wanted.images[:count], atol=2e-4)


def test_what_a_batch_left_behind_is_not_seen_by_the_next(family: Chain) -> None:
    session = static(family.generator)
    z = latents(3, session.shape.z_dim)
    alone = static(family.generator).render(z=z[2:]).images
    w = np.random.default_rng(1).standard_normal((3, session.shape.num_ws, session.shape.w_dim)).astype(np.float32)
    c = None
    if family.generator.cameras is not None:
        c = family.generator.cameras.evaluation[:3].numpy()
        assert not np.array_equal(session.render(z=z[2:], c=c[:1]).images, alone)
    session.render(w=w, c=c, truncation=[0.1, 0.2, 0.3])
    session.render(w=w[:1], c=None if c is None else c[:1], truncation=0.1)
    assert np.array_equal(session.render(z=z[2:]).images, alone)


def test_label_goes_to_the_mapping() -> None:
    generator = tiny_stylegan2(c_dim=3)
    z, c = latents(1, 12), np.eye(3, dtype=np.float32)
    one, other = static(generator), TorchSession(generator)
    for i in range(3):
        np.testing.assert_allclose(
            one.render(z=z, c=c[i : i + 1]).images, other.render(z=z, c=c[i : i + 1]).images, atol=1e-4
        )


def test_threads_never_see_two_versions_in_one_image(family: Chain) -> None:
    session = static(family.generator)
    z = latents(3, session.shape.z_dim)
    images: dict[str, np.ndarray] = {}
    for one in range(len(z)):  # as the threads ask: one by one
        for sha, image in expected(session, family.deltas, z[one : one + 1]).items():
            images[sha] = np.concatenate([images[sha], image]) if sha in images else image

    def render(one: np.ndarray) -> tuple[np.ndarray, str]:
        made = session.render(z=one)
        return made.images[0], made.version.weights_sha256

    found = hammer(session, render, family.deltas, images, z, seconds=0.8)
    assert found.wrong == [] and len(found.seen) == 3, found


def test_exchange_without_its_lock_would_be_found(mobile: Chain) -> None:
    session = static(mobile.generator, batch=1)
    z = latents(2, 16)
    images: dict[str, np.ndarray] = {}
    for one in range(len(z)):
        for sha, image in expected(session, mobile.deltas, z[one : one + 1]).items():
            images[sha] = np.concatenate([images[sha], image]) if sha in images else image

    class Unlocked:
        """Everybody may launch at any time."""

        def __enter__(self) -> None: ...
        def __exit__(self, *error: object) -> None: ...

    session._launching = Unlocked()

    def render(one: np.ndarray) -> tuple[np.ndarray, str]:
        made = session.render(z=one)
        return made.images[0], made.version.weights_sha256

    assert hammer(session, render, mobile.deltas, images, z, seconds=1.5).wrong


def test_weights_keep_their_addresses(mobile: Chain) -> None:
    session = static(mobile.generator)
    addresses = {name: parameter.data_ptr() for name, parameter in session._live.named_parameters()}
    swap = session.apply(mobile.deltas[0])
    assert {name: parameter.data_ptr() for name, parameter in session._live.named_parameters()} == addresses
    assert swap.after.weights_sha256 == mobile.hashes[1] and not session._current().staged
    for name, parameter in session._current().generator.named_parameters():
        assert torch.equal(parameter, session._parameters[name])


@pytest.mark.parametrize("what", ["flipped bit", "missing weight"])
def test_bad_delta_leaves_the_static_weights_alone(what: str, mobile: Chain, damaged: dict[str, Path]) -> None:
    session = static(mobile.generator)
    before = session.render(z=latents(1, 16))
    with pytest.raises(IntegrityError):
        session.apply(damaged[what])
    after = session.render(z=latents(1, 16))
    assert after.version == before.version and np.array_equal(after.images, before.images)


def test_batch_that_straddles_a_swap_is_rendered_anew(mobile: Chain) -> None:
    session = static(mobile.generator, batch=2)
    launched, calls = session._launched, []

    def swapped_after_the_first(inputs: object) -> object:
        made = launched(inputs)
        calls.append(made.version)
        if len(calls) == 1:
            session.apply(mobile.deltas[0])
        return made

    session._launched = swapped_after_the_first
    made = session.render(z=latents(4, 16))
    assert made.version.weights_sha256 == mobile.hashes[1] and len(calls) == 4
    session._launched = launched
    assert np.array_equal(made.images, session.render(z=latents(4, 16)).images)


def test_every_size_is_recorded_by_the_warm_up(mobile: Chain) -> None:
    session = static(mobile.generator, batch=6)
    session.warm_up()
    assert sorted(session._recorded) == [1, 2, 4, 6]
    session.close()
    assert not session._recorded
    with pytest.raises(UsageError, match="closed"):
        session.render(z=latents(1, 16))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_graph_without_a_cuda_device_is_refused(mobile: Chain) -> None:
    with pytest.raises(UsageError, match="a CUDA graph needs a CUDA device"):
        StaticSession(mobile.generator)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_replayed_images_follow_the_weights(family: Chain) -> None:
    session = StaticSession(family.generator, batch=4)
    z = latents(4, session.shape.z_dim)
    images: dict[str, np.ndarray] = {}
    for one in range(len(z)):
        for sha, image in expected(session, family.deltas, z[one : one + 1]).items():
            images[sha] = np.concatenate([images[sha], image]) if sha in images else image
    np.testing.assert_allclose(images[family.hashes[0]], TorchSession(family.generator).render(z=z).images, atol=5e-2)

    def render(one: np.ndarray) -> tuple[np.ndarray, str]:
        made = session.render(z=one)
        return made.images[0], made.version.weights_sha256

    found = hammer(session, render, family.deltas, images, z, seconds=2.0)
    assert found.wrong == [] and len(found.seen) == 3, found
