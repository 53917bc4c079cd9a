"""GOAE agrees with a transcription of its paper; files of other networks are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from published_encoders import GOAEncoder, SwinTransformer, hollow, published_swin, shapes_on_paper
from published_networks import randomised
from tiny import seeded
from torch import Tensor

from guide_fast import brought
from guide_fast.errors import IntegrityError, UsageError
from guide_fast.models.encoders import load_encoder
from guide_fast.models.encoders.encoder import resized
from guide_fast.models.encoders.goae import GOAE, Network, convert
from guide_fast.models.encoders.swin_v2 import Layout, expected_buffers
from guide_fast.models.framing import eg3d_framed, ffhq_framed

NAME = "goae-eg3d"
TINY = Layout(64, 4, 8, (2, 2, 2, 2), (1, 2, 4, 4), 4, (3, 3, 3, 2))


def published() -> GOAEncoder:
    return GOAEncoder(published_swin(), 128, 256, 512)


def tables() -> dict[str, Tensor]:
    return {f"swin_model.{name}": table for name, table in expected_buffers(Layout()).items()}


@torch.no_grad()
def test_codes_of_a_small_one_are_those_of_the_paper() -> None:
    swin = SwinTransformer(64, 8, TINY.depths, TINY.heads, TINY.window, TINY.trained_windows)
    network = randomised(GOAEncoder(swin, 8, 64, 32), seed=2)
    encoder = GOAE(network.state_dict(), {"num_ws": 14, "w_dim": 32}, layout=TINY)
    images, w_mean = seeded(3, 3, 64, 64, seed=1), seeded(32, seed=2)
    expected = network(images)
    assert expected.std(dim=1).min() > 1e-3 and expected.std(dim=0).min() > 0
    torch.testing.assert_close(encoder(images), expected, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(
        encoder.train().encode(ffhq_framed(images), w_mean=w_mean),
        network(eg3d_framed(ffhq_framed(images))) + w_mean,
        atol=2e-5,
        rtol=2e-5,
    )
    assert not encoder.training


@torch.no_grad()
def test_checkpoint_gives_the_codes_of_the_paper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, smooth_images: Callable[..., Tensor]
) -> None:
    monkeypatch.setenv("GUIDE_FAST_HOME", str(tmp_path / "home"))
    network = randomised(published(), seed=5)
    for value in network.state_dict().values():
        value.copy_(value.half())
    state = {name: value.half() for name, value in network.state_dict().items()} | tables()
    torch.save(state, tmp_path / "encoder_FFHQ.pt")
    brought.add(NAME, [tmp_path / "encoder_FFHQ.pt"])
    encoder = load_encoder(NAME)
    assert (encoder.num_ws, encoder.w_dim, encoder.family) == (14, 512, "eg3d")
    images, w_mean = smooth_images(1, 512), seeded(512, seed=2)
    framed = resized(eg3d_framed(images), 256, mode="bicubic")
    torch.testing.assert_close(encoder.encode(images, w_mean=w_mean), network(framed) + w_mean, atol=1e-4, rtol=1e-4)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_every_name_with_its_shape_is_the_published_one() -> None:
    names = shapes_on_paper(published)
    assert shapes_on_paper(lambda: Network(Layout(), 512)) == names
    assert names["mapper_query_spatial_fine.2.weight"] == (7, 64)
    assert names["mapper_mid_to_fine_spatial.2.weight"] == (4096, 2048)
    assert names["mapper_fine_channel.0.weight"] == (256, 128)
    assert names["cross_att_mid.multihead_attn.in_proj_weight"] == (1536, 512)
    assert names["cross_att_coarse.linear1.weight"] == (1024, 512)


def state(change: dict[str, Any] | None = None) -> dict[str, Tensor]:
    """A checkpoint without memory; None takes a name away."""
    made = hollow(shapes_on_paper(published)) | tables()
    for name, shape in (change or {}).items():
        made.pop(name, None)
        if isinstance(shape, tuple):
            made |= hollow({name: shape})
    return made


def test_tables_need_not_be_there() -> None:
    whole, repeated = state(), tables().keys()
    tensors, config = convert(NAME, {name: value for name, value in whole.items() if name not in repeated})
    assert tensors.keys() == shapes_on_paper(published).keys() == convert(NAME, whole)[0].keys()
    assert config == {"name": NAME, "num_ws": 14, "w_dim": 512}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"cross_att_mid.linear1.bias": None, "cross_att_mid.linear.bias": (1024,)},
            r"cross_att_mid\.linear1\.bias, the file does not \(but cross_att_mid\.linear\.bias\)",
        ),
        ({"mapper_mid_channel.0.weight": (512, 512)}, r"mapper_mid_channel\.0\.weight has shape \[512, 512\] where"),
        ({"swin_model.head.weight": (1000, 1024)}, r"has swin_model\.head\.weight, a GOAE encoder does not"),
        ({"swin_model.layers.2.blocks.1.attn_mask": (1, 4)}, r"blocks\.1\.attn_mask has shape .* no such table"),
        ({"swin_model.layers.0.blocks.1.attn_mask": (16, 49, 49)}, r"\[16, 49, 49\] where .* shape \[16, 256, 256\]"),
        ({"swin_model.layers.0.blocks.1.attn_mask": (16, 256, 256)}, "another table than windows of 16 trained at 12"),
    ],
)
def test_first_wrong_name_shape_or_table_is_told(change: dict[str, Any], said: str) -> None:
    with pytest.raises(IntegrityError, match=said):
        convert(NAME, state(change))


def test_tables_of_other_windows_are_refused() -> None:
    other = expected_buffers(Layout(trained_windows=(8, 8, 8, 8)))["layers.1.blocks.0.attn.relative_coords_table"]
    name = "swin_model.layers.1.blocks.0.attn.relative_coords_table"
    with pytest.raises(IntegrityError, match=rf"{name} is another table .* trained at 12, 12, 12, 6"):
        convert(NAME, state() | {name: other})


@pytest.mark.parametrize("given", [{}, hollow({"encoder.styles.0.linear.weight": (512, 512)})])
def test_other_networks_are_refused(given: dict[str, Tensor]) -> None:
    with pytest.raises(UsageError, match=r"no GOAE encoder .*encoder_FFHQ\.pt"):
        convert(NAME, given)
