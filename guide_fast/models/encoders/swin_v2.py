"""Swin Transformer V2: windows of tokens that attend by cosine, every other time shifted (arXiv 2111.09883).

Names of parameters are those that microsoft/Swin-Transformer publishes, without its classifier.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HIDDEN = 512  # of the network that makes position biases
LARGEST_SCALE = math.log(100)  # of the logits
LARGEST_BIAS = 16.0
REACH = 8  # coordinates of a window as it was trained lie in [-REACH, REACH]
MASKED = -100.0  # added where two tokens are neighbours only through the cyclic shift
BUFFERS = ("relative_coords_table", "relative_position_index", "attn_mask")  # in published files, computed here


class Layout(NamedTuple):
    """Sizes of a network; Swin V2-B with windows of 12 px widened to 16 is the one that GOAE publishes."""

    resolution: int = 256
    patch: int = 4
    width: int = 128  # channels of the first stage; each further one has twice as many
    depths: tuple[int, ...] = (2, 2, 18, 2)
    heads: tuple[int, ...] = (4, 8, 16, 32)
    window: int = 16
    trained_windows: tuple[int, ...] = (12, 12, 12, 6)  # position biases are scaled to them
    ratio: int = 4  # of the hidden layer in a block

    def side(self, stage: int) -> int:
        """Tokens along one side of the image in a stage."""
        return (self.resolution // self.patch) >> stage

    def channels(self, stage: int) -> int:
        """Channels of a stage."""
        return self.width << stage

    def window_of(self, stage: int, block: int) -> tuple[int, int]:
        """Side with shift of a block's windows; a window as large as the image is never shifted."""
        if self.side(stage) <= self.window:
            return self.side(stage), 0
        return self.window, self.window // 2 if block % 2 else 0


class SwinV2(nn.Module):
    """[N, 3, R, R] -> tokens before each stage, then the normalised last ones."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.patch_embed = _Patches(layout)
        self.layers = nn.ModuleList(_Stage(layout, stage) for stage in range(len(layout.depths)))
        self.norm = nn.LayerNorm(layout.channels(len(layout.depths) - 1))

    def prepare(self) -> None:
        """Compute what depends on the weights alone; call it once they are loaded."""
        for module in self.modules():
            if isinstance(module, _Block):
                module.prepare()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Of S stages: S + 1 tensors [N, side(s)^2, channels(s)], the last one of the last stage."""
        x = self.patch_embed(images)  # [N, H, W, C]
        tokens = []
        for stage in self.layers:
            tokens.append(x.flatten(1, 2))
            x = stage(x)
        return [*tokens, self.norm(x).flatten(1, 2)]


