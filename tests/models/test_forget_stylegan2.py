"""The whole method runs on StyleGAN2 as on the default generator: forget, evaluate, apply, roll back."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from stopping import PHOTO_CONFIG, photo_of, stand_ins
from tiny_stylegan2 import tiny_stylegan2

from guide_fast import pipeline
from guide_fast._generators import choose_label
from guide_fast.artifacts import Delta, Latent, rendering_sha256, weights_sha256
from guide_fast.config import Config
from guide_fast.errors import UsageError
from guide_fast.models import loading
from guide_fast.models.stylegan2 import StyleGAN2
from guide_fast.run_folder import FILES

pytestmark = pytest.mark.usefixtures(stand_ins.__name__)
KINDS = ("skip", "skip at 16 px", "resnet", "conditional", "published")


def config_for(kind: str) -> Config:
    resolution = {"skip at 16 px": 16, "published": 64}.get(kind, 32)
    return replace(
        PHOTO_CONFIG,
        ltu=replace(PHOTO_CONFIG.ltu, resolution=resolution),
        invert=replace(PHOTO_CONFIG.invert, resolution=resolution),
    )


@pytest.fixture
def generator(kind: str, request: pytest.FixtureRequest) -> StyleGAN2:
    if kind == "published":
        from guide_fast.models.checkpoint import read_checkpoint

        read = read_checkpoint(request.getfixturevalue("shared") / "fixtures" / "stylegan2_64.pkl")
        return StyleGAN2.from_tensors(read.tensors, read.config)
    if kind == "conditional":
        generator = tiny_stylegan2(c_dim=3)
        choose_label(generator, 1)
        return generator
    return tiny_stylegan2(architecture="resnet" if kind == "resnet" else "skip")


@pytest.mark.parametrize("kind", KINDS)
def test_forget_leaves_a_delta_that_applies_and_rolls_back(kind: str, generator: StyleGAN2, tmp_path: Path) -> None:
    config, before = config_for(kind), weights_sha256(generator)
    result = pipeline.forget(generator, seed=777, config=config, out=tmp_path / "run")
    assert {file.name for file in (tmp_path / "run").iterdir()} == set(FILES)
    assert weights_sha256(generator) == before == result.delta.base_sha256
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert [point["step"] for point in metrics["curve"]] == [0, 1, 2, 3]
    assert all(name.startswith("synthesis_network.") for name in result.delta.tensors)
    assert result.delta.num_parameters > 0

    delta = Delta.load(tmp_path / "run" / "delta.safetensors")
    changed = pipeline.apply_delta(copy.deepcopy(generator), delta)
    with torch.inference_mode():
        after, now = (some.synthesis(result.source.w[None]).image for some in (changed, generator))
    assert (after - now).abs().max() > 1e-2
    assert weights_sha256(changed) == delta.result_sha256 != before
    report = pipeline.evaluate_delta(generator, delta, result.source, config=config)
    for name in ("forgotten", "retained", "fd_pre", "stranger_mean"):
        assert report.metrics[name] == result.metrics[name]
    assert weights_sha256(pipeline.rollback(changed, delta)) == before


@pytest.mark.parametrize("kind", ["skip at 16 px"])
def test_layers_past_the_resolution_of_the_steps_stay(kind: str, generator: StyleGAN2) -> None:
    result = pipeline.forget(generator, seed=777, config=config_for(kind))
    assert not [name for name in result.delta.tensors if ".b32." in name]


@pytest.mark.parametrize("kind", ["skip"])
@pytest.mark.parametrize("layers", ["coarse", "fine", "all", "b8.*", "*.torgb.*"])
def test_layers_are_those_of_the_policy(kind: str, generator: StyleGAN2, layers: str) -> None:
    config = config_for(kind)
    config = replace(config, ltu=replace(config.ltu, layers=layers, steps=1))
    chosen = pipeline.forget(generator, seed=777, config=config).metrics["layers"]
    if layers in ("coarse", "fine"):
        assert {generator.slot(layer) for layer in chosen} == set(range(4) if layers == "coarse" else range(4, 8))
    elif layers == "all":
        assert chosen == list(generator.layers)
    else:
        assert {layer.split(".")[layers != "b8.*"] for layer in chosen} == {"b8" if layers == "b8.*" else "torgb"}


@pytest.mark.parametrize("kind", ["skip"])
def test_photo_is_inverted_and_forgotten(kind: str, generator: StyleGAN2, tmp_path: Path) -> None:
    photo = photo_of(generator, 5, tmp_path / "photo.png")
    result = pipeline.forget(generator, photo=photo, aligned=True, config=config_for(kind))
    assert result.source.origin.startswith("photo:")
    assert result.source.w.shape == (8, 16)


@pytest.mark.parametrize("kind", ["skip"])
def test_default_resolution_that_a_small_generator_lacks_is_refused(kind: str, generator: StyleGAN2) -> None:
    with pytest.raises(UsageError, match=r"ltu\.resolution = 256 is no output of tiny-stylegan2; choose one of 4, 8"):
        pipeline.forget(generator, seed=777)


def test_conditional_generator_without_a_label_is_refused() -> None:
    with pytest.raises(UsageError, match=r"conditional on a label of 3 numbers; .* \(--label\) from 0 to 2"):
        pipeline.forget(tiny_stylegan2(c_dim=3), seed=777, config=config_for("conditional"))


def test_label_counts_for_caches_but_not_for_deltas() -> None:
    first, second = tiny_stylegan2(c_dim=3), tiny_stylegan2(c_dim=3)
    choose_label(first, 0)
    choose_label(second, 1)
    assert weights_sha256(first) == weights_sha256(second)
    assert rendering_sha256(first, 32) != rendering_sha256(second, 32)


@pytest.mark.parametrize(("changes", "label"), [({}, 0), ({"c_dim": 3}, 3), ({"c_dim": 3}, -1)])
def test_label_that_a_generator_lacks_is_refused(changes: dict[str, Any], label: int) -> None:
    with pytest.raises(UsageError, match=r"takes no label|give a whole number from 0 to 2"):
        choose_label(tiny_stylegan2(**changes), label)


def test_generator_comes_back_from_its_file_with_deltas_and_label(tmp_path: Path) -> None:
    generator = tiny_stylegan2(c_dim=3)
    loading.save(generator, tmp_path / "g.safetensors")
    loaded = pipeline.load_generator(tmp_path / "g.safetensors", label=2)
    assert isinstance(loaded, StyleGAN2)
    assert weights_sha256(loaded) == weights_sha256(generator)
    result = pipeline.forget(loaded, seed=777, config=config_for("conditional"))
    again = pipeline.load_generator(tmp_path / "g.safetensors", label=2, deltas=[result.delta])
    assert weights_sha256(again) == result.delta.result_sha256
    assert Latent(result.source.w, again.name, "seed:777").w.shape == (8, 16)


def test_converted_file_loads_as_the_published_generator(shared: Path, tmp_path: Path) -> None:
    from guide_fast.cli.app import main

    source, target = shared / "fixtures" / "stylegan2_64.pkl", tmp_path / "g.safetensors"
    assert main(["convert", str(source), str(target)]) == 0
    generator = pipeline.load_generator(target)
    assert isinstance(generator, StyleGAN2)
    loading.save(generator, tmp_path / "again.safetensors")
    assert weights_sha256(pipeline.load_generator(tmp_path / "again.safetensors")) == weights_sha256(generator)
