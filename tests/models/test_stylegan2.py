"""StyleGAN2 agrees with its published outputs and a plain transcription in every form, says what it cannot do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import seeded
from tiny_stylegan2 import CONFIG, tiny_stylegan2
from torch import Tensor

from guide_fast.bench.baselines.stylegan2_eager import eager_synthesis
from guide_fast.errors import IntegrityError, UsageError
from guide_fast.models.generator import Generator
from guide_fast.models.modulation import Modulation
from guide_fast.models.stylegan2 import StyleGAN2

TOLERANCE = 1e-4  # of the range of what is compared
PUBLISHED = ("stylegan2_64", "stylegan2_cond_32_resnet", "rosinality_64")
FORMS: dict[str, dict[str, Any]] = {
    "skip": {},
    "resnet": {"architecture": "resnet"},
    "orig": {"architecture": "orig"},
    "clamp": {"conv_clamp": 0.7, "num_fp16_res": 3},
    "clamped resnet": {"architecture": "resnet", "conv_clamp": 0.7},
    "smallest": {"img_resolution": 8, "channel_base": 64},
    "without noise": {"use_noise": False},
    "128 px": {"img_resolution": 128, "channel_base": 512, "channel_max": 8},
}


def assert_near(found: Tensor, wanted: Tensor, tolerance: float = TOLERANCE) -> None:
    assert found.shape == wanted.shape
    worst = ((found - wanted).abs().max() / (wanted.max() - wanted.min())).item()
    assert worst <= tolerance, f"off by {worst} of the range, {tolerance} is allowed"


def latents(generator: StyleGAN2, count: int = 2, seed: int = 3) -> Tensor:
    """W+ with another style vector in every slot."""
    return seeded(count, generator.num_ws, generator.w_dim, seed=seed)


@pytest.fixture
def tiny() -> StyleGAN2:
    return tiny_stylegan2()


@pytest.fixture(scope="module")
def published(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], StyleGAN2]:
    """The generator of a fixture, through the door for published files."""
    from guide_fast.models.checkpoint import read_checkpoint

    def load(name: str) -> StyleGAN2:
        path = shared / "fixtures" / f"{name}.pkl"
        if name.startswith("rosinality"):
            path = rosinality_file(shared / "fixtures" / f"{name}.keys.json", tmp_path_factory.mktemp("pt") / "g.pt")
        read = read_checkpoint(path)
        return StyleGAN2.from_tensors(read.tensors, read.config)

    return load


def rosinality_file(rule: Path, path: Path) -> Path:
    """The checkpoint that the rule describes: tensor i = scale * randn of seed i, the FIR kernels as given."""
    described = json.loads(rule.read_text())
    state = {}
    for i, (name, shape, how) in enumerate(described["keys"]):
        if how == "kernel":
            state[name] = torch.tensor(described["kernels"][name])
            continue
        offset, _, scale = how.removesuffix("*randn").rpartition("+")
        state[name] = float(offset or 0) + float(scale) * seeded(*shape, seed=i)
    torch.save({"g_ema": state, "latent_avg": torch.zeros(described["style_dim"])}, path)
    return path


@pytest.mark.parametrize("impl", ["reference", "auto"])
@pytest.mark.parametrize("name", PUBLISHED)
@torch.inference_mode()
def test_outputs_agree_with_the_published_ones(
    published: Callable[[str], StyleGAN2], shared: Path, name: str, impl: str
) -> None:
    with np.load(shared / "fixtures" / f"{name}.expected.npz") as arrays:
        expected = {key: torch.from_numpy(arrays[key]) for key in arrays}
    generator = published(name)
    generator.impl = impl
    z, c = expected.pop("z"), expected.pop("c", None)
    ws = generator.mapping(z, c)
    found = {
        "ws": ws,
        "w": ws[:, 0],
        "ws_psi07_cutoff4": generator.mapping(z, c, psi=0.7, cutoff=4),
        "image": generator.synthesis(ws, c).image,
        "image_nonoise": generator.synthesis(ws, noise="none").image,
        "image_wplus": generator.synthesis(expected["wplus"]).image,
        "wplus": expected["wplus"],
    }
    for key, wanted in expected.items():
        assert_near(found[key], wanted)


def test_assert_near_can_fail() -> None:
    scale = torch.linspace(0, 10, 11)
    assert_near(scale + 9e-4, scale)
    for wrong in (scale + 2e-3, scale * float("nan"), scale[:5]):
        with pytest.raises(AssertionError):
            assert_near(wrong, scale)


@pytest.mark.parametrize("noise", ["const", "none"])
@pytest.mark.parametrize("impl", ["reference", "auto"])
@pytest.mark.parametrize("form", FORMS)
@torch.inference_mode()
def test_image_agrees_with_a_plain_transcription(form: str, impl: str, noise: str) -> None:
    generator = tiny_stylegan2(**FORMS[form])
    generator.impl = impl
    ws = latents(generator)
    wanted = transcribed(generator, ws, noise=noise == "const")
    if "clamp" in form:
        without = tiny_stylegan2(**FORMS[form] | {"conv_clamp": None})
        assert not torch.allclose(transcribed(without, ws, noise=noise == "const"), wanted, atol=1e-2)
    assert_near(generator.synthesis(ws, noise=noise).image, wanted, 1e-5)


def transcribed(generator: StyleGAN2, ws: Tensor, *, noise: bool) -> Tensor:
    return eager_synthesis(
        generator.synthesis_network.state_dict(),
        ws,
        architecture=generator.config["architecture"],
        clamp=generator.config["conv_clamp"],
        noise=noise and generator.config["use_noise"],
    )


@pytest.mark.parametrize("form", ["skip", "resnet", "clamp"])
def test_gradients_are_as_exact_as_those_of_plain_pytorch(form: str) -> None:
    found = {name: gradients(form, *how) for name, how in GRADIENTS.items()}
    for name, exact in found["exact"].items():
        size = exact.norm()
        plain, ours = ((found[how][name] - exact).norm() / size for how in ("plain", "ours"))
        # thrice the error of plain PyTorch in the same precision; 1e-6 for gradients that it happens to get exactly
        assert ours <= 3 * plain + 1e-6, name
        assert plain <= 1e-4, name


GRADIENTS = {
    "exact": ("reference", torch.float64),
    "plain": ("reference", torch.float32),
    "ours": ("auto", torch.float32),
}


def gradients(form: str, impl: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Of a fixed projection of image, features: to ws, to all parameters of each layer together.

    Together, because a noise strength's own gradient is a sum of large terms that cancel.
    """
    generator = tiny_stylegan2(**FORMS[form]).to(dtype)
    generator.impl = impl
    wanted = {layer: [*generator.layer_parameters(layer).values()] for layer in generator.layers}
    generator.requires_grad_(True)
    ws = latents(generator).to(dtype).requires_grad_()
    rendering = generator.synthesis(ws)
    loss = sum((out * seeded(*out.shape, seed=9)).sum() for out in (rendering.image, rendering.features))
    grads = {name: torch.autograd.grad(loss, of, retain_graph=True) for name, of in {"ws": [ws], **wanted}.items()}
    return {name: torch.cat([part.flatten().double() for part in parts]) for name, parts in grads.items()}


