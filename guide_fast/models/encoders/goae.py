"""GOAE: the encoder of EG3D published with "Make Encoder Great Again in 3D GAN Inversion".

A Swin V2 body; one style vector for all slots from its last tokens; for each slot but the first a difference, which a
query from the tokens before the last stage takes from the coarse, middle or fine tokens by cross attention
(arXiv 2303.12326, section 3.2). The codes are added to the generator's mean latent. Weights come from the user, under
the published names: `swin_model`, `mapper_...`, `cross_att_...`. What that paper does next with features (AFA) is no
part of a latent, and is not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guide_fast.errors import IntegrityError, UsageError
from guide_fast.models.encoders.encoder import Encoder, resized
from guide_fast.models.encoders.swin_v2 import BUFFERS, Layout, SwinV2, expected_buffers
from guide_fast.models.framing import eg3d_framed
from guide_fast.models.state_dict import check_every_name

FAMILY = "eg3d"
NAME = "goae-eg3d"
W_DIM = 512
SLOTS = {"coarse": 3, "mid": 3, "fine": 7}  # after the first one, which has no difference
HEADS, FEEDFORWARD = 4, 1024  # of the cross attention
SLOPE = 0.01  # of the leaky ReLU
PUBLISHED = Layout()
CLOSE = 1e-4  # largest difference of a table in a file from the one computed here
_BODY = "swin_model."


class GOAE(Encoder):
    """[N, 3, 256, 256] -> W+ of an EG3D. Build it from what `convert` returns."""

    name, family = NAME, FAMILY

    def __init__(self, tensors: Mapping[str, Tensor], config: Mapping[str, Any], *, layout: Layout = PUBLISHED) -> None:
        super().__init__()
        self.resolution, self.num_ws, self.w_dim = layout.resolution, config["num_ws"], config["w_dim"]
        with torch.device("meta"):
            self.network = Network(layout, self.w_dim)
        self.network.load_state_dict(tensors, assign=True)
        self.network.swin_model.prepare()
        self.settle()

    def framed(self, images: Tensor) -> Tensor:
        """As `Encoder.framed`: the face goes where EG3D has it."""
        return resized(eg3d_framed(images), self.resolution, mode="bicubic")

    def forward(self, images: Tensor) -> Tensor:
        """As `Encoder.forward`; RGB, cropped as EG3D crops its photos."""
        return self.network(images)


class Network(nn.Module):
    """The published encoder, parameter for parameter; four stages in the body."""

    def __init__(self, layout: Layout, w_dim: int) -> None:
        super().__init__()
        tokens = [layout.side(stage) ** 2 for stage in range(4)]  # 4096, 1024, 256, 64
        fine, middle, coarse, last = (layout.channels(stage) for stage in range(4))  # 128, 256, 512, 1024
        self.swin_model = SwinV2(layout)
        self.mapper_base_spatial, self.mapper_base_channel = _two_layers(tokens[3], 1), _two_layers(last, w_dim)
        for name, slots in SLOTS.items():
            self.add_module(f"mapper_query_spatial_{name}", _two_layers(tokens[3], slots))
            self.add_module(f"mapper_query_channel_{name}", _two_layers(last, w_dim))
            self.add_module(f"cross_att_{name}", CrossAttention(w_dim, FEEDFORWARD * w_dim // W_DIM))
        self.mapper_coarse_channel = _activated(coarse, w_dim)
        self.mapper_mid_channel = _activated(middle, w_dim)
        self.mapper_fine_channel = _activated(fine, w_dim // 2, w_dim)
        self.mapper_coarse_to_mid_spatial = _activated(tokens[2], 2 * tokens[2], tokens[1])
        self.mapper_mid_to_fine_spatial = _activated(tokens[1], 2 * tokens[1], tokens[0])

    def forward(self, images: Tensor) -> Tensor:
        fine, middle, coarse, query, last = self.swin_model(images)  # [N, tokens, channels] each
        base = _pooled(last, self.mapper_base_spatial, self.mapper_base_channel)  # [N, 1, D]
        keys = {"coarse": self.mapper_coarse_channel(coarse)}  # [N, tokens, D]
        keys["mid"] = self.mapper_mid_channel(middle) + _across(self.mapper_coarse_to_mid_spatial, keys["coarse"])
        keys["fine"] = self.mapper_fine_channel(fine) + _across(self.mapper_mid_to_fine_spatial, keys["mid"])
        codes = [base]
        for name in SLOTS:
            spatial, channel, attention = (
                self.get_submodule(f"{part}_{name}")
                for part in ("mapper_query_spatial", "mapper_query_channel", "cross_att")
            )
            codes.append(base + attention(_pooled(query, spatial, channel), keys[name]))
        return torch.cat(codes, dim=1)


class CrossAttention(nn.Module):
    """y = normalised(query + attention(query, keys)), then y + perceptron(y), [N, slots, D]."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.multihead_attn = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        found, _ = self.multihead_attn(query, keys, keys, need_weights=False)
        # the published norm has no weights of its own
        y = F.layer_norm(query + found, query.shape[-1:])
        return y + self.linear2(F.relu(self.linear1(y)))


