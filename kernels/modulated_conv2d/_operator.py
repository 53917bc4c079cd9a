"""The operator modulated_conv2d: schema, fake, autograd above all implementations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guide_fast.kernels import _choice, _dispatch, _extension, _triton
from guide_fast.kernels._constant import constant
from guide_fast.kernels._dispatch import Backend
from guide_fast.kernels.modulated_conv2d._layer import Inputs, Settings, check_backward, check_layer
from guide_fast.kernels.modulated_conv2d.modulated_conv2d_reference import demodulation, power

__all__ = ["BACKENDS", "Inputs", "Pieces", "Settings", "demodulate", "fastest"]


@dataclass
class Pieces:
    """What the backward kernels leave; None where nobody asked. fp32 but for gx."""

    gx: Tensor | None = None  # [N, I, H, W]
    gweight: Tensor | None = None  # [O, I, k, k], any strides
    gstyle: Tensor | None = None  # [N, I]
    gbias: Tensor | None = None  # [O]
    gnoise: Tensor | None = None  # [N, H' * W']
    gdemod: Tensor | None = None  # [N, O]; where it is, gweight and gstyle still lack what goes through it


@torch.library.custom_op("guide_fast::modulated_conv2d", mutates_args=())
def _modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    style: Tensor,
    noise: Tensor | None,
    bias: Tensor | None,
    next_style: Tensor | None,
    up: int,
    demodulate: bool,
    premodulated: bool,
    activation: str,
    slope: float,
    gain: float,
    clamp: float,
    impl: str,
) -> tuple[Tensor, Tensor]:
    settings = Settings(up, demodulate, premodulated, activation, slope, gain, _rounded(clamp, x.dtype))
    if impl in ("triton", "dense", "winograd_cpu"):
        check_layer("modulated_conv2d", x, weight, style, noise, bias, next_style, up)
    return _dispatch.backend("modulated_conv2d", impl, x, BACKENDS).forward(
        Inputs(x, weight, style, noise, bias), next_style, settings
    )


@torch.library.custom_op("guide_fast::modulated_conv2d_backward", mutates_args=())
def _modulated_conv2d_backward(
    gy: Tensor,
    y: Tensor,
    demod: Tensor,
    x: Tensor,
    weight: Tensor,
    style: Tensor,
    noise: Tensor | None,
    bias: Tensor | None,
    up: int,
    demodulate: bool,
    premodulated: bool,
    activation: str,
    slope: float,
    gain: float,
    clamp: float,
    needs: Sequence[bool],
    impl: str,
) -> list[Tensor]:
    settings = Settings(up, demodulate, premodulated, activation, slope, gain, _rounded(clamp, x.dtype))
    inputs = Inputs(x, weight, style, noise, bias)
    if impl != "cuda":
        check_layer("modulated_conv2d_backward", x, weight, style, noise, bias, None, up)
        check_backward("modulated_conv2d_backward", gy, y, demod, inputs, settings, needs)
    pieces = _dispatch.backend("modulated_conv2d_backward", impl, x, BACKENDS).backward(
        gy, y, demod, inputs, settings, needs
    )
    return _finish(pieces, inputs, demod, settings, needs)


def _rounded(clamp: float, dtype: torch.dtype) -> float:
    """As an output that it holds is rounded: the backward pass compares both."""
    return torch.tensor(clamp, dtype=dtype).item()


def _finish(pieces: Pieces, inputs: Inputs, demod: Tensor, settings: Settings, needs: Sequence[bool]) -> list[Tensor]:
    """The gradients of x, weight, style, noise, bias; [0] where nobody asked."""
    weight, style, noise = inputs.weight, inputs.style, inputs.noise
    gweight, gstyle, gnoise = pieces.gweight, pieces.gstyle, None
    if settings.demodulate and pieces.gdemod is not None:
        h = -pieces.gdemod * demod**3
        if needs[1] and gweight is not None:
            through = h.T @ style.float().square()  # [O, I]
            gweight = gweight + weight.float() * through[:, :, None, None]
        if needs[2]:
            through = style.float() * (h @ power_of(weight))
            gstyle = through if gstyle is None else gstyle + through
    elif needs[2] and gstyle is None:
        gstyle = torch.zeros_like(style)  # premodulated, not demodulated: the style does nothing
    if needs[3] and noise is not None and pieces.gnoise is not None:
        per_image = pieces.gnoise.reshape(-1, *noise.shape[1:])
        gnoise = per_image if noise.shape[0] > 1 else per_image.sum(0, keepdim=True)
    grads = (pieces.gx, gweight, gstyle, gnoise, pieces.gbias)
    likes = (inputs.x, weight, style, noise, inputs.bias)
    return [
        _laid_out(grad, like) if need else inputs.x.new_empty(0)
        for need, grad, like in zip(needs, grads, likes, strict=True)
    ]


def _laid_out(grad: Tensor | None, like: Tensor | None) -> Tensor:
    if grad is None or like is None:
        raise RuntimeError("the backward kernels left out a gradient that was asked for")
    return torch.empty_like(like).copy_(grad) if grad.dtype != like.dtype or grad.stride() != like.stride() else grad


@_modulated_conv2d.register_fake
def _(
    x: Tensor, weight: Tensor, style: Any, noise: Any, bias: Any, next_style: Any, up: int, demodulate: bool, *rest: Any
) -> tuple[Tensor, Tensor]:
    n, _, h, w = x.shape
    shape = (n, weight.shape[0], up * h, up * w)
    y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    return y, x.new_empty(shape[:2] if demodulate else (0,), dtype=torch.float32)


@_modulated_conv2d_backward.register_fake
def _(gy: Tensor, y: Tensor, demod: Tensor, *rest: Any) -> list[Tensor]:
    inputs, needs = rest[:5], rest[12]
    return [torch.empty_like(t) if need else inputs[0].new_empty(0) for need, t in zip(needs, inputs, strict=True)]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    if inputs[5] is not None:
        raise RuntimeError("next_style is fused for inference only; multiply it after the operator")
    y, demod = output
    ctx.mark_non_differentiable(demod)
    ctx.save_for_backward(y, demod, *inputs[:5])
    ctx.settings = inputs[6:]


def _autograd(ctx: Any, gy: Tensor, _: Tensor) -> tuple[Any, ...]:
    y, demod, *inputs = ctx.saved_tensors
    needs = list(ctx.needs_input_grad[:5])
    gy = gy.contiguous(memory_format=torch.channels_last)
    *settings, impl = ctx.settings
    grads = torch.ops.guide_fast.modulated_conv2d_backward(gy, y, demod, *inputs, *settings, needs, impl)
    return (*[grad if need else None for need, grad in zip(needs, grads, strict=True)], *[None] * 9)


_modulated_conv2d.register_autograd(_autograd, setup_context=_setup)


def demodulate(inputs: Inputs, settings: Settings) -> Tensor:
    """[N, O] in fp32, or [0] without demodulation."""
    if not settings.demodulate:
        return _dispatch.empty((0,), inputs.x, dtype=torch.float32)
    return demodulation(power_of(inputs.weight), inputs.style)


def power_of(weight: Tensor) -> Tensor:
    """Sum of W^2 over the taps, [O, I] in fp32; on a CPU one pass that builds no W^2."""
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or _extension.missing() is not None:
        return power(weight)
    for view, back in ((weight, False), (weight.transpose(0, 1), True)):
        if view.is_contiguous(memory_format=torch.channels_last):  # as a convolution, or one that up-samples, reads it
            found = _dispatch.empty(tuple(view.shape[:2]), weight)
            torch.ops.guide_fast.native_modulated_conv2d_scale_backward(view, view, None, None, found)
            return found.T if back else found
    found = _dispatch.empty(tuple(weight.shape[:2]), weight)
    torch.ops.guide_fast.native_modulated_conv2d_weight(weight.contiguous(), None, found)
    return found


def dense_on_cpu(x: Tensor) -> bool:
    """Whether PyTorch's convolution between native passes can run: it is what "auto" takes on a CPU."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and _extension.missing() is None


