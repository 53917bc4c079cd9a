"""Inception-v3 as the Frechet inception distance uses it, from weights that the user brings.

Key naming: pytorch-fid's `pt_inception-2015-12-05-6726825d.pth`, converted there from TensorFlow's graph of 2015. It
differs from torchvision's Inception in its pooling branches. Architecture: arXiv 1512.00567.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guide_fast.errors import UsageError
from guide_fast.models.perceptual import PerceptualNetwork
from guide_fast.models.state_dict import batch_norm_shapes, check_state, folded

NAME = "inception-v3-fid"
SIZE = 299  # px
DIMENSION = 2048
EPSILON = 1e-3  # of every batch norm


class Layer(NamedTuple):
    """A convolution with batch norm, then ReLU."""

    name: str  # below its block
    outputs: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


Steps = tuple[Layer | tuple[Layer, Layer], ...]  # one after the other; a pair reads the same, side by side


class Mixed(NamedTuple):
    """A block of parallel paths, their outputs concatenated; the last path reads a pooled input."""

    name: str
    paths: tuple[Steps, ...]
    pool: str  # "average" (of the pixels there are) or "max" at stride 1, "halve" (max) at stride 2
    pooled: Steps


ROW, COLUMN = (1, 7), (7, 1)


def _a(name: str, pool: int) -> Mixed:
    double = (Layer("branch3x3dbl_1", 64), Layer("branch3x3dbl_2", 96, (3, 3)), Layer("branch3x3dbl_3", 96, (3, 3)))
    five = (Layer("branch5x5_1", 48), Layer("branch5x5_2", 64, (5, 5)))
    return Mixed(name, ((Layer("branch1x1", 64),), five, double), "average", (Layer("branch_pool", pool),))


def _b(name: str) -> Mixed:
    double = (Layer("branch3x3dbl_1", 64), Layer("branch3x3dbl_2", 96, (3, 3)), Layer("branch3x3dbl_3", 96, (3, 3), 2))
    return Mixed(name, ((Layer("branch3x3", 384, (3, 3), 2),), double), "halve", ())


def _c(name: str, width: int) -> Mixed:
    seven = (Layer("branch7x7_1", width), Layer("branch7x7_2", width, ROW), Layer("branch7x7_3", 192, COLUMN))
    double = (
        Layer("branch7x7dbl_1", width),
        Layer("branch7x7dbl_2", width, COLUMN),
        Layer("branch7x7dbl_3", width, ROW),
        Layer("branch7x7dbl_4", width, COLUMN),
        Layer("branch7x7dbl_5", 192, ROW),
    )
    return Mixed(name, ((Layer("branch1x1", 192),), seven, double), "average", (Layer("branch_pool", 192),))


def _d(name: str) -> Mixed:
    three = (Layer("branch3x3_1", 192), Layer("branch3x3_2", 320, (3, 3), 2))
    seven = (
        Layer("branch7x7x3_1", 192),
        Layer("branch7x7x3_2", 192, ROW),
        Layer("branch7x7x3_3", 192, COLUMN),
        Layer("branch7x7x3_4", 192, (3, 3), 2),
    )
    return Mixed(name, (three, seven), "halve", ())


def _e(name: str, pool: str) -> Mixed:
    def split(stem: str) -> tuple[Layer, Layer]:
        return Layer(f"{stem}a", 384, (1, 3)), Layer(f"{stem}b", 384, (3, 1))

    three: Steps = (Layer("branch3x3_1", 384), split("branch3x3_2"))
    double: Steps = (Layer("branch3x3dbl_1", 448), Layer("branch3x3dbl_2", 384, (3, 3)), split("branch3x3dbl_3"))
    return Mixed(name, ((Layer("branch1x1", 320),), three, double), pool, (Layer("branch_pool", 192),))


STEM = (
    (Layer("Conv2d_1a_3x3", 32, (3, 3), 2), 0),  # padding
    (Layer("Conv2d_2a_3x3", 32, (3, 3)), 0),
    (Layer("Conv2d_2b_3x3", 64, (3, 3)), 1),
    (Layer("Conv2d_3b_1x1", 80), 0),
    (Layer("Conv2d_4a_3x3", 192, (3, 3)), 0),
)
POOLED_AFTER = (2, 4)  # layers of the stem with max pooling behind them
BODY = (
    *(_a("Mixed_5b", 32), _a("Mixed_5c", 64), _a("Mixed_5d", 64), _b("Mixed_6a")),
    *(_c("Mixed_6b", 128), _c("Mixed_6c", 160), _c("Mixed_6d", 160), _c("Mixed_6e", 192)),
    *(_d("Mixed_7a"), _e("Mixed_7b", "average"), _e("Mixed_7c", "max")),
)
TAPPED = ("Mixed_6e", "Mixed_7c")


class InceptionV3(PerceptualNetwork):
    """FID's Inception-v3: `embed` gives the 2048 numbers of pool3, `features` the four taps of pytorch-fid.

    Build it from what `convert` returns.
    """

    name = NAME

    def __init__(self, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
        super().__init__()
        layers = {name: _Convolution(tensors, name, stride, padding) for name, _, stride, padding in _layers()}
        self.layers = nn.ModuleDict({name.replace(".", "-"): layer for name, layer in layers.items()})
        self.settle()

    def features(self, images: Tensor, *, size: int | None = SIZE) -> list[Tensor]:
        """[N, 3, R, R] RGB in [-1, 1] -> taps with 64, 192, 768, 2048 channels.

        `size`: side in px to which images are resampled first, bilinear without antialiasing, as FID does; None keeps
        R, which has to be 75 or more.
        """
        if size is not None and images.shape[2:] != (size, size):
            images = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
        if min(images.shape[2:]) < 75:
            raise UsageError(f"Inception-v3 takes images of 75 px or more, not {list(images.shape[2:])}; give size=299")
        x, taps = images, []
        for i, (layer, _) in enumerate(STEM):
            x = self._layer("", layer, x)
            if i in POOLED_AFTER:
                x = F.max_pool2d(x, 3, 2)
                taps.append(x)
        for block in BODY:
            x = self._mixed(block, x)
            if block.name in TAPPED:
                taps.append(x)
        return taps

    def embed(self, images: Tensor) -> Tensor:
        """[N, 3, R, R] RGB in [-1, 1] -> [N, 2048]: pool3, at 299 px."""
        return self.features(images)[-1].mean(dim=(2, 3))

    def _mixed(self, block: Mixed, x: Tensor) -> Tensor:
        out = [self._path(block.name, path, x) for path in block.paths]
        if block.pool == "average":
            pooled = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        elif block.pool == "max":
            pooled = F.max_pool2d(x, 3, 1, 1)
        else:
            pooled = F.max_pool2d(x, 3, 2)
        return torch.cat([*out, self._path(block.name, block.pooled, pooled)], dim=1)

    def _path(self, block: str, path: Steps, x: Tensor) -> Tensor:
        for step in path:
            if isinstance(step, Layer):
                x = self._layer(f"{block}.", step, x)
            else:
                x = torch.cat([self._layer(f"{block}.", layer, x) for layer in step], dim=1)
        return x

    def _layer(self, prefix: str, layer: Layer, x: Tensor) -> Tensor:
        return F.relu(self.layers[f"{prefix}{layer.name}".replace(".", "-")](x))


class _Convolution(nn.Module):
    def __init__(self, tensors: Mapping[str, Tensor], name: str, stride: int, padding: tuple[int, int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(tensors[f"{name}.weight"])
        self.bias = nn.Parameter(tensors[f"{name}.bias"])
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)


def convert(name: str, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """pytorch-fid's state dict -> fp32 tensors with batch norm folded in, config.

    The classifier is left out. Raises UsageError when it is another network, IntegrityError when a tensor is missing
    or has another shape.
    """
    if "Conv2d_1a_3x3.conv.weight" not in state:
        first = next(iter(state), "nothing")[:60]
        raise UsageError(
            f"the file holds no Inception-v3 (it starts with {first!r}); give pytorch-fid's "
            "pt_inception-2015-12-05-6726825d.pth"
        )
    if "AuxLogits.conv0.conv.weight" in state:
        raise UsageError(
            "the file holds torchvision's Inception-v3, which is not the one of FID; give pytorch-fid's "
            "pt_inception-2015-12-05-6726825d.pth"
        )
    check_state("FID's Inception-v3", state, shapes())
    tensors: dict[str, Tensor] = {}
    for layer, *_ in _layers():
        weight, bias = folded(state, f"{layer}.conv", f"{layer}.bn", EPSILON)
        tensors[f"{layer}.weight"], tensors[f"{layer}.bias"] = weight, bias
    return tensors, {"name": name}


def shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of the published naming that `convert` reads."""
    wanted: dict[str, tuple[int, ...]] = {}
    for layer, shape, _, _ in _layers():
        wanted[f"{layer}.conv.weight"] = shape
        wanted |= batch_norm_shapes(f"{layer}.bn", shape[0])
    return wanted


def _layers() -> Iterator[tuple[str, tuple[int, ...], int, tuple[int, int]]]:
    """Full name, weight shape, stride, padding of every convolution."""
    width = 3
    for layer, pad in STEM:
        yield layer.name, (layer.outputs, width, *layer.kernel), layer.stride, (pad, pad)
        width = layer.outputs
    for block in BODY:
        total = 0
        for path in (*block.paths, block.pooled):
            inputs = width
            for step in path:
                side_by_side = (step,) if isinstance(step, Layer) else step
                for layer in side_by_side:
                    # a layer that halves the side has no padding
                    padding = (0, 0) if layer.stride > 1 else (layer.kernel[0] // 2, layer.kernel[1] // 2)
                    yield f"{block.name}.{layer.name}", (layer.outputs, inputs, *layer.kernel), layer.stride, padding
                inputs = sum(layer.outputs for layer in side_by_side)
            total += inputs
        width = total
