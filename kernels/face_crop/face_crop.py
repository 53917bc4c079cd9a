"""The public door of face_crop: checks, custom operators, fakes, autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from guide_fast.kernels import _dispatch
from guide_fast.kernels._dispatch import Backend
from guide_fast.kernels._errors import KernelError
from guide_fast.kernels.face_crop.face_crop_reference import face_crop_reference
from guide_fast.kernels.face_crop.framing import Axis, Framing, axes

MOST_PIXELS = 2**31 - 1  # of one image: the Triton kernel counts them in 32 bits


def face_crop(
    image: Tensor,  # [N, 3, H, W]
    framing: Framing,
    *,
    impl: str = "auto",
) -> Tensor:
    """The crop that a face network sees, [N, 3, size, size] in image's dtype: resampled, channels in order, normalised.

    Differentiable in `image` once. Strides other than NCHW or NHWC cost a copy. Raises KernelError on bad input,
    ImplementationUnavailable when `impl` cannot run.
    """
    _dispatch.check_tensor("face_crop", "image", image, (None, 3, None, None))
    _dispatch.check_not_empty("face_crop", "image", image)
    if image.shape[2] * image.shape[3] * 3 > MOST_PIXELS:
        raise KernelError(f"image of face_crop has {tuple(image.shape[2:])} pixels; reduce it below 2^31 / 3")
    if not isinstance(framing, Framing):
        raise KernelError(f"framing of face_crop is {type(framing).__name__}; give a guide_fast.kernels Framing")
    chosen = _dispatch.choose("face_crop", impl, image, BACKENDS)
    if _dispatch.widen_on_cpu(impl, image):
        return face_crop(image.float(), framing).to(image.dtype)
    if chosen == "reference":
        return face_crop_reference(image, framing)
    return torch.ops.guide_fast.face_crop(
        _dispatch.dense(image),
        list(framing.box),
        framing.size,
        framing.filter,
        framing.resize_first or 0,
        list(framing.order),
        list(framing.mean),
        list(framing.scale),
        chosen,
    )


def _framing(
    box: list[float],
    size: int,
    kind: str,
    resize_first: int,
    order: list[int],
    mean: list[float],
    scale: list[float],
) -> Framing:
    y0, y1, x0, x1 = box
    (r, g, b), (m0, m1, m2), (s0, s1, s2) = order, mean, scale
    return Framing((y0, y1, x0, x1), size, kind, resize_first or None, (r, g, b), (m0, m1, m2), (s0, s1, s2))


@torch.library.custom_op("guide_fast::face_crop", mutates_args=())
def _face_crop(
    image: Tensor,
    box: list[float],
    size: int,
    kind: str,
    resize_first: int,
    order: list[int],
    mean: list[float],
    scale: list[float],
    impl: str,
) -> Tensor:
    framing = _framing(box, size, kind, resize_first, order, mean, scale)
    _dispatch.check_tensor("torch.ops.guide_fast.face_crop", "image", image, (None, 3, None, None))
    _dispatch.check_operands("face_crop", image, {"image": (image, image.shape)})
    return _dispatch.backend("face_crop", impl, image, BACKENDS).forward(image, framing)


@torch.library.custom_op("guide_fast::face_crop_backward", mutates_args=())
def _face_crop_backward(
    gy: Tensor,
    height: int,
    width: int,
    box: list[float],
    size: int,
    kind: str,
    resize_first: int,
    order: list[int],
    mean: list[float],
    scale: list[float],
    impl: str,
) -> Tensor:
    framing = _framing(box, size, kind, resize_first, order, mean, scale)
    _dispatch.check_tensor("torch.ops.guide_fast.face_crop_backward", "gy", gy, (None, 3, size, size))
    _dispatch.check_operands("face_crop_backward", gy, {"gy": (gy, gy.shape)})
    return _dispatch.backend("face_crop_backward", impl, gy, BACKENDS).backward(gy, height, width, framing)


@_face_crop.register_fake
def _(
    image: Tensor,
    box: list[float],
    size: int,
    kind: str,
    resize_first: int,
    order: list[int],
    mean: list[float],
    scale: list[float],
    impl: str,
) -> Tensor:
    return image.new_empty((image.shape[0], 3, size, size))


@_face_crop_backward.register_fake
def _(
    gy: Tensor,
    height: int,
    width: int,
    box: list[float],
    size: int,
    kind: str,
    resize_first: int,
    order: list[int],
    mean: list[float],
    scale: list[float],
    impl: str,
) -> Tensor:
    return gy.new_empty((gy.shape[0], 3, height, width))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    image, *ctx.settings = inputs
    ctx.resolution = image.shape[2:]


def _autograd(ctx: Any, gy: Tensor) -> tuple[Any, ...]:
    height, width = ctx.resolution
    gx = torch.ops.guide_fast.face_crop_backward(_dispatch.dense(gy), height, width, *ctx.settings)
    return gx, *[None] * 8


_face_crop.register_autograd(_autograd, setup_context=_setup)


def _forward(resample: Any, image: Tensor, framing: Framing) -> Tensor:
    y = _dispatch.empty((len(image), 3, framing.size, framing.size), image)
    rows, columns = axes(framing, image.shape[2], image.shape[3], image.device)
    offset = [-m * s for m, s in zip(framing.mean, framing.scale, strict=True)]
    resample(image, y, rows, columns, list(framing.order), list(framing.scale), offset)
    return y


def _backward(resample: Any, gy: Tensor, height: int, width: int, framing: Framing) -> Tensor:
    """The same kernel with transposed matrices and the inverse order: no atomics."""
    gx = _dispatch.empty((len(gy), 3, height, width), gy)
    rows, columns = axes(framing, height, width, gy.device, transposed=True)
    source = [framing.order.index(c) for c in range(3)]
    resample(gy, gx, rows, columns, source, [framing.scale[c] for c in source], [0.0] * 3)
    return gx


def _triton(*arguments: Any) -> None:
    from guide_fast.kernels.face_crop import face_crop_triton

    face_crop_triton.resample(*arguments)


def _native(
    x: Tensor, y: Tensor, rows: Axis, columns: Axis, source: list[int], scale: list[float], offset: list[float]
) -> None:
    nhwc = _dispatch.is_nhwc(x)
    flat = x.permute(0, 2, 3, 1) if nhwc else x
    bands = (rows.start, rows.weights, columns.start, columns.weights)
    torch.ops.guide_fast.native_face_crop(flat, y, *bands, x.shape[2], x.shape[3], nhwc, source, scale, offset)


def _backend(resample: Any) -> Backend:
    return Backend(lambda *a: _forward(resample, *a), lambda *a: _backward(resample, *a))


BACKENDS = {"triton": _backend(_triton), "cuda": _backend(_native), "cpu": _backend(_native)}
