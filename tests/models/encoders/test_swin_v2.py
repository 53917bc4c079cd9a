"""Swin V2 agrees with a transcription that goes window by window, head by head."""

from __future__ import annotations

import math

import pytest
import torch
from published_encoders import SwinTransformer, published_swin, shapes_on_paper
from published_networks import randomised
from tiny import seeded

from guide_fast.models.encoders.swin_v2 import (
    MASKED,
    Layout,
    SwinV2,
    coordinates,
    expected_buffers,
    offsets,
    shift_mask,
)

# four windows of 4 x 4 along a side with a shift, two with a shift, one, one of 2 x 2
TINY = Layout(64, 4, 8, (2, 3, 2, 1), (1, 2, 4, 2), 4, (3, 6, 4, 3))


def transcription(layout: Layout) -> SwinTransformer:
    assert layout.patch == 4
    sizes = (layout.resolution, layout.width, layout.depths, layout.heads, layout.window, layout.trained_windows)
    network = randomised(SwinTransformer(*sizes), seed=3)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.endswith("logit_scale"):
                value.copy_(torch.linspace(1.0, 6.0, value.numel()).view_as(value))  # the largest are clamped
    assert isinstance(network, SwinTransformer)
    return network.double()  # what rounding hides is seen


def ours(network: SwinTransformer, layout: Layout) -> SwinV2:
    built = SwinV2(layout).double()
    built.load_state_dict(network.state_dict())
    built.prepare()
    return built.eval()


@torch.no_grad()
def test_tokens_of_every_stage_are_those_of_the_transcription() -> None:
    network, images = transcription(TINY), seeded(2, 3, 64, 64, seed=1).double()
    expected, found = network(images), ours(network, TINY)(images)
    assert [tuple(x.shape) for x in found] == [(2, 256, 8), (2, 64, 16), (2, 16, 32), (2, 4, 64), (2, 4, 64)]
    for theirs, mine in zip(expected, found, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("part", ["logit_scale", "cpb_mlp.2.weight", "q_bias", "v_bias", "norm1.weight"])
def test_every_part_of_a_block_matters(part: str) -> None:
    network, images = transcription(TINY), seeded(1, 3, 64, 64, seed=1).double()
    before = ours(network, TINY)(images)[1]
    for name, value in network.named_parameters():
        if name.endswith(part):
            value.mul_(0.5)
    after = ours(network, TINY)(images)[1]
    assert (before - after).abs().max() > 1e-3
    torch.testing.assert_close(after, network(images)[1], atol=1e-5, rtol=1e-5)


def test_names_with_their_shapes_are_the_published_ones() -> None:
    assert shapes_on_paper(lambda: SwinV2(Layout())) == shapes_on_paper(published_swin)
    names = shapes_on_paper(published_swin)
    assert names["layers.2.blocks.17.attn.cpb_mlp.0.weight"] == (512, 2)
    assert names["layers.2.blocks.17.attn.logit_scale"] == (16, 1, 1)
    assert names["layers.1.downsample.reduction.weight"] == (512, 1024)
    assert names["layers.0.blocks.1.attn.q_bias"] == (128,)


def test_tables_that_files_repeat() -> None:
    tables = expected_buffers(Layout())
    shifted = [name for name in tables if name.endswith("attn_mask")]
    assert shifted == ["layers.0.blocks.1.attn_mask", "layers.1.blocks.1.attn_mask"]
    assert tables[shifted[0]].shape == (16, 256, 256) and tables[shifted[1]].shape == (4, 256, 256)
    assert tables["layers.2.blocks.5.attn.relative_coords_table"].shape == (1, 31, 31, 2)
    assert tables["layers.3.blocks.1.attn.relative_position_index"].shape == (64, 64)
    assert len(tables) == 2 * 24 + 2


def test_coordinates_are_log_spaced() -> None:
    table = coordinates(5, 3)
    assert table.shape == (9, 9, 2)
    for row, column in ((0, 0), (4, 4), (8, 3), (5, 7)):
        for axis, distance in enumerate((row - 4, column - 4)):
            expected = math.copysign(math.log2(1 + abs(8 * distance / 2)) / math.log2(8), distance)
            assert table[row, column, axis].item() == pytest.approx(expected, abs=1e-6)


def test_offsets_point_from_column_to_row() -> None:
    index = offsets(3)
    for i in range(9):
        for j in range(9):
            down, right = i // 3 - j // 3, i % 3 - j % 3
            assert index[i, j].item() == (down + 2) * 5 + right + 2


def test_shift_separates_what_was_not_side_by_side() -> None:
    mask = shift_mask(8, 4, 2)
    assert mask.shape == (4, 16, 16) and set(mask.unique().tolist()) == {0.0, MASKED}
    assert (mask[0] == 0).all()
    assert mask[1, 0, 1] == 0 and mask[1, 0, 2] == MASKED and mask[1, 0, 4] == 0  # the right edge comes from the left
    assert mask[2, 0, 4] == 0 and mask[2, 0, 8] == MASKED and mask[2, 0, 3] == 0
    assert mask[3, 0, 5] == 0 and mask[3, 0, 10] == MASKED and mask[3, 2, 8] == MASKED
