"""Encoders written from their papers, layer by layer, with random weights under the published names."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from published_networks import Unit
from torch import Tensor, nn
from torch.nn import functional as F


class EqualLinear(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(outputs, inputs)), nn.Parameter(torch.empty(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T / math.sqrt(x.shape[-1]) + self.bias


class MapToStyle(nn.Module):
    def __init__(self, side: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        while side > 1:
            layers += [nn.Conv2d(512, 512, 3, 2, 1), nn.LeakyReLU(0.01)]
            side //= 2
        self.convs, self.linear = nn.Sequential(*layers), EqualLinear(512, 512)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.convs(x).reshape(len(x), 512))


class GradualStyleEncoder(nn.Module):
    """[N, 3, 256, 256] in [-1, 1] -> [N, slots, 512], as pSp has it, or as e4e with all differences."""

    def __init__(self, slots: int, *, e4e: bool) -> None:
        super().__init__()
        self.e4e = e4e
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        body, inputs = [], 64
        for outputs, count in ((64, 3), (128, 4), (256, 14), (512, 3)):
            for i in range(count):
                body.append(Unit(inputs, outputs, 2 if i == 0 else 1, True))
                inputs = outputs
        self.body = nn.Sequential(*body)
        sides = [16] * 3 + [32] * 4 + [64] * 11
        self.styles = nn.ModuleList(MapToStyle(side) for side in sides[:slots])
        self.latlayer1, self.latlayer2 = nn.Conv2d(256, 512, 1), nn.Conv2d(128, 512, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.input_layer(x)
        at = []
        for unit in self.body:
            x = unit(x)
            at.append(x)
        c1, c2, c3 = at[6], at[20], at[23]
        p2 = F.interpolate(c3, (32, 32), mode="bilinear", align_corners=True) + self.latlayer1(c2)
        p1 = F.interpolate(p2, (64, 64), mode="bilinear", align_corners=True) + self.latlayer2(c1)
        seen = [c3] * 3 + [p2] * 4 + [p1] * 11
        styles = [style(features) for style, features in zip(self.styles, seen, strict=False)]
        return torch.stack([styles[0] + s if self.e4e and i else s for i, s in enumerate(styles)], dim=1)


class Attention(nn.Module):
    """One window at a time, one head at a time."""

    def __init__(self, dim: int, heads: int, window: int, trained: int) -> None:
        super().__init__()
        self.heads, self.window, self.trained = heads, window, trained
        self.logit_scale = nn.Parameter(torch.empty(heads, 1, 1))
        self.q_bias, self.v_bias = nn.Parameter(torch.empty(dim)), nn.Parameter(torch.empty(dim))
        self.cpb_mlp = nn.Sequential(nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, heads, bias=False))
        self.qkv, self.proj = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)

    def position_bias(self) -> Tensor:
        """[heads, T, T] of the offsets between tokens in log space."""
        w = self.window
        logs = [math.copysign(math.log2(1 + abs(8 * d / (self.trained - 1))) / 3, d) for d in range(1 - w, w)]
        table = torch.tensor([[[y, x] for x in logs] for y in logs]).to(self.logit_scale)
        values = self.cpb_mlp(table)  # [2w - 1, 2w - 1, heads]
        values = 16 * torch.sigmoid(values)
        pairs = [(i // w - j // w + w - 1, i % w - j % w + w - 1) for i in range(w * w) for j in range(w * w)]
        rows, columns = torch.tensor(pairs).T
        return values[rows, columns].T.reshape(self.heads, w * w, w * w)

    def forward(self, tokens: Tensor, allowed: Tensor, biases: Tensor) -> Tensor:
        """[T, dim] of one window; `allowed` [T, T] -> [T, dim]."""
        parts = tokens @ self.qkv.weight.T
        q, k, v = parts.chunk(3, dim=1)
        q, v = q + self.q_bias, v + self.v_bias
        size, out = q.shape[1] // self.heads, []
        for head in range(self.heads):
            mine = slice(head * size, (head + 1) * size)
            cosine = F.normalize(q[:, mine], dim=1) @ F.normalize(k[:, mine], dim=1).T
            scale = min(self.logit_scale[head].item(), math.log(100))
            logits = math.exp(scale) * cosine + biases[head]
            logits = torch.where(allowed, logits, logits - 100)
            out.append(torch.softmax(logits, dim=1) @ v[:, mine])
        return self.proj(torch.cat(out, dim=1))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, side: int, window: int, shift: int, trained: int) -> None:
        super().__init__()
        self.side, self.window, self.shift = side, window, shift
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = Attention(dim, heads, window, trained)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})

    def forward(self, x: Tensor) -> Tensor:
        """[N, side^2, dim]; the token at shifted place p comes from (p + shift) modulo side."""
        side, w, attended = self.side, self.window, torch.zeros_like(x)
        biases = self.attn.position_bias()
        for top in range(0, side, w):
            for left in range(0, side, w):
                places = [(top + i, left + j) for i in range(w) for j in range(w)]
                wrapped = [(y + self.shift >= side, x + self.shift >= side) for y, x in places]
                sources = [((y + self.shift) % side) * side + (x + self.shift) % side for y, x in places]
                codes = torch.tensor([2 * down + right for down, right in wrapped])
                allowed = codes[:, None] == codes[None]
                for n in range(len(x)):
                    attended[n, sources] = self.attn(x[n, sources], allowed, biases)
        x = x + self.norm1(attended)
        return x + self.norm2(self.mlp["fc2"](F.gelu(self.mlp["fc1"](x))))


class Merging(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction, self.norm = nn.Linear(4 * dim, 2 * dim, bias=False), nn.LayerNorm(2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        n, count, dim = x.shape
        grid = x.reshape(n, math.isqrt(count), math.isqrt(count), dim)
        four = [grid[:, row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
        return self.norm(self.reduction(torch.cat(four, dim=3).reshape(n, count // 4, 4 * dim)))


class SwinTransformer(nn.Module):
    """[N, 3, R, R] -> tokens before each stage, then the normalised last ones, [N, T, dim]."""

    def __init__(
        self,
        resolution: int,
        dim: int,
        depths: Sequence[int],
        heads: Sequence[int],
        window: int,
        trained: Sequence[int],
    ) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, 4, 4), "norm": nn.LayerNorm(dim)})
        self.layers, side = nn.ModuleList(), resolution // 4
        for i, depth in enumerate(depths):
            w = min(window, side)
            shifts = [window // 2 if b % 2 and side > window else 0 for b in range(depth)]
            layer = nn.Module()
            layer.blocks = nn.ModuleList(Block(dim, heads[i], side, w, shift, trained[i]) for shift in shifts)
            if i < len(depths) - 1:
                layer.downsample = Merging(dim)
                dim, side = 2 * dim, side // 2
            self.layers.append(layer)
        self.norm = nn.LayerNorm(dim)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.patch_embed["norm"](self.patch_embed["proj"](images).flatten(2).transpose(1, 2))
        found = []
        for layer in self.layers:
            found.append(x)
            for block in layer.blocks:
                x = block(x)
            x = layer.downsample(x) if hasattr(layer, "downsample") else x
        return [*found, self.norm(x)]


class CrossAttention(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.multihead_attn = nn.Module()
        self.multihead_attn.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.multihead_attn.in_proj_bias = nn.Parameter(torch.empty(3 * dim))
        self.multihead_attn.out_proj = nn.Linear(dim, dim)
        self.linear1, self.linear2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        wq, wk, wv = self.multihead_attn.in_proj_weight.chunk(3)
        bq, bk, bv = self.multihead_attn.in_proj_bias.chunk(3)
        q, k, v = x @ wq.T + bq, memory @ wk.T + bk, memory @ wv.T + bv
        out = []
        for a, b, c in zip(q.chunk(4, dim=2), k.chunk(4, dim=2), v.chunk(4, dim=2), strict=True):
            out.append(torch.softmax(a @ b.transpose(1, 2) / math.sqrt(a.shape[2]), dim=2) @ c)
        x = x + self.multihead_attn.out_proj(torch.cat(out, dim=2))
        x = (x - x.mean(dim=2, keepdim=True)) / torch.sqrt(x.var(dim=2, keepdim=True, unbiased=False) + 1e-5)
        return x + self.linear2(torch.relu(self.linear1(x)))


class GOAEncoder(nn.Module):
    """[N, 3, R, R] -> [N, 14, w_dim]."""

    def __init__(self, swin: SwinTransformer, dim: int, resolution: int, w_dim: int) -> None:
        super().__init__()
        self.swin_model = swin
        t = [(resolution // (4 << i)) ** 2 for i in range(4)]

        def mlp(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(inputs, inputs), nn.LeakyReLU(0.01), nn.Linear(inputs, outputs))

        self.mapper_base_spatial, self.mapper_base_channel = mlp(t[3], 1), mlp(8 * dim, w_dim)
        self.mapper_query_spatial_coarse, self.mapper_query_channel_coarse = mlp(t[3], 3), mlp(8 * dim, w_dim)
        self.mapper_query_spatial_mid, self.mapper_query_channel_mid = mlp(t[3], 3), mlp(8 * dim, w_dim)
        self.mapper_query_spatial_fine, self.mapper_query_channel_fine = mlp(t[3], 7), mlp(8 * dim, w_dim)
        leaky = nn.LeakyReLU(0.01)
        self.mapper_coarse_channel = nn.Sequential(nn.Linear(4 * dim, w_dim), leaky)
        self.mapper_mid_channel = nn.Sequential(nn.Linear(2 * dim, w_dim), leaky)
        half = w_dim // 2
        self.mapper_fine_channel = nn.Sequential(nn.Linear(dim, half), leaky, nn.Linear(half, w_dim), leaky)
        self.mapper_coarse_to_mid_spatial = nn.Sequential(
            nn.Linear(t[2], 2 * t[2]), leaky, nn.Linear(2 * t[2], t[1]), leaky
        )
        self.mapper_mid_to_fine_spatial = nn.Sequential(
            nn.Linear(t[1], 2 * t[1]), leaky, nn.Linear(2 * t[1], t[0]), leaky
        )
        self.cross_att_coarse = CrossAttention(w_dim, 2 * w_dim)
        self.cross_att_mid = CrossAttention(w_dim, 2 * w_dim)
        self.cross_att_fine = CrossAttention(w_dim, 2 * w_dim)

    def forward(self, images: Tensor) -> Tensor:
        fine, mid, coarse, query, last = self.swin_model(images)

        def codes(tokens: Tensor, spatial: nn.Module, channel: nn.Module) -> Tensor:
            channels_first = tokens.transpose(1, 2)
            largest = channels_first.max(dim=2).values[:, None]
            return channel(spatial(channels_first).transpose(1, 2) + largest)

        base = codes(last, self.mapper_base_spatial, self.mapper_base_channel)
        k_coarse = self.mapper_coarse_channel(coarse)
        k_mid = self.mapper_mid_channel(mid)
        k_mid = k_mid + self.mapper_coarse_to_mid_spatial(k_coarse.transpose(1, 2)).transpose(1, 2)
        k_fine = self.mapper_fine_channel(fine)
        k_fine = k_fine + self.mapper_mid_to_fine_spatial(k_mid.transpose(1, 2)).transpose(1, 2)
        w = base.repeat(1, 14, 1)
        q = codes(query, self.mapper_query_spatial_coarse, self.mapper_query_channel_coarse)
        w[:, 1:4] += self.cross_att_coarse(q, k_coarse)
        q = codes(query, self.mapper_query_spatial_mid, self.mapper_query_channel_mid)
        w[:, 4:7] += self.cross_att_mid(q, k_mid)
        q = codes(query, self.mapper_query_spatial_fine, self.mapper_query_channel_fine)
        w[:, 7:14] += self.cross_att_fine(q, k_fine)
        return w


def published_swin() -> SwinTransformer:
    """Swin V2-B as GOAE configures it."""
    return SwinTransformer(256, 128, (2, 2, 18, 2), (4, 8, 16, 32), 16, (12, 12, 12, 6))


def shapes_on_paper(build: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
    """Names with shapes of what `build` makes, without any numbers."""
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in build().state_dict().items()}


def hollow(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Tensors of these shapes, all one, that take no memory."""
    return {name: torch.ones(()).expand(shape) for name, shape in shapes.items()}
