"""Runs on the tiny generator with stand-ins for the networks, to be stopped wherever a test wants."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import CONFIG, TinyIdentity, TinyPerceptual, person, tiny_generator
from torch import Tensor

from guide_fast import _networks, pipeline
from guide_fast.artifacts import Forgotten
from guide_fast.config import InvertConfig
from guide_fast.models.mobile_stylegan import MobileStyleGAN

PHOTO_CONFIG = replace(
    CONFIG, invert=InvertConfig(samples=8, steps_w=6, steps_w_plus=6, resolution=16, min_similarity=-1.0)
)
NETWORKS = {name: seed for seed, name in enumerate(("faceres", "mobileface", "dlib-resnet-v1"))}


class TwoTaps(TinyPerceptual):
    """The bank of the inversion looks at the last tap but one."""

    def features(self, images: Tensor, *, size: int | None = 256) -> list[Tensor]:
        return super().features(images, size=size) * 2


@pytest.fixture
def generator() -> MobileStyleGAN:
    return tiny_generator()


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Networks of a few weights; caches in a folder of the test's own; no way to the network."""
    monkeypatch.setenv("GUIDE_FAST_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GUIDE_FAST_OFFLINE", "1")
    monkeypatch.setattr(_networks, "load_identity", lambda name: TinyIdentity(name, seed=NETWORKS[name]))
    monkeypatch.setattr(_networks, "load_perceptual", TwoTaps)


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], None]]:
    """Presses it for this process, however the tests were started."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def photo(generator: MobileStyleGAN, tmp_path: Path) -> Path:
    return photo_of(generator, 5, tmp_path / "photo.png")


def photo_of(generator: MobileStyleGAN, seed: int, path: Path) -> Path:
    image = generator.synthesis(person(generator, seed)[None]).image[0].clamp(-1, 1).add(1).mul(127.5)
    Image.fromarray(image.permute(1, 2, 0).byte().numpy().astype(np.uint8)).resize((64, 64)).save(path)
    return path


def interrupt_at(stage: str, done: int) -> Callable[..., None]:
    """A progress callback that presses Ctrl-C."""

    def progress(now: str, count: int, total: int, values: Mapping[str, float]) -> None:
        if (now, count) == (stage, done):
            raise KeyboardInterrupt

    return progress


def forget(generator: MobileStyleGAN, photo: Path, out: Path, **arguments: Any) -> Forgotten:
    return pipeline.forget(generator, photo=photo, out=out, **{"config": PHOTO_CONFIG, "aligned": True} | arguments)


def stop(generator: MobileStyleGAN, photo: Path, out: Path, stage: str, done: int, **arguments: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        forget(generator, photo, out, progress=interrupt_at(stage, done), **arguments)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a run folder."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}
