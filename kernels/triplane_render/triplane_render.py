"""The public door of triplane_render: checks, custom operator, fake, autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from guide_fast.kernels import _dispatch
from guide_fast.kernels._dispatch import Backend
from guide_fast.kernels._errors import ImplementationUnavailable, KernelError
from guide_fast.kernels.triplane_render._checks import (
    check_decoder,
    check_gradients,
    check_planes,
    check_positions,
    check_raw,
    check_rays,
    check_sampling,
    quantiles,
    ray_limits,
)
from guide_fast.kernels.triplane_render.triplane_render_reference import (
    Decoder,
    clip_depth,
    triplane_render_reference,
)

SIZES = {"channels": 32, "hidden units": 64, "colours": 32}  # what the kernels are written for: EG3D's decoder
MOST_SAMPLES = 256  # of one ray, coarse and fine together


def triplane_render(
    planes: Tensor,  # [N, 3, C, H, W]
    origins: Tensor,  # [N, R, 3], float32
    directions: Tensor,  # [N, R, 3], float32
    decoder: Decoder,  # w1 [K, C], b1 [K], w2 [1 + O, K], b2 [1 + O]; learning-rate gains folded in
    *,
    box_warp: float = 1.0,
    ray_start: float | Tensor = 2.25,  # or [N, R] or [N, R, 1]
    ray_end: float | Tensor = 3.3,
    depth_resolution: int = 48,
    depth_resolution_importance: int = 48,
    white_back: bool = False,
    jitter: Tensor | None = None,  # [N, R, D, 1] in [0, 1)
    u: Tensor | None = None,  # [N, R, n] or [N * R, n] in [0, 1)
    impl: str = "auto",
    deterministic: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Features [N, R, O] in [-1, 1] and planes' dtype, depth [N, R, 1], sum of weights [N, R, 1] in float32.

    `jitter` moves the coarse samples within their steps (None: the middle), `u` are the quantiles of the fine ones
    (None: evenly spaced). Gradients reach the planes, the decoder; rays, limits, jitter, u have none: requiring one
    raises. `deterministic` makes the planes' gradient the same in every run on a GPU, at twice the time; on the CPU it
    always is. Kernels take C = O = 32, K = 64, up to 256 samples a ray; "auto" falls back to the reference.
    Raises KernelError on bad input, ImplementationUnavailable when `impl` cannot run.
    Source: EG3D (arXiv 2112.07945), appendix; README.md has the formulas.
    """
    check_planes(planes)
    check_decoder(planes, decoder)
    work = torch.float64 if planes.dtype == torch.float64 else torch.float32
    check_rays(planes, origins, directions)
    check_sampling(box_warp, depth_resolution, depth_resolution_importance)
    shape = (origins.shape[0], origins.shape[1])
    near, far = ray_limits(planes, shape, ray_start, ray_end, work)
    jitter = quantiles("jitter", jitter, planes, (*shape, depth_resolution), work)
    u = quantiles("u", u, planes, (*shape, depth_resolution_importance), work)
    origins, directions = (t.to(work).contiguous() for t in (origins, directions))

    chosen = _dispatch.choose("triplane_render", impl, planes, BACKENDS)
    reason = _unsupported(planes, decoder, depth_resolution + depth_resolution_importance)
    if reason and impl not in ("auto", "reference"):
        raise ImplementationUnavailable(f"triplane_render cannot run with impl={impl!r}: {reason}; use 'auto'")
    if chosen == "reference" or reason:
        return triplane_render_reference(
            planes,
            origins,
            directions,
            decoder,
            near,
            far,
            box_warp=box_warp,
            coarse=depth_resolution,
            fine=depth_resolution_importance,
            white_back=white_back,
            jitter=jitter,
            u=u,
        )
    dtype = planes.dtype
    if _dispatch.widen_on_cpu(impl, planes):
        planes, decoder = planes.float(), tuple(t.float() for t in decoder)  # type: ignore[assignment]
    last = planes.permute(0, 1, 3, 4, 2)  # a sample reads all channels of a texel: they lie together
    features, depth, total, _ = torch.ops.guide_fast.triplane_render(
        last if last.stride(-1) == 1 else last.contiguous(),
        origins,
        directions,
        near,
        far,
        *(t.contiguous() for t in decoder),
        jitter,
        u,
        float(box_warp),
        depth_resolution,
        depth_resolution_importance,
        white_back,
        deterministic,
        chosen,
    )
    depth = clip_depth(depth[..., None], near, far, depth_resolution, jitter)
    return features.to(dtype), depth, total[..., None]


def _unsupported(planes: Tensor, decoder: Decoder, samples: int) -> str | None:
    sizes = (planes.shape[2], decoder[0].shape[0], decoder[2].shape[0] - 1)
    for (name, takes), got in zip(SIZES.items(), sizes, strict=True):
        if got != takes:
            return f"there are {got} {name}, the kernels are written for {takes}"
    if samples > MOST_SAMPLES:
        return f"a ray has {samples} samples, the kernels hold {MOST_SAMPLES}"
    return None


def _check_samples(samples: int) -> None:
    if not 2 <= samples <= MOST_SAMPLES:
        raise KernelError(
            f"a ray has {samples} samples; torch.ops.guide_fast.triplane_render takes 2 to {MOST_SAMPLES}"
        )


