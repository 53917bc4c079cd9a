"""pSp, e4e: the encoders of StyleGAN2 published by pixel2style2pixel or encoder4editing.

Both are an IR-SE50 body, a feature pyramid of three levels on it, a small convolutional head for each style vector
(arXiv 2008.00951, section 3). In pSp each head gives a style vector, in e4e the first head gives all of them, each
further one what its own is different (arXiv 2102.02766, section 4); their files have the same names and shapes. Weights
come from the user, as the training scripts save them: `state_dict` with names that start with `encoder.`, beside it
`latent_avg`, `opts`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guide_fast.errors import IntegrityError, UsageError
from guide_fast.models.encoders.encoder import Encoder
from guide_fast.models.identity.iresnet import IRSE50, WIDTHS, Convolution, Residual, blocks, body_shapes, convert_body
from guide_fast.models.state_dict import check_every_name

FAMILY = "stylegan2"
SIZE, W_DIM = 256, 512
NETWORKS = {"psp-stylegan2": "GradualStyleEncoder", "e4e-stylegan2": "Encoder4Editing"}  # name of the class in `opts`
SLOTS = range(8, 19, 2)  # of a generator of 32 to 1024 px
# The first slots are read from the body's last stage, the next from the level above it, the others from the finest.
COARSE, MIDDLE = 3, 7
HALVINGS = (4, 5, 6)  # of the heads at each level: 16, 32, 64 px at 256 px of input
SLOPE = 0.01  # of the leaky ReLU
_PREFIX = "encoder."
_MOST_STYLES = 64  # looked for, so that too many are counted


class GradualStyle(Encoder):
    """[N, 3, 256, 256] -> W+ of a StyleGAN2; pSp or e4e by its name. Build it from what `convert` returns."""

    family = FAMILY
    resolution = SIZE

    def __init__(self, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
        super().__init__(tensors.get("offset"))
        self.name, self.num_ws, self.w_dim = config["name"], config["num_ws"], config["w_dim"]
        self.differences = NETWORKS[self.name] == "Encoder4Editing"
        self.stem = Convolution(tensors, "stem")
        self.stem_slope = nn.Parameter(tensors["stem.slope"])
        body = blocks(IRSE50)
        self.body = nn.ModuleList(Residual(tensors, f"body.{i}", block.stride) for i, block in enumerate(body))
        self.lateral = nn.ModuleList(Convolution(tensors, f"lateral.{i}") for i in range(2))
        self.heads = nn.ModuleList(_Head(tensors, f"heads.{i}", HALVINGS[level(i)]) for i in range(self.num_ws))
        self.settle()

    def forward(self, images: Tensor) -> Tensor:
        """As `Encoder.forward`; RGB, cropped as FFHQ is."""
        x = F.prelu(self.stem(images), self.stem_slope)
        taps = []
        ends = set(accumulate(IRSE50.units))
        for i, block in enumerate(self.body, start=1):
            x = block(x)
            if i in ends:
                taps.append(x)  # [N, 64, 128, 128], [N, 128, 64, 64], [N, 256, 32, 32], [N, 512, 16, 16]
        _, fine, middle, coarse = taps
        middle = _enlarged(coarse, middle.shape[-1]) + self.lateral[0](middle)
        fine = _enlarged(middle, fine.shape[-1]) + self.lateral[1](fine)
        levels = (coarse, middle, fine)
        codes = torch.stack([head(levels[level(i)]) for i, head in enumerate(self.heads)], dim=1)  # [N, L, D]
        if self.differences:
            codes = torch.cat((codes[:, :1], codes[:, :1] + codes[:, 1:]), dim=1)
        return codes


class _Head(nn.Module):
    """Convolutions of stride 2 down to one pixel, then a linear layer."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str, halvings: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(Convolution(tensors, f"{name}.{i}", 2) for i in range(halvings))
        self.weight = nn.Parameter(tensors[f"{name}.weight"])
        self.bias = nn.Parameter(tensors[f"{name}.bias"])

    def forward(self, x: Tensor) -> Tensor:
        for convolution in self.convolutions:
            x = F.leaky_relu(convolution(x), SLOPE)
        return F.linear(x.flatten(1), self.weight, self.bias)


def level(slot: int) -> int:
    """Of the feature pyramid, 0 being the coarsest."""
    return 0 if slot < COARSE else 1 if slot < MIDDLE else 2


