"""Layers of the purpose-built modules that become ONNX graphs.

They take every initializer from `rules`, so that the folder can say how it follows from the generator's parameters.
Half precision ("fp16") is that of feature maps with the weights they meet; styles, demodulation, mapping networks,
everything that only has [N, C] numbers stays float32, where it costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guide_fast.export.rules import Array, Rule

EPSILON = 1e-8  # under the roots of demodulation, normalisation
SLOPE = 0.2  # of the leaky ReLU


class Weights:
    """The generator's weights with the precision they are exported in."""

    def __init__(self, tensors: Mapping[str, Array], *, half: bool) -> None:
        self.tensors = tensors
        self.half = half

    @property
    def dtype(self) -> torch.dtype:
        """Of feature maps."""
        return torch.float16 if self.half else torch.float32


class Layer(nn.Module):
    """A module whose initializers are made by rules.

    `kept` says for each: its name in the graph (that of the parameter; with the rule's name behind where the parameter
    is there already), and the rule.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, tuple[str, Rule]] = {}  # attribute -> (initializer, rule)

    def keep(
        self,
        attribute: str,
        weights: Weights,
        source: str,
        rule: str = "as_is",
        *,
        factor: float = 1.0,
        half: bool = False,
        suffix: str = "",
    ) -> None:
        """Make an initializer of this layer, in half precision where `half` says so and the export has it."""
        made = Rule(source, rule, factor, "float16" if half and weights.half else "float32")
        self.register_buffer(attribute, torch.from_numpy(made.value(weights.tensors)))
        self.kept[attribute] = (source + suffix, made)


def initializers(module: nn.Module) -> Iterator[tuple[str, str, Rule]]:
    """Attribute path in `module`, name in the graph, rule of every initializer."""
    for path, layer in module.named_modules():
        if isinstance(layer, Layer):
            for attribute, (name, rule) in layer.kept.items():
                yield f"{path}.{attribute}" if path else attribute, name, rule


class Affine(Layer):
    """Fully connected layer: [N, I] -> [N, O] with the learning-rate gains folded into weight, bias."""

    def __init__(self, weights: Weights, name: str, *, gain: float = 1.0, bias_gain: float = 1.0) -> None:
        super().__init__()
        self.keep("weight", weights, f"{name}.weight", factor=gain)
        self.keep("bias", weights, f"{name}.bias", factor=bias_gain)
        self.weight: Tensor
        self.bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """[N, O]."""
        return F.linear(x, self.weight, self.bias)


class ModulatedConv(Layer):
    """Modulate, convolve with a constant weight, demodulate: never a weight a sample.

    `up` 2 is a transposed convolution followed by the FIR [1, 3, 3, 1]. `gain` multiplies the outcome. The formulas are
    those of `kernels/modulated_conv2d`.
    """

    def __init__(self, weights: Weights, name: str, *, up: int = 1, gain: float = 1.0) -> None:
        super().__init__()
        outputs, inputs, kernel, _ = weights.tensors[f"{name}.weight"].shape
        self.up, self.padding, self.gain, self.prenormalised = up, kernel // 2, gain, weights.half
        # Half precision overflows at 65504, which sums over I * k * k products reach. Weights are divided by about the
        # root of that count (a power of two, which is exact), styles by their largest value; demodulation undoes both.
        factor = 2.0 ** -round(math.log2(math.sqrt(inputs * kernel * kernel))) if self.prenormalised else 1.0
        self.keep("weight", weights, f"{name}.weight", "swapped" if up == 2 else "as_is", factor=factor, half=True)
        source, suffix = f"{name}.weight", ".sum_of_squares"
        self.keep("power", weights, source, "sum_of_squares", factor=factor * factor, suffix=suffix)
        self.epsilon = EPSILON * factor * factor
        self.weight: Tensor
        self.power: Tensor

    def forward(
        self,
        x: Tensor,  # [N or 1, I, H, W]
        style: Tensor,  # [N, I] float32
    ) -> Tensor:
        """[N, O, up * H, up * W] in x's dtype."""
        epsilon: float | Tensor = self.epsilon
        if self.prenormalised:
            largest = style.abs().amax(1, keepdim=True).clamp_min(1e-6)  # [N, 1]
            style = style / largest
            epsilon = self.epsilon / (largest * largest)
        y = x * spread(style).to(x.dtype)
        y = transposed_with_fir(y, self.weight) if self.up == 2 else F.conv2d(y, self.weight, padding=self.padding)
        demod = (F.linear(style * style, self.power) + epsilon).rsqrt() * self.gain  # [N, O], float32
        return y * spread(demod).to(y.dtype)


def spread(values: Tensor) -> Tensor:
    """[N, C] -> [N, C, 1, 1]."""
    return values.unsqueeze(2).unsqueeze(3)


def transposed_with_fir(
    x: Tensor,  # [N, I, H, W]
    weight: Tensor,  # [I, O, 3, 3]
) -> Tensor:
    """Transposed convolution of stride 2, then [1, 3, 3, 1] / 4 along both axes: [N, O, 2H, 2W]."""
    z = F.pad(F.conv_transpose2d(x, weight, stride=2), (1, 1, 1, 1))  # [N, O, 2H + 3, 2W + 3]
    height, width = 2 * x.shape[2], 2 * x.shape[3]
    z = fir(z, 3, width)
    return fir(z, 2, height)


def fir(
    z: Tensor,  # [..., S + 3, ...] along `axis`
    axis: int,
    size: int,
) -> Tensor:
    """[1, 3, 3, 1] / 4 along one axis, S numbers, in plain additions."""
    a, b, c, d = (z.narrow(axis, start, size) for start in range(4))
    return (a + d) * 0.25 + (b + c) * 0.75


def normalised(x: Tensor) -> Tensor:
    """Rows of unit mean square."""
    return x * ((x * x).mean(dim=1, keepdim=True) + EPSILON).rsqrt()


class Truncation(Layer):
    """w [N, D], psi [N] -> ws [N, L, D]: every slot drawn toward the mean, w itself at psi = 1."""

    def __init__(self, weights: Weights, mean: str, slots: int) -> None:
        super().__init__()
        self.keep("mean", weights, mean)
        self.mean: Tensor  # [D]
        self.slots = slots

    def forward(self, w: Tensor, psi: Tensor) -> Tensor:
        """[N, L, D]."""
        drawn = self.mean + psi.unsqueeze(1) * (w - self.mean)
        return drawn.unsqueeze(1).expand(-1, self.slots, -1)
