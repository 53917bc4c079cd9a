"""The small encoder that was built for a generator starts its inversions, or ends them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stopping import NETWORKS, PHOTO_CONFIG, forget, stop
from stopping import generator as generator  # fixtures
from stopping import photo as photo
from stopping import stand_ins as stand_ins
from tiny import Averages, TinyIdentity, tiny_generator

from guide_fast import _networks, built, pipeline
from guide_fast.config import Config, EncoderConfig
from guide_fast.deltas import apply_delta
from guide_fast.errors import GuideFastError, IntegrityError, UsageError
from guide_fast.models.encoders import small
from guide_fast.models.mobile_stylegan import MobileStyleGAN

TRAINING = EncoderConfig(samples=48, held_out=8, epochs=2, batch=8)
CONFIG = replace(PHOTO_CONFIG, encoder=TRAINING)
QUICK = replace(CONFIG, invert=replace(CONFIG.invert, refine=False, quick_steps=3))
pytestmark = pytest.mark.usefixtures("stand_ins")


@pytest.fixture(autouse=True)
def three_taps(monkeypatch: pytest.MonkeyPatch, stand_ins: None) -> None:
    monkeypatch.setattr(_networks, "load_perceptual", Averages)
    monkeypatch.setattr(small, "JOINED", 8)
    monkeypatch.setattr(small, "HIDDEN", 64)


def load(path: Path, seed: int = NETWORKS["dlib-resnet-v1"]) -> Any:
    return built.load_encoder(path, identity=TinyIdentity("dlib-resnet-v1", seed=seed), perceptual=Averages())


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def test_inversions_start_from_it_once_it_is_built(generator: MobileStyleGAN, photo: Path, tmp_path: Path) -> None:
    before = pipeline.invert_photo(generator, photo, aligned=True, config=CONFIG)
    assert "encoder" not in before.notes
    path = pipeline.build_encoder(generator, config=CONFIG)
    assert path == built.encoder_path(generator)
    assert built.encoder_metadata(path)["training"] == vars(TRAINING)
    after = pipeline.invert_photo(generator, photo, aligned=True, config=CONFIG)
    assert after.notes["encoder"] == built.SMALL_ENCODER
    assert after.notes["steps"] == CONFIG.invert.steps_w_plus


def test_quick_inversion_ends_after_a_few_steps(generator: MobileStyleGAN, photo: Path) -> None:
    pipeline.build_encoder(generator, config=CONFIG)
    quick = pipeline.invert_photo(generator, photo, aligned=True, config=QUICK)
    assert quick.notes["steps"] == 3
    refined = pipeline.invert_photo(generator, photo, aligned=True, config=CONFIG)
    assert refined.notes["curve"][0] == quick.notes["curve"][0]  # the same start


def test_quick_inversion_without_an_encoder_says_how_to_get_one(generator: MobileStyleGAN, photo: Path) -> None:
    with pytest.raises(UsageError, match="guide-fast assets build small-encoder"):
        pipeline.invert_photo(generator, photo, aligned=True, config=QUICK)


def test_one_encoder_serves_a_generator_before_and_after_a_forgetting(
    generator: MobileStyleGAN, photo: Path, tmp_path: Path
) -> None:
    path = pipeline.build_encoder(generator, config=CONFIG)
    done = forget(generator, photo, tmp_path / "run", config=CONFIG)
    assert done.source.notes["encoder"] == built.SMALL_ENCODER
    assert built.encoder_path(apply_delta(generator, done.delta)) == path
    assert built.encoder_path(tiny_generator(seed=1)) != path
    assert _networks.fitting_encoder(tiny_generator(seed=1)) is None


def test_run_begun_without_it_is_not_resumed_with_it(generator: MobileStyleGAN, photo: Path, tmp_path: Path) -> None:
    stop(generator, photo, tmp_path / "run", "invert", 2)
    pipeline.build_encoder(generator, config=CONFIG)
    with pytest.raises(UsageError, match="encoder"):
        forget(generator, photo, tmp_path / "run", resume=True)


def test_building_again_gives_the_same_bytes(generator: MobileStyleGAN) -> None:
    path = pipeline.build_encoder(generator, config=CONFIG)
    content = path.read_bytes()
    path.unlink()
    assert pipeline.build_encoder(generator, config=CONFIG).read_bytes() == content


def test_damaged_file_is_refused_and_listed(generator: MobileStyleGAN, photo: Path) -> None:
    assert built.list_built() == []
    path = pipeline.build_encoder(generator, config=CONFIG)
    assert [status.state for status in built.list_built()] == ["ok"]
    flip_a_bit(path)
    with pytest.raises(IntegrityError, match="--force to train it again"):
        pipeline.invert_photo(generator, photo, aligned=True, config=CONFIG)
    assert [status.state for status in built.list_built()] == ["tampered"]


def test_encoder_of_other_networks_is_refused(generator: MobileStyleGAN) -> None:
    path = pipeline.build_encoder(generator, config=CONFIG)
    assert load(path).name == built.SMALL_ENCODER
    with pytest.raises(UsageError, match="--force"):
        load(path, seed=99)


def test_file_that_cannot_be_written_is_an_error(generator: MobileStyleGAN, tmp_path: Path) -> None:
    built.encoder_path(generator).parent.parent.mkdir(parents=True)
    built.encoder_path(generator).parent.touch()  # a file where the folder goes
    with pytest.raises(GuideFastError, match="cannot write"):
        pipeline.build_encoder(generator, config=CONFIG)


def test_defaults_leave_faces_to_train_on() -> None:
    assert Config().encoder.held_out < Config().encoder.samples / 10