def convert(
    name: str, state: Mapping[str, Tensor], settings: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A published checkpoint -> fp32 tensors with batch norms folded, config.

    `name` is one of `NETWORKS`, `settings` what `opts` said: `encoder_type` tells the two apart where it is there,
    `start_from_latent_avg` whether codes are added to a mean latent. That is `latent_avg`, or the generator's own where
    the file has none. How many slots there are is counted: published files name a wrong `stylegan_size`. Raises
    UsageError for another network, IntegrityError naming the first name or shape that is wrong.
    """
    encoder = {key.removeprefix(_PREFIX): value for key, value in state.items() if key.startswith(_PREFIX)}
    slots = max((i + 1 for i in range(_MOST_STYLES) if f"styles.{i}.linear.weight" in encoder), default=0)
    if not slots:
        first = next(iter(encoder), next(iter(state), "nothing"))[:60]
        raise UsageError(
            f"the file holds no pSp or e4e encoder (it starts with {first!r}); give a checkpoint with "
            "encoder.input_layer, encoder.body, encoder.styles, as pixel2style2pixel or encoder4editing publish it"
        )
    kind = settings.get("encoder_type", NETWORKS[name])
    if kind != NETWORKS[name]:
        fitting = [other for other, known in NETWORKS.items() if known == kind]
        way = f"add it as {fitting[0]}" if fitting else f"known are {', '.join(NETWORKS.values())}"
        raise UsageError(f"the file says that it is a {str(kind)[:60]}, not the {NETWORKS[name]} of {name}; {way}")
    if slots not in SLOTS:
        known = ", ".join(map(str, SLOTS))
        raise UsageError(f"the encoder has {slots} style vectors, a StyleGAN2 of 32 to 1024 px has one of {known}")
    stem = encoder.get("input_layer.0.weight")
    if stem is not None and stem.ndim == 4 and stem.shape[1] != 3:
        raise UsageError(f"the encoder reads images of {stem.shape[1]} channels, not photos; give one trained on RGB")
    check_every_name(f"a {kind}", encoder, shapes(slots))
    tensors = convert_body(IRSE50, encoder)
    for i in range(2):
        for part in ("weight", "bias"):
            tensors[f"lateral.{i}.{part}"] = encoder[f"latlayer{i + 1}.{part}"].float()
    for i in range(slots):
        for j in range(HALVINGS[level(i)]):
            for part in ("weight", "bias"):
                tensors[f"heads.{i}.{j}.{part}"] = encoder[f"styles.{i}.convs.{2 * j}.{part}"].float()
        # equalised: the stored weight is for inputs of unit variance
        tensors[f"heads.{i}.weight"] = encoder[f"styles.{i}.linear.weight"].float() / math.sqrt(W_DIM)
        tensors[f"heads.{i}.bias"] = encoder[f"styles.{i}.linear.bias"].float()
    offset = _offset(state, settings, slots)
    if offset is not None:
        tensors["offset"] = offset
    return tensors, {"name": name, "num_ws": slots, "w_dim": W_DIM}


def shapes(slots: int) -> dict[str, tuple[int, ...]]:
    """Every tensor of an encoder of `slots` style vectors, without the start `encoder.`."""
    wanted = body_shapes(IRSE50)
    for i in range(slots):
        for j in range(HALVINGS[level(i)]):
            wanted |= {f"styles.{i}.convs.{2 * j}.weight": (W_DIM, W_DIM, 3, 3)}
            wanted |= {f"styles.{i}.convs.{2 * j}.bias": (W_DIM,)}
        wanted |= {f"styles.{i}.linear.weight": (W_DIM, W_DIM), f"styles.{i}.linear.bias": (W_DIM,)}
    for i, channels in ((1, WIDTHS[2]), (2, WIDTHS[1])):
        wanted |= {f"latlayer{i}.weight": (W_DIM, channels, 1, 1), f"latlayer{i}.bias": (W_DIM,)}
    return wanted


def _offset(state: Mapping[str, Tensor], settings: Mapping[str, Any], slots: int) -> Tensor | None:
    """What is added to the codes [L, D]; None for the generator's mean latent."""
    if settings.get("start_from_latent_avg", True) is False:
        return torch.zeros(slots, W_DIM)
    mean = state.get("latent_avg")
    if mean is None:
        return None
    if tuple(mean.shape) not in ((W_DIM,), (1, W_DIM), (slots, W_DIM)) or not mean.is_floating_point():
        raise IntegrityError(
            f"latent_avg has shape {list(mean.shape)} where the encoder has [{slots}, {W_DIM}]; get the file again"
        )
    return mean.float().expand(slots, W_DIM).contiguous()


def _enlarged(x: Tensor, size: int) -> Tensor:
    """Corner pixels stay corner pixels."""
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=True)
