"""LPIPS on VGG16 or AlexNet, from weights that the user brings: torchvision's features, the published linear heads.

Source: arXiv 1801.03924, version 0.1 of its weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guide_fast import kernels
from guide_fast.errors import UsageError
from guide_fast.models.perceptual import PerceptualNetwork
from guide_fast.models.state_dict import check_state

# LPIPS' scaling layer for RGB in [-1, 1]: ImageNet's mean with its deviation, as 2 m - 1 and 2 s.
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
EPSILON = 1e-10


class Layer(NamedTuple):
    """A convolution followed by ReLU."""

    at: int  # place in torchvision's `features`
    outputs: int
    kernel: int
    stride: int = 1
    pool: bool = False  # max pooling before it
    tap: bool = False  # compared after it


class Backbone(NamedTuple):
    """The convolutions of one network."""

    title: str
    pool: int  # side of the max pooling's window, stride 2
    layers: tuple[Layer, ...]


VGG16 = Backbone(
    "VGG16",
    2,
    (
        Layer(0, 64, 3),
        Layer(2, 64, 3, tap=True),
        Layer(5, 128, 3, pool=True),
        Layer(7, 128, 3, tap=True),
        Layer(10, 256, 3, pool=True),
        Layer(12, 256, 3),
        Layer(14, 256, 3, tap=True),
        Layer(17, 512, 3, pool=True),
        Layer(19, 512, 3),
        Layer(21, 512, 3, tap=True),
        Layer(24, 512, 3, pool=True),
        Layer(26, 512, 3),
        Layer(28, 512, 3, tap=True),
    ),
)
ALEXNET = Backbone(
    "AlexNet",
    3,
    (
        Layer(0, 64, 11, stride=4, tap=True),
        Layer(3, 192, 5, pool=True, tap=True),
        Layer(6, 384, 3, pool=True, tap=True),
        Layer(8, 256, 3, tap=True),
        Layer(10, 256, 3, tap=True),
    ),
)
NETWORKS = {"lpips-vgg16": VGG16, "lpips-alex": ALEXNET}


class LPIPS(PerceptualNetwork):
    """Learned perceptual distance: 0 is alike, the published heads weigh every channel of five taps.

    Build it from what `convert` returns. The published code adds `EPSILON` to the length of a feature vector, this one
    to its square (`kernels.feature_distance`): they differ where all channels are below 1e-5.
    """

    shift: Tensor  # [1, 3, 1, 1]
    scale: Tensor  # [1, 3, 1, 1]

    def __init__(self, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
        super().__init__()
        self.name = config["name"]
        self.backbone = NETWORKS[self.name]
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))
        indices = [layer.at for layer in self.backbone.layers]
        self.weights = nn.ParameterList(nn.Parameter(tensors[f"features.{i}.weight"]) for i in indices)
        self.biases = nn.ParameterList(nn.Parameter(tensors[f"features.{i}.bias"]) for i in indices)
        taps = sum(layer.tap for layer in self.backbone.layers)
        self.heads = nn.ParameterList(nn.Parameter(tensors[f"heads.{i}"]) for i in range(taps))
        self.settle()

    def features(self, images: Tensor, *, size: int | None = 256) -> list[Tensor]:
        """[N, 3, R, R] RGB in [-1, 1] -> five taps after ReLU, fine to coarse.

        `size`: side in px to which images are resampled first, antialiased; None keeps R, as the published code does.
        """
        if size is not None and images.shape[2:] != (size, size):
            images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
        x = (images - self.shift) / self.scale
        taps = []
        for layer, weight, bias in zip(self.backbone.layers, self.weights, self.biases, strict=True):
            if layer.pool:
                x = F.max_pool2d(x, self.backbone.pool, 2)
            padding = 2 if layer.stride > 1 else layer.kernel // 2
            x = F.relu(F.conv2d(x, weight, bias, layer.stride, padding))
            if layer.tap:
                taps.append(x)
        return taps

    def embed(self, images: Tensor) -> Tensor:
        """[N, 3, R, R] RGB in [-1, 1] -> [N, C]: the last tap at 256 px, averaged over space."""
        return self.features(images)[-1].mean(dim=(2, 3))

    def distance(self, features_a: Sequence[Tensor], features_b: Sequence[Tensor]) -> Tensor:
        """Two results of `features` -> LPIPS [N]; one image stands for as many as the other side has.

        Raises UsageError when the taps do not match.
        """
        shapes_a, shapes_b = ([tuple(tap.shape[1:]) for tap in features] for features in (features_a, features_b))
        if shapes_a != shapes_b or len(shapes_a) != len(self.heads):
            raise UsageError(f"features to compare have taps {shapes_a} and {shapes_b}; take both at the same size")
        if not len(features_a[0]):
            return features_a[0].sum(dim=(1, 2, 3))  # no pairs, no distances
        if len(features_a[0]) < len(features_b[0]):  # the one image stands on the right
            features_a, features_b = features_b, features_a
        return kernels.feature_distance(features_a, features_b, weights=list(self.heads), eps=EPSILON)


def convert(name: str, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Torchvision's `features.N` with LPIPS' `linN.model.1.weight` -> fp32 tensors, config.

    A whole LPIPS model that was saved has both, the features as `net.sliceS.N`. `name` is one of `NETWORKS`. Raises
    UsageError when one of the two is absent, or of the other network, IntegrityError when a tensor is missing or has
    another shape.
    """
    backbone = NETWORKS[name]
    state = {re.sub(r"^net\.slice\d\.", "features.", key): value for key, value in state.items()}
    for first, what, file in (
        ("features.0.weight", f"torchvision's {backbone.title}", "the state dict of torchvision"),
        ("lin0.model.1.weight", "LPIPS' linear heads", f"{'vgg' if backbone is VGG16 else 'alex'}.pth of LPIPS v0.1"),
    ):
        if first not in state:
            raise UsageError(f"{name} takes two files, but {what} ({first}, ...) is in neither; add {file} as well")
    kernel = state["features.0.weight"].shape[-1]
    if kernel != backbone.layers[0].kernel:
        other = next((n for n, b in NETWORKS.items() if b.layers[0].kernel == kernel), None)
        hint = f"; it belongs to {other}" if other else ""
        raise UsageError(f"the features begin with a kernel of {kernel} px, so they are no {backbone.title}{hint}")
    check_state(f"LPIPS on {backbone.title}", state, shapes(backbone))
    names = [name for name in shapes(backbone) if name.startswith("features.")]
    tensors = {key: state[key].float() for key in names}
    taps = sum(layer.tap for layer in backbone.layers)
    return tensors | {f"heads.{i}": state[f"lin{i}.model.1.weight"].float().flatten() for i in range(taps)}, {
        "name": name
    }


def shapes(backbone: Backbone) -> dict[str, tuple[int, ...]]:
    """Every tensor of the published naming that `convert` reads."""
    wanted: dict[str, tuple[int, ...]] = {}
    inputs, taps = 3, 0
    for layer in backbone.layers:
        wanted[f"features.{layer.at}.weight"] = (layer.outputs, inputs, layer.kernel, layer.kernel)
        wanted[f"features.{layer.at}.bias"] = (layer.outputs,)
        if layer.tap:
            wanted[f"lin{taps}.model.1.weight"] = (1, layer.outputs, 1, 1)
            taps += 1
        inputs = layer.outputs
    return wanted
