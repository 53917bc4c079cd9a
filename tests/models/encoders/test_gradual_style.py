"""pSp and e4e agree with a transcription of their papers; files of other networks are refused by name."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from published_encoders import GradualStyleEncoder, hollow, shapes_on_paper
from published_networks import randomised
from tiny import seeded
from torch import Tensor

from guide_fast import brought
from guide_fast.errors import IntegrityError, RefusedError, UsageError
from guide_fast.models.encoders import load_encoder
from guide_fast.models.encoders.gradual_style import GradualStyle, convert, level, shapes

SLOTS = 8  # one head of the finest level; 18 of them differ in nothing but their number
E4E, PSP = "e4e-stylegan2", "psp-stylegan2"


@pytest.fixture(scope="module")
def published() -> GradualStyleEncoder:
    """With weights that are the same in half precision."""
    network = randomised(GradualStyleEncoder(SLOTS, e4e=False))
    with torch.no_grad():
        for value in network.state_dict().values():
            value.copy_(value.half())
    assert isinstance(network, GradualStyleEncoder)
    return network


@pytest.fixture(scope="module")
def latent_avg() -> Tensor:
    return seeded(SLOTS, 512, seed=4)


@pytest.fixture(scope="module")
def files(
    published: GradualStyleEncoder, latent_avg: Tensor, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """As the training scripts save, in half precision, with a bit of a decoder."""
    folder, found = tmp_path_factory.mktemp("encoders"), {}
    state = {f"encoder.{name}": value.half() for name, value in published.state_dict().items()}
    state["decoder.style.1.weight"] = torch.ones(4, 4)
    for name, kind in ((E4E, "Encoder4Editing"), (PSP, "GradualStyleEncoder")):
        opts = {"encoder_type": kind, "stylegan_size": 1024, "device": "cuda:0", "start_from_latent_avg": True}
        found[name] = folder / f"{name}.pt"
        opts |= {"learning_rate": 1e-4, "progressive_steps": None, "val_interval": 10_000}
        torch.save({"state_dict": state, "latent_avg": latent_avg, "opts": opts}, found[name])
    return found


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GUIDE_FAST_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@torch.no_grad()
def test_checkpoint_gives_the_codes_of_the_paper(
    published: GradualStyleEncoder,
    files: dict[str, Path],
    latent_avg: Tensor,
    home: Path,
    smooth_images: Callable[..., Tensor],
) -> None:
    images, w_mean = smooth_images(1, 256), torch.full((512,), 100.0)
    encoders = {}
    for name, file in files.items():
        brought.add(name, [file])
        encoders[name] = load_encoder(name)
        assert (encoders[name].num_ws, encoders[name].w_dim, encoders[name].resolution) == (SLOTS, 512, 256)
        published.e4e = name == E4E
        expected = published(images) + latent_avg
        found = encoders[name].encode(images, w_mean=w_mean)
        assert expected.std(dim=1).min() > 0  # the slots are not all alike
        torch.testing.assert_close(found, expected, atol=2e-4 * expected.abs().max().item(), rtol=0)
    e4e, psp = (encoders[name].train().encode(images, w_mean=w_mean) for name in (E4E, PSP))
    assert torch.equal(psp, found)  # eval mode whatever is asked for
    torch.testing.assert_close(e4e[:, 0], psp[:, 0])
    assert (e4e[:, 1:] - psp[:, 1:]).abs().max() > 0.01


@pytest.mark.parametrize("slots", [14, 16, 18])
def test_every_name_with_its_shape_is_the_published_one(slots: int) -> None:
    published = shapes_on_paper(lambda: GradualStyleEncoder(slots, e4e=True))
    counters = {name for name in published if name.endswith("num_batches_tracked")}
    assert shapes(slots) == {name: shape for name, shape in published.items() if name not in counters}
    assert published["input_layer.2.weight"] == (64,)
    assert published["body.3.shortcut_layer.0.weight"] == (128, 64, 1, 1)
    assert published["body.23.res_layer.5.fc1.weight"] == (32, 512, 1, 1)
    assert published["latlayer2.weight"] == (512, 128, 1, 1)
    assert published[f"styles.{slots - 1}.convs.10.weight"] == (512, 512, 3, 3)
    assert "styles.0.convs.6.bias" in published and "styles.0.convs.8.bias" not in published


def state(slots: int = 14, **changes: tuple[int, ...] | None) -> dict[str, Tensor]:
    """A checkpoint without memory; None takes a name away, `__` stands for a dot."""
    wanted: dict[str, Any] = dict(shapes(slots))
    for name, shape in changes.items():
        name = name.replace("__", ".")
        wanted = {key: value for key, value in wanted.items() if key != name} | ({name: shape} if shape else {})
    return {f"encoder.{name}": value for name, value in hollow(wanted).items()}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"styles__3__convs__4__weight": None, "styles__3__conv__4__weight": (512, 512, 3, 3)},
            r"styles\.3\.convs\.4\.weight, the file does not \(but styles\.3\.conv\.4\.weight\)",
        ),
        (
            {"body__5__res_layer__1__weight": (64, 128, 3, 3)},
            r"body\.5\.res_layer\.1\.weight has shape \[64, 128, 3, 3",
        ),
        (
            {"body__24__res_layer__0__bias": (512,)},
            r"the file has body\.24\.res_layer\.0\.bias, .* does not \(but body",
        ),
        ({"styles__5__linear__weight": None}, r"styles\.5\.linear\.weight, the file does not"),
        ({"latlayer1__bias": None}, r"a Encoder4Editing has latlayer1\.bias, the file does not"),
    ],
)
def test_first_wrong_name_or_shape_is_told(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(IntegrityError, match=said):
        convert(E4E, state(**changes), {})


@pytest.mark.parametrize(
    ("given", "settings", "said"),
    [
        ({}, {}, "no pSp or e4e encoder .*'nothing'"),
        (hollow({"conv1.weight": (3, 3)}), {}, "starts with 'conv1.weight'.*encoder.input_layer"),
        (hollow({"encoder.conv1.weight": (3, 3)}), {}, "starts with 'conv1.weight'"),
        (hollow(shapes(14)), {}, "no pSp or e4e encoder .*encoder.input_layer"),
        (state(), {"encoder_type": "GradualStyleEncoder"}, "it is a GradualStyleEncoder, .* add it as psp-stylegan2"),
        (state(), {"encoder_type": "ResNetBackboneEncoder"}, "ResNetBackboneEncoder, .* known are Grad.*, Encoder4Ed"),
        (state(20), {}, "has 20 style vectors, .* one of 8, 10, 12, 14, 16, 18"),
        (state(input_layer__0__weight=(64, 19, 3, 3)), {}, "images of 19 channels, not photos"),
    ],
)
def test_other_networks_are_refused(given: dict[str, Tensor], settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        convert(E4E, given, settings)


@pytest.mark.parametrize("shape", [(512,), (1, 512), (14, 512)])
def test_mean_latent_of_the_checkpoint_is_the_offset(shape: tuple[int, ...]) -> None:
    mean = seeded(*shape, seed=1)
    tensors, config = convert(E4E, state() | {"latent_avg": mean}, {"start_from_latent_avg": True})
    assert torch.equal(tensors["offset"], mean.expand(14, 512))
    assert config == {"name": E4E, "num_ws": 14, "w_dim": 512}


def test_offset_without_a_mean_latent() -> None:
    assert "offset" not in convert(E4E, state(), {})[0]  # the generator's is taken
    absolute = convert(E4E, state() | {"latent_avg": seeded(512, seed=1)}, {"start_from_latent_avg": False})[0]
    assert torch.equal(absolute["offset"], torch.zeros(14, 512))


def test_mean_latent_of_another_generator_is_refused() -> None:
    with pytest.raises(IntegrityError, match=r"latent_avg has shape \[18, 512\] where the encoder has \[14, 512\]"):
        convert(E4E, state() | {"latent_avg": torch.zeros(18, 512)}, {})


def test_heads_read_coarse_middle_fine_levels() -> None:
    assert [level(i) for i in range(18)] == [0] * 3 + [1] * 4 + [2] * 11


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("touched"),)


@pytest.mark.parametrize("where", ["opts", "state_dict", "everything"])
def test_malicious_checkpoint_is_refused_without_running_it(
    where: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content: Any = {"state_dict": {"encoder.styles.0.linear.weight": torch.ones(2)}, "opts": {}}
    if where == "everything":
        content = Attack()
    else:
        content[where]["encoder.attack"] = Attack()
    torch.save(content, "bad.pt")
    Path("bad.pkl").write_bytes(pickle.dumps(content))
    for file in ("bad.pt", "bad.pkl"):
        with pytest.raises(RefusedError, match="no published checkpoint needs"):
            brought.add(E4E, [Path(file)])
    assert not Path("touched").exists() and not home.exists()


def test_encoder_is_frozen() -> None:
    tensors, config = convert(PSP, state(8), {})
    encoder = GradualStyle(tensors, config)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not encoder.train().training