def fastest_on_cpu(x: Tensor, weight: Tensor, up: int) -> str:
    """What "auto" takes: Winograd's convolution where it was measured to win, unless GUIDE_FAST_WINOGRAD is 0.

    Not for a few pixels, over which the transformed weight does not pay, for a few channels, over which the transformed
    pixels do not, nor where tiles of 4 x 4 cover twice the image.
    """
    n, channels, h, w = x.shape
    pixels, covered = n * h * w, 16 * tiles_of(n, h, w)
    large = pixels >= 64 and min(channels, weight.shape[0]) >= 16 and covered <= 2 * pixels
    wins = up == 1 and weight.shape[2] == 3 and large and _extension.winograd()
    return "winograd_cpu" if wins else "dense_cpu"


def tiles_of(n: int, h: int, w: int) -> int:
    """Tiles of 4 x 4 outputs, which Winograd's convolution computes at once."""
    return n * -(-h // 4) * -(-w // 4)


def fastest(
    inputs: tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None], settings: tuple[Any, ...], recorded: bool
) -> str:
    """The implementation that took the least time on this GPU for this shape, forward or forward with backward.

    Not measured, but taken from what is known or the first candidate: inside torch.compile or a CUDA graph's capture.
    """
    x, weight, *_ = inputs
    names = _candidates()
    if torch.compiler.is_compiling():
        return names[0]
    n, channels, h, w = x.shape
    needs = [recorded and t is not None and t.requires_grad for t in inputs]
    wanted = "".join(letter for letter, need in zip("xwsnb", needs, strict=True) if need)
    up, demodulated = settings[:2]
    key = f"{n}x{channels}x{h}x{w} to {weight.shape[0]} k{weight.shape[2]} up{up} {_dispatch.name_of(x.dtype)}"
    key += " tf32" if _triton.allows_tf32(x) else ""
    key += " demodulated" if demodulated else ""
    key += f" gradients {wanted or 'none'}"

    def run(name: str) -> None:
        copies = [None if t is None else t.detach().requires_grad_(need) for t, need in zip(inputs, needs, strict=True)]
        with torch.set_grad_enabled(recorded):
            y = torch.ops.guide_fast.modulated_conv2d(*copies, None, *settings, name)[0]
        if recorded:
            wanting = [t for t, need in zip(copies, needs, strict=True) if need and t is not None]
            torch.autograd.grad(y, wanting, y.detach())

    candidates = {name: lambda name=name: run(name) for name in names}
    return _choice.choose("modulated_conv2d", key, candidates, x.device)


