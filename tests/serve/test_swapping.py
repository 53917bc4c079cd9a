"""No image of mixed versions, whatever threads do; a version that fails its checks never renders."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hammering import expected, hammer, latents

from guide_fast.errors import IntegrityError, UsageError
from guide_fast.serve.session import Array, Inputs, Shape, Version
from guide_fast.serve.swapping import ReferenceSession

SHAPE = Shape("counted", z_dim=2, num_ws=3, w_dim=2, c_dim=0, resolution=8)


@dataclass
class Numbers:
    values: list[int]  # an image's rows, all the same in one version

    @property
    def version(self) -> Version:
        return Version(f"version-{self.values[0]}")


@dataclass(frozen=True)
class Step:
    by: int
    sha256: str = "step"


class Counted(ReferenceSession[Numbers, Step]):
    """Writes its version into every row, slowly."""

    def __init__(self) -> None:
        super().__init__(SHAPE, Numbers([0] * 8))

    def _read(self, delta: Path) -> Step:
        if delta.name == "damaged":
            raise IntegrityError("damaged")
        return Step(int(delta.name))

    def _changed(self, weights: Numbers, change: Step, *, undo: bool) -> Numbers:
        if change.by == 0:
            raise UsageError("leads nowhere")
        by = -change.by if undo else change.by
        return Numbers([value + by for value in weights.values])

    def _images(self, weights: Numbers, inputs: Inputs) -> Array:
        image = np.zeros((1, 3, 8, 8), np.float32)
        for row in range(8):
            image[:, :, row] = weights.values[row]
            time.sleep(0.0002)
        return image


class InPlace(Counted):
    """What must not be: the next version written over the one that renders."""

    def _changed(self, weights: Numbers, change: Step, *, undo: bool) -> Numbers:
        made = super()._changed(weights, change, undo=undo)
        for row, value in enumerate(made.values):
            weights.values[row] = value
            time.sleep(0.0002)
        return weights


def run(session: Counted, **options: float) -> tuple[int, list[str]]:
    deltas = [Path("1"), Path("10")]
    z = latents(3, 2)
    images = expected(Counted(), deltas, z)

    def render(one: np.ndarray) -> tuple[np.ndarray, str]:
        made = session.render(z=one)
        return made.images[0], made.version.weights_sha256

    found = hammer(session, render, deltas, images, z, **options)
    return len(found.seen), found.wrong


def test_every_image_is_of_the_one_version_that_it_claims() -> None:
    versions, wrong = run(Counted(), seconds=0.6)
    assert (versions, wrong) == (3, [])


def test_hammer_finds_images_of_mixed_versions() -> None:
    _, wrong = run(InPlace(), seconds=0.6)
    assert wrong


def test_batch_that_has_begun_keeps_its_version() -> None:
    session = Counted()
    begun, go_on = threading.Event(), threading.Event()

    def slow(weights: Numbers, inputs: Inputs) -> Array:
        begun.set()
        go_on.wait(5)
        return Counted._images(session, weights, inputs)

    session._images = slow
    made = []
    worker = threading.Thread(target=lambda: made.append(session.render(z=[[1, 0], [0, 1]])))
    worker.start()
    begun.wait(5)
    swap = session.apply(Path("5"))  # does not wait for the batch
    go_on.set()
    worker.join()
    assert (swap.before, swap.after) == (Version("version-0"), Version("version-5"))
    assert made[0].version == Version("version-0") and not made[0].images.any()
    assert session.render(z=[[1, 0]]).version == Version("version-5")


@pytest.mark.parametrize(("delta", "error"), [("damaged", IntegrityError), ("0", UsageError)])
def test_version_that_fails_is_never_rendered(delta: str, error: type[Exception]) -> None:
    session = Counted()
    session.apply(Path("3"))
    with pytest.raises(error):
        session.apply(Path(delta))
    assert session.version == Version("version-3")
    assert session.rollback().after == Version("version-0")  # the failed one is not in the way


def test_rollback_needs_a_delta_that_was_applied_here() -> None:
    session = Counted()
    for delta in ("2", "4"):
        session.apply(Path(delta))
    assert [session.rollback().after.weights_sha256 for _ in range(2)] == ["version-2", "version-0"]
    with pytest.raises(UsageError, match="applied no delta"):
        session.rollback()


def test_swaps_asked_for_at_once_happen_one_after_the_other() -> None:
    session = Counted()
    threads = [threading.Thread(target=session.apply, args=(Path("1"),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert session.version == Version("version-8")


def test_closed_session_refuses() -> None:
    session = Counted()
    session.close()
    session.close()
    for call in (lambda: session.render(z=[[1, 0]]), lambda: session.apply(Path("1")), lambda: session.version):
        with pytest.raises(UsageError, match="closed"):
            call()


def test_swap_says_what_it_took() -> None:
    swap = Counted().apply(Path("1"))
    assert swap.prepare_seconds > 0 and 0 < swap.exchange_seconds < 0.1