def convert(name: str, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A published state dict -> fp32 parameters under the same names, config.

    Tables that files repeat (`BUFFERS`) may be absent; where they are there, they have to be those of the layout.
    Raises UsageError for another network, IntegrityError naming the first name, shape or table that is wrong.
    """
    if f"{_BODY}patch_embed.proj.weight" not in state or not any(key.startswith("cross_att_") for key in state):
        first = next(iter(state), "nothing")[:60]
        raise UsageError(
            f"the file holds no GOAE encoder (it starts with {first!r}); give a state dict with swin_model, "
            "mapper_..., cross_att_..., as jiangyzy/GOAE publishes it (encoder_FFHQ.pt)"
        )
    with torch.device("meta"):
        wanted = {key: tuple(value.shape) for key, value in Network(PUBLISHED, W_DIM).state_dict().items()}
    tables = {key: value for key, value in state.items() if key.endswith(BUFFERS)}
    check_every_name("a GOAE encoder", {key: v for key, v in state.items() if key not in tables}, wanted)
    _check_tables(tables, PUBLISHED)
    return {key: state[key].float() for key in wanted}, {
        "name": name,
        "num_ws": 1 + sum(SLOTS.values()),
        "w_dim": W_DIM,
    }


def _check_tables(tables: Mapping[str, Tensor], layout: Layout) -> None:
    expected = {_BODY + key: value for key, value in expected_buffers(layout).items()}
    for key, table in tables.items():
        mine = expected.get(key)
        if mine is None or mine.shape != table.shape:
            has = "no such table" if mine is None else f"shape {list(mine.shape)}"
            raise IntegrityError(f"{key[:100]} has shape {list(table.shape)} where a GOAE encoder has {has}")
        if (table.double() - mine.double()).abs().max() > CLOSE:
            raise IntegrityError(
                f"{key} is another table than windows of {layout.window} trained at "
                f"{', '.join(map(str, layout.trained_windows))} have; the file is of another Swin V2"
            )


def _two_layers(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, inputs), nn.LeakyReLU(SLOPE), nn.Linear(inputs, outputs))


def _activated(*widths: int) -> nn.Sequential:
    """Linear layers through `widths`, each followed by a leaky ReLU."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers)


def _across(mapper: nn.Module, tokens: Tensor) -> Tensor:
    """`mapper` over the tokens of each channel: [N, T, D] -> [N, T', D]."""
    return mapper(tokens.transpose(1, 2)).transpose(1, 2)


def _pooled(tokens: Tensor, spatial: nn.Module, channel: nn.Module) -> Tensor:
    """[N, T, C] -> [N, slots, D]: mixed over tokens, each channel's largest value added, then mixed over channels."""
    return channel(_across(spatial, tokens) + tokens.amax(dim=1, keepdim=True))