@constant
def _candidates() -> tuple[str, ...]:
    """What a GPU can run."""
    from_triton = ("triton", "dense") if _triton.missing() is None else ()
    return (*from_triton, "cuda") if _extension.missing_cuda() is None else from_triton


def _triton_forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    from guide_fast.kernels.modulated_conv2d import modulated_conv2d_triton

    return modulated_conv2d_triton.forward(*arguments)


def _triton_backward(*arguments: Any) -> Pieces:
    from guide_fast.kernels.modulated_conv2d import modulated_conv2d_triton

    return modulated_conv2d_triton.backward(*arguments)


def _dense_forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    from guide_fast.kernels.modulated_conv2d import _dense

    return _dense.forward(*arguments)


def _dense_backward(*arguments: Any) -> Pieces:
    from guide_fast.kernels.modulated_conv2d import _dense

    return _dense.backward(*arguments)


def _dense_cpu_forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    from guide_fast.kernels.modulated_conv2d import _dense_cpu

    return _dense_cpu.forward(*arguments)


def _dense_cpu_backward(*arguments: Any) -> Pieces:
    from guide_fast.kernels.modulated_conv2d import _dense_cpu

    return _dense_cpu.backward(*arguments)


def _winograd_cpu_forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    from guide_fast.kernels.modulated_conv2d import _winograd_cpu

    return _winograd_cpu.forward(*arguments)


def _winograd_cpu_backward(*arguments: Any) -> Pieces:
    from guide_fast.kernels.modulated_conv2d import _winograd_cpu

    return _winograd_cpu.backward(*arguments)


def _native_forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    from guide_fast.kernels.modulated_conv2d import _native

    return _native.forward(*arguments)


def _native_backward(*arguments: Any) -> Pieces:
    from guide_fast.kernels.modulated_conv2d import _native

    return _native.backward(*arguments)


BACKENDS = {
    "triton": Backend(_triton_forward, _triton_backward),
    "cuda": Backend(_native_forward, _native_backward),
    "cpu": Backend(_native_forward, _dense_cpu_backward),  # natively forward; backward on PyTorch's convolutions
    "dense": Backend(_dense_forward, _dense_backward),  # only "auto" names them
    "dense_cpu": Backend(_dense_cpu_forward, _dense_cpu_backward),
    "winograd_cpu": Backend(_winograd_cpu_forward, _winograd_cpu_backward),
}
