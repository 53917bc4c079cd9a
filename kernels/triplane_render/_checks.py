"""What triplane_render takes: one sentence for everything that it does not."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from guide_fast.kernels import _dispatch
from guide_fast.kernels._errors import KernelError

OP = "triplane_render"


def check_planes(planes: Tensor) -> None:
    """[N, 3, C, H, W] of a float dtype, not empty."""
    _dispatch.check_tensor(OP, "planes", planes, (None, 3, None, None, None))
    _dispatch.check_not_empty(OP, "planes", planes)


def check_decoder(planes: Tensor, decoder: object) -> None:
    """w1 [K, C], b1 [K], w2 [1 + O, K], b2 [1 + O] of planes' dtype, device."""
    if not isinstance(decoder, tuple | list) or len(decoder) != 4:
        said = f"{len(decoder)} entries" if isinstance(decoder, tuple | list) else type(decoder).__name__
        raise KernelError(f"decoder of {OP} is {said}; give (w1, b1, w2, b2)")
    w1, b1, w2, b2 = decoder
    _check(planes, "w1", w1, (None, planes.shape[2]))
    _check(planes, "b1", b1, (w1.shape[0],))
    _check(planes, "w2", w2, (None, w1.shape[0]))
    if w2.shape[0] < 2:
        raise KernelError(f"w2 of {OP} has {w2.shape[0]} rows; one of density, then at least one of colour")
    _check(planes, "b2", b2, (w2.shape[0],))


def check_rays(planes: Tensor, origins: Tensor, directions: Tensor) -> None:
    """Both [N, R, 3], float32 or float64, without gradient."""
    _check(planes, "origins", origins, (planes.shape[0], None, 3), position=True)
    _dispatch.check_not_empty(OP, "origins", origins)
    _check(planes, "directions", directions, tuple(origins.shape), position=True)


def check_sampling(box_warp: float, coarse: int, fine: int) -> None:
    """A box with a size, enough samples for the quadrature."""
    if not box_warp > 0:
        raise KernelError(f"box_warp={box_warp} is not positive; it is the side of the box that the planes span")
    if fine < 0:
        raise KernelError(f"depth_resolution_importance={fine} is negative; 0 is none")
    if coarse < (least := 4 if fine else 2):
        raise KernelError(f"depth_resolution={coarse} is too few; the quadrature takes at least {least} here")


def ray_limits(
    planes: Tensor, shape: tuple[int, int], start: float | Tensor, end: float | Tensor, work: torch.dtype
) -> tuple[Tensor, Tensor]:
    """ray_start, ray_end as [N, R]."""
    if not isinstance(start, Tensor) and not isinstance(end, Tensor) and not start < end:
        raise KernelError(f"ray_start={start} is not before ray_end={end}")
    return _limit(planes, "ray_start", start, shape, work), _limit(planes, "ray_end", end, shape, work)


def quantiles(
    name: str, values: Tensor | None, planes: Tensor, shape: tuple[int, int, int], work: torch.dtype
) -> Tensor | None:
    """`values` as [N, R, samples]; they may come as [N, R, samples, 1] or [N * R, samples]. None for none."""
    if values is None or shape[2] == 0:
        return None
    n, r, s = shape
    wanted = (n, r, s) if values.ndim == 3 else (n, r, s, 1) if values.ndim == 4 else (n * r, s)
    _check(planes, name, values, wanted, position=True)
    return values.to(work).reshape(shape).contiguous()


def check_raw(
    op: str,
    planes: Tensor,  # [N, 3, H, W, C]
    origins: Tensor,
    directions: Tensor,
    decoder: tuple[Tensor, Tensor, Tensor, Tensor],
) -> None:
    """What a Triton kernel reads without looking; every tensor but planes contiguous."""
    raw, (w1, b1, w2, b2) = f"torch.ops.guide_fast.{op}", decoder
    _dispatch.check_tensor(raw, "planes", planes, (None, 3, None, None, 32))
    if planes.stride(-1) != 1:
        raise KernelError(f"planes of {raw} has strides {planes.stride()}; the channels of a texel lie together")
    sizes = {"w1": (w1, (64, 32)), "b1": (b1, (64,)), "w2": (w2, (33, 64)), "b2": (b2, (33,))}
    _dispatch.check_operands(op, planes, sizes)
    _dispatch.check_tensor(raw, "origins", origins, (planes.shape[0], None, 3))
    _check_floats(op, planes, {"origins": (origins, origins.shape), "directions": (directions, origins.shape)})


def check_positions(
    op: str,
    origins: Tensor,
    near: Tensor,
    far: Tensor,
    jitter: Tensor | None,
    u: Tensor | None,
    coarse: int,
    fine: int,
) -> None:
    """Limits [N, R], jitter [N, R, coarse], u [N, R, fine] of the raw operator."""
    n, r, _ = origins.shape
    named = {"near": (near, (n, r)), "far": (far, (n, r)), "jitter": (jitter, (n, r, coarse)), "u": (u, (n, r, fine))}
    _check_floats(op, origins, named)


def check_gradients(
    op: str, planes: Tensor, origins: Tensor, gfeatures: Tensor, gdepth: Tensor, gtotal: Tensor, depths: Tensor
) -> None:
    """What comes into the backward pass of the raw operator."""
    n, r, _ = origins.shape
    _dispatch.check_operands(op, planes, {"gfeatures": (gfeatures, (n, r, 32))})
    named = {"gdepth": (gdepth, (n, r)), "gtotal": (gtotal, (n, r)), "depths": (depths, (n, r, depths.shape[-1]))}
    _check_floats(op, planes, named)


def _check_floats(op: str, planes: Tensor, named: Mapping[str, tuple[Tensor | None, tuple[int, ...]]]) -> None:
    for name, (t, shape) in named.items():
        if t is None:
            continue
        same = t.shape == shape and t.dtype == torch.float32 and t.device == planes.device
        if not same or not t.is_contiguous():
            raise KernelError(
                f"{name} of torch.ops.guide_fast.{op} is {tuple(t.shape)} {_dispatch.name_of(t.dtype)} on {t.device}; "
                f"it takes {tuple(shape)} float32 on {planes.device}, contiguous"
            )


def _limit(planes: Tensor, name: str, value: float | Tensor, shape: tuple[int, int], work: torch.dtype) -> Tensor:
    if not isinstance(value, Tensor):
        return torch.full(shape, float(value), dtype=work, device=planes.device)
    _check(planes, name, value, (*shape, 1) if value.ndim == 3 else shape, position=True)
    return value.to(work).reshape(shape).contiguous()


def _check(planes: Tensor, name: str, tensor: Tensor, shape: tuple[int | None, ...], *, position: bool = False) -> None:
    _dispatch.check_tensor(OP, name, tensor, shape)
    if tensor.device != planes.device:
        raise KernelError(f"{name} of {OP} is on {tensor.device} but planes is on {planes.device}; move it there")
    dtype = _dispatch.name_of(tensor.dtype)
    if position and tensor.dtype in _dispatch.HALVES:
        raise KernelError(f"{name} of {OP} is {dtype}, too coarse for positions; give float32")
    if position and tensor.requires_grad:
        raise KernelError(f"{name} of {OP} requires a gradient, which there is only for planes, decoder; detach it")
    if not position and tensor.dtype != planes.dtype:
        raise KernelError(f"{name} of {OP} is {dtype} but planes is {_dispatch.name_of(planes.dtype)}; convert it")