def test_image_with_a_graph_is_the_one_without(tiny: StyleGAN2) -> None:
    ws = latents(tiny)
    recorded = tiny.requires_grad_(True).synthesis(ws).image
    with torch.no_grad():
        assert_near(tiny.synthesis(ws).image, recorded.detach(), 1e-6)


@pytest.mark.parametrize("size", [4, 8, 16, 32])
def test_skip_architecture_has_an_image_at_every_level(tiny: StyleGAN2, size: int) -> None:
    assert tiny.resolutions == (4, 8, 16, 32)
    rendering = tiny.synthesis(latents(tiny), resolution=size)
    assert rendering.image.shape == (2, 3, size, size)
    assert rendering.features.shape[2:] == (size, size)


@pytest.mark.parametrize("architecture", ["resnet", "orig"])
def test_other_architectures_have_one_image(architecture: str) -> None:
    generator = tiny_stylegan2(architecture=architecture)
    assert generator.resolutions == (32,)
    with pytest.raises(UsageError, match="has no 16 px output; it renders at 32"):
        generator.synthesis(latents(generator), resolution=16)


@pytest.mark.parametrize("architecture", ["skip", "resnet"])
@pytest.mark.parametrize("resolution", [8, 32])
def test_layers_that_an_image_shows_are_those_it_depends_on(architecture: str, resolution: int) -> None:
    generator = tiny_stylegan2(architecture=architecture)
    if resolution not in generator.resolutions:
        with pytest.raises(UsageError, match=r"ltu\.resolution = 8 is no output of tiny-stylegan2; choose one of 32"):
            generator.seen_layers(resolution)
        return
    seen = generator.seen_layers(resolution)
    generator.requires_grad_(True).synthesis(latents(generator), resolution=resolution).image.sum().backward()
    moved = [
        layer
        for layer in generator.layers
        if any(parameter.grad is not None for parameter in generator.layer_parameters(layer).values())
    ]
    assert list(seen) == moved
    assert (len(seen) < len(generator.layers)) == (resolution == 8)


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_slot_is_the_one_the_layer_reads(architecture: str) -> None:
    generator = tiny_stylegan2(architecture=architecture)
    for layer in generator.layers:
        if layer.endswith(".modulation"):
            modulation = generator.layer_module(layer).modulation
            assert isinstance(modulation, Modulation)
            seen: list[Tensor] = []
            hook = modulation.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(inputs[0]))
            ws = torch.zeros(1, generator.num_ws, generator.w_dim)
            ws[0, generator.slot(layer)] = 1
            generator.synthesis(ws)
            hook.remove()
            assert torch.equal(seen[0], torch.ones(1, generator.w_dim)), layer


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_layers_cover_every_trainable_tensor_of_the_synthesis_once(architecture: str) -> None:
    generator = tiny_stylegan2(architecture=architecture)
    covered = [name for layer in generator.layers for name in generator.layer_parameters(layer)]
    every = {name for name, _ in generator.named_parameters() if name.startswith("synthesis_network.")}
    assert len(covered) == len(set(covered))
    assert set(covered) == every - {"synthesis_network.b4.const"}
    for layer in generator.layers:
        for name, parameter in generator.layer_parameters(layer).items():
            assert generator.get_parameter(name) is parameter