class _Patches(nn.Module):
    """Each patch as one token."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, layout.width, layout.patch, layout.patch)
        self.norm = nn.LayerNorm(layout.width)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


class _Stage(nn.Module):
    """Blocks, then half the side with twice the channels; the last stage keeps both."""

    def __init__(self, layout: Layout, stage: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(layout, stage, block) for block in range(layout.depths[stage]))
        last = stage == len(layout.depths) - 1
        self.downsample = None if last else _Merging(layout.channels(stage))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class _Merging(nn.Module):
    """Four neighbouring tokens, column by column, as one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)
        self.norm = nn.LayerNorm(2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        n, height, width, channels = x.shape
        x = x.view(n, height // 2, 2, width // 2, 2, channels).permute(0, 1, 3, 4, 2, 5)
        return self.norm(self.reduction(x.flatten(3)))


class _Block(nn.Module):
    """x + norm(attention(x)), then x + norm(perceptron(x)): normalised after, not before (res-post-norm)."""

    def __init__(self, layout: Layout, stage: int, block: int) -> None:
        super().__init__()
        channels = layout.channels(stage)
        self.side = layout.side(stage)
        self.window, self.shift = layout.window_of(stage, block)
        self.norm1 = nn.LayerNorm(channels)
        self.attn = _Attention(channels, layout.heads[stage], self.window, layout.trained_windows[stage])
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = _Perceptron(channels, layout.ratio * channels)

    def prepare(self) -> None:
        self.attn.prepare(shift_mask(self.side, self.window, self.shift) if self.shift else None)

    def forward(self, x: Tensor) -> Tensor:
        y = x if not self.shift else x.roll((-self.shift, -self.shift), dims=(1, 2))
        y = self._joined(self.attn(self._windows(y)), len(x))
        if self.shift:
            y = y.roll((self.shift, self.shift), dims=(1, 2))
        x = x + self.norm1(y)
        return x + self.norm2(self.mlp(x))

    def _windows(self, x: Tensor) -> Tensor:
        """[N, H, W, C] -> [N, windows, T, C], row by row."""
        n, count, side = len(x), self.side // self.window, self.window
        x = x.reshape(n, count, side, count, side, -1).transpose(2, 3)
        return x.reshape(n, count * count, side * side, -1)

    def _joined(self, windows: Tensor, n: int) -> Tensor:
        count, side = self.side // self.window, self.window
        x = windows.view(n, count, count, side, side, -1).transpose(2, 3)
        return x.reshape(n, self.side, self.side, -1)


class _Perceptron(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _Attention(nn.Module):
    """softmax(scale * cosine(q, k) + bias(log distance)) v, in each window by itself."""

    bias: Tensor | None  # [1, heads, T, T], or with a shift [windows, heads, T, T]

    def __init__(self, channels: int, heads: int, window: int, trained: int) -> None:
        super().__init__()
        self.heads, self.window, self.trained = heads, window, trained
        self.logit_scale = nn.Parameter(torch.zeros(heads, 1, 1))
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(channels)), nn.Parameter(torch.zeros(channels))
        self.cpb_mlp = nn.Sequential(nn.Linear(2, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, heads, bias=False))
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.proj = nn.Linear(channels, channels)
        self.register_buffer("bias", None, persistent=False)

    @torch.no_grad()
    def prepare(self, mask: Tensor | None) -> None:
        table = coordinates(self.window, self.trained).to(self.qkv.weight)
        biases = LARGEST_BIAS * torch.sigmoid(self.cpb_mlp(table).flatten(0, 1))  # [(2w - 1)^2, heads]
        bias = biases[offsets(self.window).to(biases.device)].permute(2, 0, 1)[None]
        self.bias = bias.contiguous() if mask is None else bias + mask[:, None].to(bias)

    def forward(self, x: Tensor) -> Tensor:
        n, windows, tokens, channels = x.shape
        qkv = F.linear(x, self.qkv.weight, torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias)))
        q, k, v = qkv.view(n, windows, tokens, 3, self.heads, -1).permute(3, 0, 1, 4, 2, 5)
        q = F.normalize(q, dim=-1) * self.logit_scale.clamp(max=LARGEST_SCALE).exp()
        y = F.scaled_dot_product_attention(q, F.normalize(k, dim=-1), v, attn_mask=self.bias, scale=1.0)
        return self.proj(y.transpose(2, 3).reshape(n, windows, tokens, channels))


def coordinates(window: int, trained: int) -> Tensor:
    """Distances of two tokens in a window, log-spaced: [2w - 1, 2w - 1, 2], down then right."""
    steps = torch.arange(1 - window, window, dtype=torch.float32) * (REACH / (trained - 1))
    steps = steps.sign() * torch.log2(steps.abs() + 1) / math.log2(REACH)
    return torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1)


def offsets(window: int) -> Tensor:
    """Where the table of `coordinates`, flattened, has the distance of each pair: [w^2, w^2], from column to row."""
    place = torch.arange(window)
    rows, columns = (axis.flatten() for axis in torch.meshgrid(place, place, indexing="ij"))
    down, right = (axis[:, None] - axis[None] + window - 1 for axis in (rows, columns))
    return down * (2 * window - 1) + right


def shift_mask(side: int, window: int, shift: int) -> Tensor:
    """MASKED for pairs that a cyclic shift brought into one window, else 0: [windows, w^2, w^2]."""
    part = torch.zeros(side, dtype=torch.long)
    part[side - window :] = 1
    part[side - shift :] = 2
    parts = 3 * part[:, None] + part[None]
    count = side // window
    parts = parts.view(count, window, count, window).transpose(1, 2).reshape(count * count, -1)
    return torch.where(parts[:, :, None] == parts[:, None], 0.0, MASKED)


def expected_buffers(layout: Layout) -> Mapping[str, Tensor]:
    """What published files repeat of the layout, by name; a shift's mask only where there is one."""
    found = {}
    for stage, depth in enumerate(layout.depths):
        for block in range(depth):
            window, shift = layout.window_of(stage, block)
            name = f"layers.{stage}.blocks.{block}"
            table = coordinates(window, layout.trained_windows[stage])
            found[f"{name}.attn.relative_coords_table"] = table[None]
            found[f"{name}.attn.relative_position_index"] = offsets(window)
            if shift:
                found[f"{name}.attn_mask"] = shift_mask(layout.side(stage), window, shift)
    return found