@torch.library.custom_op("guide_fast::triplane_render", mutates_args=())
def _triplane_render(
    planes: Tensor,  # [N, 3, H, W, C]
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    jitter: Tensor | None,
    u: Tensor | None,
    box_warp: float,
    coarse: int,
    fine: int,
    white_back: bool,
    deterministic: bool,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    decoder = (w1, b1, w2, b2)
    if impl == "triton":
        check_raw("triplane_render", planes, origins, directions, decoder)
        _check_samples(coarse + fine)
        check_sampling(box_warp, coarse, fine)
        check_positions("triplane_render", origins, near, far, jitter, u, coarse, fine)
    outputs = _outputs(planes, origins, w2, coarse + fine, _dispatch.empty)
    _dispatch.backend("triplane_render", impl, planes, BACKENDS).forward(
        planes, origins, directions, near, far, decoder, jitter, u, box_warp, coarse, fine, white_back, *outputs
    )
    return outputs


@torch.library.custom_op("guide_fast::triplane_render_backward", mutates_args=())
def _triplane_render_backward(
    gfeatures: Tensor,
    gdepth: Tensor,
    gtotal: Tensor,
    planes: Tensor,  # [N, 3, H, W, C]
    origins: Tensor,
    directions: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    depths: Tensor,
    box_warp: float,
    white_back: bool,
    deterministic: bool,
    wants_planes: bool,
    wants_decoder: bool,
    impl: str,
) -> tuple[Tensor, Tensor]:
    if impl == "triton":
        check_raw("triplane_render_backward", planes, origins, directions, (w1, b1, w2, b2))
        _check_samples(depths.shape[-1])
        check_gradients("triplane_render_backward", planes, origins, gfeatures, gdepth, gtotal, depths)
    gplanes, partials = _dispatch.backend("triplane_render_backward", impl, planes, BACKENDS).backward(
        gfeatures,
        gdepth,
        gtotal,
        planes,
        origins,
        directions,
        (w1, b1, w2, b2),
        depths,
        box_warp,
        white_back,
        deterministic,
        wants_planes,
        wants_decoder,
    )
    gplanes = planes.new_empty(0) if gplanes is None else gplanes.to(planes.dtype)
    return gplanes, planes.new_empty(0) if partials is None else partials.sum(0).to(planes.dtype)


def _outputs(
    planes: Tensor, origins: Tensor, w2: Tensor, samples: int, empty: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n, r, _ = origins.shape
    return (
        empty((n, r, w2.shape[0] - 1), planes),
        empty((n, r), origins),  # depth
        empty((n, r), origins),  # total
        empty((n, r, samples), origins),  # sorted; all that the backward pass needs of the sampling
    )


@_triplane_render.register_fake
def _(planes: Tensor, origins: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    w2, coarse, fine = rest[5], rest[10], rest[11]
    return _outputs(planes, origins, w2, coarse + fine, lambda shape, like: like.new_empty(shape))


@_triplane_render_backward.register_fake
def _(gfeatures: Tensor, gdepth: Tensor, gtotal: Tensor, planes: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    wants_planes, wants_decoder = rest[-3:-1]
    weights = sum(t.numel() for t in rest[2:6])
    return planes.new_empty(planes.shape if wants_planes else 0), planes.new_empty(weights if wants_decoder else 0)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(output[3])
    ctx.save_for_backward(*inputs[:3], *inputs[5:9], output[3])
    ctx.settings = (inputs[11], *inputs[14:])


def _autograd(ctx: Any, gfeatures: Tensor, gdepth: Tensor, gtotal: Tensor, _: Tensor) -> tuple[Any, ...]:
    saved = ctx.saved_tensors
    *settings, impl = ctx.settings
    wants_planes, wants_decoder = ctx.needs_input_grad[0], any(ctx.needs_input_grad[5:9])
    incoming = (t.contiguous() for t in (gfeatures, gdepth, gtotal))
    gplanes, gflat = torch.ops.guide_fast.triplane_render_backward(
        *incoming, *saved, *settings, wants_planes, wants_decoder, impl
    )
    decoder = saved[3:7]
    gdecoder = (
        [part.view(t.shape) for part, t in zip(gflat.split([t.numel() for t in decoder]), decoder, strict=True)]
        if wants_decoder
        else [None] * 4
    )
    return (gplanes if wants_planes else None, *[None] * 4, *gdecoder, *[None] * 8)


_triplane_render.register_autograd(_autograd, setup_context=_setup)


def _triton_forward(*arguments: Any) -> None:
    from guide_fast.kernels.triplane_render import triplane_render_triton

    triplane_render_triton.forward(*arguments)


def _triton_backward(*arguments: Any) -> tuple[Tensor | None, Tensor | None]:
    from guide_fast.kernels.triplane_render import triplane_render_triton

    return triplane_render_triton.backward(*arguments)


def _native_forward(*arguments: Any) -> None:
    from guide_fast.kernels.triplane_render import _native

    _native.forward(*arguments)


def _native_backward(*arguments: Any) -> tuple[Tensor | None, Tensor | None]:
    from guide_fast.kernels.triplane_render import _native

    return _native.backward(*arguments)


BACKENDS = {
    "triton": Backend(_triton_forward, _triton_backward),
    "cuda": Backend(_native_forward, _native_backward),
    "cpu": Backend(_native_forward, _native_backward),
}
