"""What a layer of modulated_conv2d is made of, checked before a kernel reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guide_fast.kernels import _dispatch
from guide_fast.kernels._errors import KernelError


@dataclass(frozen=True)
class Settings:
    """What is no tensor, as the door names it; `clamp` negative for none."""

    up: int
    demodulate: bool
    premodulated: bool
    activation: str
    slope: float
    gain: float
    clamp: float

    @property
    def lrelu(self) -> bool:
        """Whether the activation bends."""
        return self.activation == "lrelu"


@dataclass(frozen=True)
class Inputs:
    """The tensors of a layer, x in NHWC."""

    x: Tensor  # [N, I, H, W]
    weight: Tensor  # [O, I, k, k]
    style: Tensor  # [N, I]
    noise: Tensor | None  # [N or 1, 1, H', W']
    bias: Tensor | None  # [O]

    def output_shape(self, up: int) -> tuple[int, int, int, int]:
        """[N, O, H', W']."""
        n, _, h, w = self.x.shape
        return n, self.weight.shape[0], up * h, up * w

    def transposed_shape(self) -> tuple[int, int, int, int]:
        """What the transposed convolution of up = 2 gives: [N, O, 2H + k - 2, 2W + k - 2]."""
        n, _, h, w = self.x.shape
        k = self.weight.shape[2]
        return n, self.weight.shape[0], 2 * h + k - 2, 2 * w + k - 2


def check_layer(
    op: str,
    x: Tensor,
    weight: Tensor,
    style: Tensor,
    noise: Tensor | None,
    bias: Tensor | None,
    next_style: Tensor | None,
    up: int,
) -> None:
    """Raise KernelError unless the tensors of the raw operator fit together, x in NHWC, the others contiguous."""
    raw = f"torch.ops.guide_fast.{op}"
    _dispatch.check_tensor(raw, "x", x, (None, None, None, None))
    n, channels, h, w = x.shape
    _dispatch.check_tensor(raw, "weight", weight, (None, channels, None, None), like=x)
    out, _, k, k2 = weight.shape
    if k not in (1, 3) or k2 != k or up not in (1, 2):
        raise KernelError(f"weight of {raw} has shape {tuple(weight.shape)}, up={up}; it takes 1 x 1, 3 x 3, up 1, 2")
    if 0 in (*x.shape, out):
        raise KernelError(f"{raw} has x {tuple(x.shape)}, weight {tuple(weight.shape)}; give at least one of each")
    if not x.is_contiguous(memory_format=torch.channels_last):
        raise KernelError(f"x of {raw} has strides {x.stride()}; lay it out as channels_last")
    images = 1 if noise is not None and noise.ndim == 4 and noise.shape[0] == 1 else n
    operands = {
        "style": (style, (n, channels)),
        "noise": (noise, (images, 1, up * h, up * w)),
        "bias": (bias, (out,)),
        "next_style": (next_style, (n, out)),
    }
    _dispatch.check_operands(op, x, operands)


def check_backward(
    op: str, gy: Tensor, y: Tensor, demod: Tensor, inputs: Inputs, settings: Settings, needs: Sequence[bool]
) -> None:
    """Raise KernelError unless gy, y are outputs of the layer in NHWC, demod its demodulation."""
    raw, shape = f"torch.ops.guide_fast.{op}", inputs.output_shape(settings.up)
    for name, t in (("gy", gy), ("y", y)):
        _dispatch.check_tensor(raw, name, t, shape, like=inputs.x)
        if not t.is_contiguous(memory_format=torch.channels_last):
            raise KernelError(f"{name} of {raw} has strides {t.stride()}; lay it out as channels_last")
    wanted = (torch.float32, y.device, shape[:2])
    if settings.demodulate and (demod.dtype, demod.device, tuple(demod.shape)) != wanted:
        raise KernelError(f"demod of {raw} is {tuple(demod.shape)} {demod.dtype} on {demod.device}; it takes {wanted}")
    if len(needs) != 5:
        raise KernelError(f"needs of {raw} has {len(needs)} entries; it takes 5")
    for need, name, given in ((needs[3], "noise", inputs.noise), (needs[4], "bias", inputs.bias)):
        if need and given is None:
            raise KernelError(f"{name} of {raw} is None, but its gradient is asked for")