def test_layers_run_from_coarse_to_fine(tiny: StyleGAN2) -> None:
    parts = list(dict.fromkeys(layer.rsplit(".", 1)[0] for layer in tiny.layers))
    later = [f"b{size}.{part}" for size in (8, 16, 32) for part in ("conv0", "conv1", "torgb")]
    assert parts == ["b4.conv1", "b4.torgb", *later]
    assert [tiny.slot(f"{part}.modulation") for part in parts] == [0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 7]
    assert tiny.num_ws == 8


def test_tiny_generator_satisfies_the_protocol(tiny: StyleGAN2) -> None:
    assert isinstance(tiny, Generator)


@pytest.mark.parametrize(("psi", "cutoff"), [(0.5, None), (0.5, 3), (0.0, 2), (-1.0, None)])
def test_truncation_draws_the_first_slots_toward_the_mean(tiny: StyleGAN2, psi: float, cutoff: int | None) -> None:
    z = seeded(2, 12, seed=0)
    ws, drawn = tiny.mapping(z), tiny.mapping(z, psi=psi, cutoff=cutoff)
    count = tiny.num_ws if cutoff is None else cutoff
    assert torch.allclose(drawn[:, :count], tiny.w_mean + psi * (ws[:, :count] - tiny.w_mean), atol=1e-6)
    assert torch.equal(drawn[:, count:], ws[:, count:])


def test_random_noise_is_drawn_from_what_is_passed(tiny: StyleGAN2) -> None:
    ws = latents(tiny)
    state = torch.get_rng_state()
    images = [tiny.synthesis(ws, noise="random", random=torch.Generator().manual_seed(s)).image for s in (0, 0, 1)]
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])
    assert torch.equal(torch.get_rng_state(), state)
    same = tiny.synthesis(ws[:1].expand(2, -1, -1), noise="random", random=torch.Generator().manual_seed(0)).image
    assert not torch.equal(same[0], same[1])


def test_noise_that_cannot_be_is_refused(tiny: StyleGAN2) -> None:
    with pytest.raises(UsageError, match="noise='random' needs random="):
        tiny.synthesis(latents(tiny), noise="random")
    with pytest.raises(UsageError, match="noise='fixed' is not known to tiny-stylegan2; choose one of const, random"):
        tiny.synthesis(latents(tiny), noise="fixed")


def test_label_decides_who_z_is() -> None:
    generator = tiny_stylegan2(c_dim=3)
    z, labels = seeded(3, 12, seed=0), torch.eye(3)
    ws = generator.mapping(z, labels)
    assert not torch.allclose(generator.mapping(z, labels.flip(0)), ws)
    generator.label = labels[1]
    assert torch.equal(generator.mapping(z)[1], generator.mapping(z, labels[1].expand(3, -1))[1])
    assert torch.equal(generator.mapping(z, labels), ws)
    assert torch.equal(generator.synthesis(ws, labels).image, generator.synthesis(ws).image)


