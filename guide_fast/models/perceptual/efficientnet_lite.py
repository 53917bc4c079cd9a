"""EfficientNet-Lite0 as a perceptual network: taps at strides 2 to 32, a pooled 1280-d vector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guide_fast.errors import IntegrityError
from guide_fast.models.perceptual import PerceptualNetwork

ASSET_NAME = "efficientnet-lite0"
WEIGHTS_FILE = "efficientnet-lite0-57934424.pth"

EMBED_SIZE = 224  # px, the resolution of training
BATCH_NORM_EPSILON = 1e-3


class _Stage(NamedTuple):
    kernel: int
    stride: int
    repeats: int


# The seven stages of EfficientNet-B0 without squeeze and excitation (arXiv 1905.11946, table 1).
STAGES = (
    _Stage(3, 1, 1),
    _Stage(3, 2, 2),
    _Stage(5, 2, 2),
    _Stage(3, 2, 3),
    _Stage(5, 1, 3),
    _Stage(5, 2, 4),
    _Stage(3, 1, 1),
)
TAPS = (0, 2, 4, 10, 15)  # the last block at strides 2, 4, 8, 16, 32


class EfficientNetLite0(PerceptualNetwork):
    """EfficientNet-Lite0 trained on ImageNet: ReLU6, no squeeze and excitation, TensorFlow's SAME padding.

    Build it from what `convert` returns. Pixels enter as (RGB - 127) / 128 with RGB in [0, 255], as in TensorFlow's
    training code for the Lite family; so normalised, known photos are classified with less entropy than with the mean
    and deviation in the README of efficientnet-lite-pytorch, which belong to the weights without the suffix.
    """

    name = ASSET_NAME

    def __init__(self, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
        super().__init__()
        self.pixel_mean, self.pixel_scale = config["pixel_mean"], config["pixel_scale"]
        self.stem = _SameConv2d(tensors, "stem", stride=2)
        strides = [stage.stride if i == 0 else 1 for stage in STAGES for i in range(stage.repeats)]
        self.blocks = nn.ModuleList(_Block(tensors, f"blocks.{i}", stride) for i, stride in enumerate(strides))
        self.head = _SameConv2d(tensors, "head")
        self.settle()

    def features(self, images: Tensor, *, size: int | None = 256) -> list[Tensor]:
        """[N, 3, R, R] RGB in [-1, 1] -> block outputs at strides 2, 4, 8, 16, 32 with 16, 24, 40, 112, 320 channels.

        `size`: side in px to which images are resampled first, antialiased; None keeps R.
        """
        x = self._stem(images, size)
        taps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in TAPS:
                taps.append(x)
        return taps

    def embed(self, images: Tensor) -> Tensor:
        """[N, 3, R, R] RGB in [-1, 1] -> [N, 1280]: head activations at 224 px, averaged over space."""
        x = self._stem(images, EMBED_SIZE)
        for block in self.blocks:
            x = block(x)
        return F.relu6(self.head(x)).mean(dim=(2, 3))

    def _stem(self, images: Tensor, size: int | None) -> Tensor:
        if size is not None and images.shape[2:] != (size, size):
            images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
        pixels = images * (127.5 / self.pixel_scale) + (127.5 - self.pixel_mean) / self.pixel_scale
        return F.relu6(self.stem(pixels))


class _Block(nn.Module):
    """Inverted bottleneck: 1 x 1 expansion (where there is one), depthwise convolution, linear 1 x 1 projection."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str, stride: int) -> None:
        super().__init__()
        self.expand = _SameConv2d(tensors, f"{name}.expand") if f"{name}.expand.weight" in tensors else None
        self.depthwise = _SameConv2d(tensors, f"{name}.depthwise", stride=stride, depthwise=True)
        self.project = _SameConv2d(tensors, f"{name}.project")
        inputs = (self.expand or self.depthwise).weight.shape[1 if self.expand else 0]
        self.residual = stride == 1 and inputs == self.project.weight.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return y + x if self.residual else y


class _SameConv2d(nn.Module):
    """A convolution with TensorFlow's SAME padding, which is uneven where stride and size ask for it."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str, *, stride: int = 1, depthwise: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(tensors[f"{name}.weight"])
        self.bias = nn.Parameter(tensors[f"{name}.bias"])
        self.stride = stride
        self.groups = self.weight.shape[0] if depthwise else 1

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight.shape[-1]
        rows, columns = (max((-(-n // self.stride) - 1) * self.stride + kernel - n, 0) for n in x.shape[2:])
        if rows % 2 or columns % 2:
            x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
            rows = columns = 0
        return F.conv2d(x, self.weight, self.bias, self.stride, (rows // 2, columns // 2), 1, self.groups)


def convert(files: Mapping[str, Path]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The `.pth` state dict (key `WEIGHTS_FILE`) -> float32 tensors with batch norm folded in, config.

    The classifier is left out. Raises IntegrityError when a tensor is missing.
    """
    state = torch.load(files[WEIGHTS_FILE], map_location="cpu", weights_only=True)
    tensors: dict[str, Tensor] = {}
    try:
        _fold(tensors, "stem", state, "_conv_stem", "_bn0")
        for i in range(sum(stage.repeats for stage in STAGES)):
            block = f"_blocks.{i}"
            if i > 0:  # the first block does not expand
                _fold(tensors, f"blocks.{i}.expand", state, f"{block}._expand_conv", f"{block}._bn0")
            _fold(tensors, f"blocks.{i}.depthwise", state, f"{block}._depthwise_conv", f"{block}._bn1")
            _fold(tensors, f"blocks.{i}.project", state, f"{block}._project_conv", f"{block}._bn2")
        _fold(tensors, "head", state, "_conv_head", "_bn1")
    except KeyError as error:
        raise IntegrityError(f"{WEIGHTS_FILE} has no tensor {error}; fetch the file anew") from error
    return tensors, {"pixel_mean": 127.0, "pixel_scale": 128.0}


def _fold(tensors: dict[str, Tensor], name: str, state: Mapping[str, Tensor], convolution: str, norm: str) -> None:
    scale = state[f"{norm}.weight"].double() * torch.rsqrt(state[f"{norm}.running_var"].double() + BATCH_NORM_EPSILON)
    shift = state[f"{norm}.bias"].double() - state[f"{norm}.running_mean"].double() * scale
    tensors[f"{name}.weight"] = (state[f"{convolution}.weight"].double() * scale[:, None, None, None]).float()
    tensors[f"{name}.bias"] = shift.float()
