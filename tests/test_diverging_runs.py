"""A run whose loss explodes brings back what its folder held before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from stopping import PHOTO_CONFIG, contents, forget, photo_of, stop
from stopping import generator as generator
from stopping import photo as photo
from stopping import stand_ins as stand_ins  # fixtures
from tiny import CONFIG

from guide_fast import run_folder
from guide_fast._run_files import EARLIER
from guide_fast.config import Config
from guide_fast.errors import DivergedError
from guide_fast.models.mobile_stylegan import MobileStyleGAN
from guide_fast.run_folder import FILES, LATENT, stopped

pytestmark = pytest.mark.usefixtures("stand_ins")


def diverging() -> Config:
    return replace(PHOTO_CONFIG, ltu=replace(CONFIG.ltu, lr=1e30, layers="all"))


def test_diverging_run_leaves_the_latent_but_no_stopped_run(
    generator: MobileStyleGAN, photo: Path, tmp_path: Path
) -> None:
    with pytest.raises(DivergedError, match=r"lower ltu\.lr"):
        forget(generator, photo, tmp_path / "run", config=diverging())
    assert set(contents(tmp_path / "run")) == {LATENT}
    assert not stopped(tmp_path / "run")


@pytest.mark.parametrize("earlier", ["finished", "stopped"])
def test_diverging_run_brings_the_earlier_one_back(
    generator: MobileStyleGAN, photo: Path, tmp_path: Path, earlier: str
) -> None:
    if earlier == "finished":
        forget(generator, photo, tmp_path / "run")
    else:
        stop(generator, photo, tmp_path / "run", "unlearning", 2)
    before = contents(tmp_path / "run")
    other = photo_of(generator, 6, tmp_path / "other.png")
    with pytest.raises(DivergedError):
        forget(generator, other, tmp_path / "run", config=diverging())
    assert contents(tmp_path / "run") == before


def test_run_over_one_that_was_killed_brings_the_finished_one_back(
    generator: MobileStyleGAN, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(generator, photo, tmp_path / "run")
    before = contents(tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr(run_folder.EarlierRun, "__exit__", lambda *error: None)  # as after SIGKILL
        stop(generator, photo, tmp_path / "run", "unlearning", 2)
    assert (tmp_path / "run" / EARLIER).is_dir()
    with pytest.raises(DivergedError):
        forget(generator, photo, tmp_path / "run", config=diverging())
    assert contents(tmp_path / "run") == before


def test_killed_run_that_is_resumed_leaves_nothing_aside(
    generator: MobileStyleGAN, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(generator, photo, tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr(run_folder.EarlierRun, "__exit__", lambda *error: None)
        stop(generator, photo, tmp_path / "run", "unlearning", 2)
    forget(generator, photo, tmp_path / "run", resume=True)
    assert set(contents(tmp_path / "run")) == set(FILES)
