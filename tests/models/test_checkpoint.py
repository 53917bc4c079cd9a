"""Every published format loads exactly, without being executed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_files import (
    KERNEL,
    eg3d_module,
    rosinality,
    saved,
    small_rosinality,
    stylegan2_module,
    write_pickle,
)
from torch import Tensor

from guide_fast.artifacts import write_safetensors
from guide_fast.errors import GuideFastError, IntegrityError, RefusedError, UsageError
from guide_fast.models.checkpoint import Published, read_checkpoint

UNSEEN = {"num_fp16_res": 0, "conv_clamp": None, "mapping": {"lr_multiplier": 0.01}}
PUBLISHED = {
    "stylegan2_64": ("StyleGAN2-ADA pickle", 64, 64, 0, "skip", 94),
    "stylegan2_cond_32_resnet": ("StyleGAN2-ADA pickle", 32, 32, 5, "resnet", 83),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_stylegan2_loads_with_its_settings(shared: Path, name: str) -> None:
    form, z_dim, resolution, c_dim, architecture, count = PUBLISHED[name]
    found = read_checkpoint(shared / "fixtures" / f"{name}.pkl")
    assert (found.family, found.format, len(found.tensors)) == ("stylegan2", form, count)
    config = found.config
    assert (config["z_dim"], config["img_resolution"], config["c_dim"]) == (z_dim, resolution, c_dim)
    assert (config["architecture"], config["conv_clamp"]) == (architecture, 256)
    assert config["mapping"]["lr_multiplier"] == 0.01
    assert json.loads(json.dumps(config)) == config


@pytest.mark.parametrize("name", PUBLISHED)
def test_mapping_of_a_published_stylegan2_gives_the_published_latents(shared: Path, name: str) -> None:
    found = read_checkpoint(shared / "fixtures" / f"{name}.pkl")
    with np.load(shared / "fixtures" / f"{name}.expected.npz") as arrays:
        expected = {key: torch.from_numpy(arrays[key]) for key in arrays}
    w = mapped(found, expected["z"], expected.get("c"))
    assert (w - expected["ws"][:, 0]).abs().max() < 1e-5


def test_published_eg3d_loads_with_its_settings(shared: Path) -> None:
    found = read_checkpoint(shared / "fixtures" / "eg3d_tiny.pkl")
    assert (found.family, found.format, len(found.tensors)) == ("eg3d", "EG3D pickle", 176)
    config = found.config
    assert (config["img_resolution"], config["neural_rendering_resolution"], config["c_dim"]) == (512, 128, 25)
    assert (config["backbone"]["img_channels"], config["backbone"]["img_resolution"]) == (96, 256)
    assert config["super_resolution"]["kind"] == "8XDC"
    assert config["decoder"] == {"features": 32, "outputs": 32, "hidden": 64, "lr_multiplier": 1.0}
    assert config["rendering"]["avg_camera_pivot"] == [0, 0, 0.2]
    assert json.loads(json.dumps(config)) == config


@pytest.mark.parametrize("zipped", [True, False])
def test_rosinality_computes_the_published_latents(shared: Path, tmp_path: Path, zipped: bool) -> None:
    whole = rosinality(shared / "fixtures" / "rosinality_64.keys.json", torch.zeros(64))
    found = read_checkpoint(saved(whole, tmp_path / "r.pt", zipped=zipped))
    assert found.format == "rosinality state dict"
    assert (found.config["channel_base"], found.config["channel_max"], found.config["conv_clamp"]) == (16384, 512, None)
    with np.load(shared / "fixtures" / "rosinality_64.expected.npz") as arrays:
        z, w = torch.from_numpy(arrays["z"]), torch.from_numpy(arrays["w"])
    assert (mapped(found, z) - w).abs().max() < 1e-6


def test_rosinality_layers_are_scaled_once(tmp_path: Path) -> None:
    given = small_rosinality()
    found = read_checkpoint(saved(given, tmp_path / "r.pt")).tensors
    style = torch.tensor([0.5, -1.0, 2.0])
    theirs = given["g_ema"]["convs.1.conv.weight"][0] * (3 * 9) ** -0.5 * style[None, :, None, None]
    ours = found["synthesis.b8.conv1.weight"] * style[None, :, None, None]
    theirs, ours = (w * (w.square().sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt() for w in (theirs, ours))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
    assert torch.equal(found["synthesis.b8.torgb.weight"], given["g_ema"]["to_rgbs.0.conv.weight"][0])
    assert torch.equal(found["synthesis.b8.conv0.noise_const"], given["g_ema"]["noises.noise_1"][0, 0])
    assert torch.equal(found["synthesis.b8.conv0.resample_filter"], KERNEL)


def test_made_generators_load_exactly(tmp_path: Path) -> None:
    made = stylegan2_module(half=1, c=3)
    found = read_checkpoint(write_pickle({"G": None, "D": None, "G_ema": made}, tmp_path / "g.pkl"))
    assert (found.config["num_fp16_res"], found.config["c_dim"], found.config["name"]) == (1, 3, "g")
    synthesis = made.meta["state"]["_modules"]["synthesis"].meta["state"]["_modules"]
    const = synthesis["b4"].meta["state"]["_parameters"]["const"]
    assert torch.equal(found.tensors["synthesis.b4.const"], const)
    three = read_checkpoint(write_pickle({"G_ema": eg3d_module()}, tmp_path / "e.pkl"))
    assert three.tensors["decoder.net.2.weight"].shape == (3, 8)


@pytest.mark.parametrize("zipped", [True, False])
def test_state_dict_loads_with_the_settings_beside_it(tmp_path: Path, zipped: bool) -> None:
    whole = read_checkpoint(write_pickle(stylegan2_module(), tmp_path / "g.pkl"))
    path = saved({"g_ema": whole.tensors}, tmp_path / "s.pt", zipped=zipped)
    with pytest.raises(UsageError, match="num_fp16_res, conv_clamp, lr_multiplier"):
        read_checkpoint(path)
    path.with_suffix(".json").write_text(json.dumps(UNSEEN | {"conv_clamp": 256}))
    found = read_checkpoint(path)
    assert {**found.config, "name": "g"} == whole.config
    assert all(torch.equal(found.tensors[name], value) for name, value in whole.tensors.items())


def test_generator_file_is_read_back(tmp_path: Path) -> None:
    whole = read_checkpoint(write_pickle(eg3d_module(), tmp_path / "g.pkl"))
    path = tmp_path / "g.safetensors"
    write_safetensors(path, whole.tensors, "generator", {"config": whole.config, "lineage": []})
    found = read_checkpoint(path)
    assert found.config == whole.config
    assert all(torch.equal(found.tensors[name], value) for name, value in whole.tensors.items())
    write_safetensors(path, whole.tensors, "generator", {"config": whole.config | {"decoder": 1}, "lineage": []})
    with pytest.raises(IntegrityError, match="lack decoder"):
        read_checkpoint(path)


def test_views_into_one_storage_are_rebuilt(tmp_path: Path) -> None:
    whole = read_checkpoint(write_pickle(stylegan2_module(), tmp_path / "g.pkl")).tensors
    name = "synthesis.b4.conv1.weight"
    shared_storage = torch.cat([torch.zeros(5), whole[name].permute(1, 0, 2, 3).contiguous().flatten()])
    view = shared_storage[5:].view(8, 8, 3, 3).permute(1, 0, 2, 3)
    path = saved(whole | {name: view}, tmp_path / "s.pt")
    path.with_suffix(".json").write_text(json.dumps(UNSEEN))
    assert torch.equal(read_checkpoint(path).tensors[name], whole[name])


WRONG: dict[str, tuple[type[GuideFastError], str, Callable[[dict[str, Any]], None]]] = {
    "no resolution": (IntegrityError, "img_resolution", lambda s: s.pop("img_resolution")),
    "odd resolution": (GuideFastError, "48", lambda s: s.update(img_resolution=48)),
    "channels": (IntegrityError, r"has shape \[8", lambda s: s["_init_kwargs"].update(channel_max=4)),
    "text as channels": (IntegrityError, "channel_base", lambda s: s["_init_kwargs"].update(channel_base="many")),
    "no block": (IntegrityError, "lacks synthesis blocks", lambda s: s["_modules"].pop("b8")),
    "unknown tensor": (IntegrityError, "synthesis.extra", lambda s: s["_parameters"].update(extra=torch.zeros(1))),
}


@pytest.mark.parametrize("what", WRONG)
def test_settings_that_tensors_contradict_are_refused(tmp_path: Path, what: str) -> None:
    error, words, change = WRONG[what]
    made = stylegan2_module()
    change(made.meta["state"]["_modules"]["synthesis"].meta["state"])
    with pytest.raises(error, match=words):
        read_checkpoint(write_pickle(made, tmp_path / "g.pkl"))


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    given = small_rosinality()
    given["g_ema"]["style.1.bias"][0] = float("nan")
    with pytest.raises(IntegrityError, match=r"mapping\.fc0\.bias holds NaN"):
        read_checkpoint(saved(given, tmp_path / "r.pt"))
    with pytest.raises(IntegrityError, match="latent_avg"):
        read_checkpoint(saved({"g_ema": given["g_ema"]}, tmp_path / "r.pt"))


def test_other_filter_is_refused(tmp_path: Path) -> None:
    given = small_rosinality()
    given["g_ema"]["convs.0.conv.blur.kernel"] = torch.ones(4, 4) / 4
    with pytest.raises(RefusedError, match="not the published blur"):
        read_checkpoint(saved(given, tmp_path / "r.pt"))


def test_other_super_resolution_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Deepfp32"):
        read_checkpoint(write_pickle(eg3d_module("SuperresolutionHybridDeepfp32"), tmp_path / "g.pkl"))


def mapped(found: Published, z: Tensor, c: Tensor | None = None) -> Tensor:
    """The mapping network of StyleGAN2 written out, [N, W]."""
    settings, tensors = found.config["mapping"], {k: v.double() for k, v in found.tensors.items()}

    def normalised(x: Tensor) -> Tensor:
        return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()

    x = normalised(z.double())
    if c is not None:
        weight = tensors["mapping.embed.weight"]
        embedded = c.double() @ weight.T * weight.shape[1] ** -0.5 + tensors["mapping.embed.bias"]
        x = torch.cat([x, normalised(embedded)], 1)
    rate = settings["lr_multiplier"]
    for i in range(settings["num_layers"]):
        weight, bias = tensors[f"mapping.fc{i}.weight"], tensors[f"mapping.fc{i}.bias"]
        x = torch.nn.functional.leaky_relu(x @ weight.T * (rate * weight.shape[1] ** -0.5) + bias * rate, 0.2) * 2**0.5
    return x