def test_label_that_does_not_fit_is_refused(tiny: StyleGAN2) -> None:
    conditional = tiny_stylegan2(c_dim=3)
    with pytest.raises(UsageError, match=r"conditional on a label of 3 numbers; give c \[N, 3\]"):
        conditional.mapping(torch.zeros(1, 12))
    for wrong in (torch.zeros(1, 2), torch.zeros(2, 3), torch.zeros(3)):
        with pytest.raises(UsageError, match=r"tiny-stylegan2 takes \[1, 3\]"):
            conditional.mapping(torch.zeros(1, 12), wrong)
    with pytest.raises(UsageError, match="takes no conditioning label"):
        tiny.mapping(torch.zeros(1, 12), torch.zeros(1, 3))
    with pytest.raises(UsageError, match="takes no conditioning label"):
        tiny.synthesis(latents(tiny, 1), torch.zeros(1, 3))


def test_inputs_of_another_shape_are_refused(tiny: StyleGAN2) -> None:
    with pytest.raises(UsageError, match=r"tiny-stylegan2 takes \[N, 12\]"):
        tiny.mapping(torch.zeros(2, 13))
    with pytest.raises(UsageError, match=r"tiny-stylegan2 takes \[N, 8, 16\]"):
        tiny.synthesis(torch.zeros(2, 7, 16))


@pytest.mark.parametrize("layer", ["mapping_network.fc0", "b4.conv0.modulation", "b8.skip.convolution", ""])
def test_unknown_layer_is_refused(tiny: StyleGAN2, layer: str) -> None:
    for ask in (tiny.layer_parameters, tiny.slot, tiny.layer_module):
        with pytest.raises(UsageError, match="doctor --layers"):
            ask(layer)


@pytest.mark.parametrize("damage", ["missing", "shape", "extra"])
def test_weights_that_do_not_fit_are_an_integrity_error(tiny: StyleGAN2, damage: str) -> None:
    tensors = tiny.state_dict()
    if damage == "missing":
        del tensors["synthesis_network.b4.const"]
    else:
        tensors[f"synthesis_network.b{4 if damage == 'shape' else 64}.const"] = torch.zeros(1)
    with pytest.raises(IntegrityError, match="do not fit tiny-stylegan2"):
        StyleGAN2.from_tensors(tensors, CONFIG)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"activation": "relu"}, "activation 'relu'"),
        ({"mapping": CONFIG["mapping"] | {"activation": "linear"}}, "activation 'linear'"),
        ({"architecture": "style"}, "architecture 'style' .* skip, resnet, orig"),
        ({"img_resolution": 48}, "48 px"),
        ({"img_resolution": 2048}, "2048 px"),
        ({"resample_filter": [1, 2, 1]}, r"resamples with \[1, 2, 1\]"),
        ({"img_channels": 1}, "1 channels"),
    ],
)
def test_what_no_published_generator_has_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        StyleGAN2.from_tensors({}, CONFIG | change)


def test_published_names_load_as_our_own(tiny: StyleGAN2) -> None:
    renamed = {
        name.replace("_network.", ".").replace(".modulation.", ".affine."): value
        for name, value in tiny.state_dict().items()
    }
    renamed["synthesis.b8.conv0.resample_filter"] = torch.zeros(4, 4)
    loaded = StyleGAN2.from_tensors(renamed, CONFIG).state_dict()
    assert loaded.keys() == tiny.state_dict().keys()
    assert all(torch.equal(value, loaded[name]) for name, value in tiny.state_dict().items())


def test_rendering_changes_neither_weights_nor_ws(tiny: StyleGAN2) -> None:
    ws = latents(tiny)
    before = {name: value.clone() for name, value in tiny.state_dict().items()}, ws.clone()
    first = tiny.synthesis(ws).image
    assert torch.equal(tiny.synthesis(ws).image, first)
    assert all(torch.equal(value, before[0][name]) for name, value in tiny.state_dict().items())
    assert torch.equal(ws, before[1])


def test_people_of_a_batch_do_not_meet(tiny: StyleGAN2) -> None:
    ws = latents(tiny, 3)
    together = tiny.synthesis(ws).image
    for i in range(3):
        assert_near(tiny.synthesis(ws[i : i + 1]).image[0], together[i], 1e-5)
