"""triplane_render by the compiled library: CPU or CUDA, whichever the planes are on."""

from __future__ import annotations

import torch
from torch import Tensor

from guide_fast.kernels import _dispatch
from guide_fast.kernels.triplane_render._fixed_point import from_fixed, scale_of
from guide_fast.kernels.triplane_render.triplane_render_reference import Decoder

RAYS_PER_PARTIAL = 32  # whose decoder gradients the CPU sums before it writes them
CUDA_BLOCKS = (
    1056  # that share the rays: a few for every multiprocessor; fixed, so that sums do not depend on the device
)


def forward(
    planes: Tensor,
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    decoder: Decoder,
    jitter: Tensor | None,
    u: Tensor | None,
    box_warp: float,
    coarse: int,
    fine: int,
    white_back: bool,
    features: Tensor,
    depth: Tensor,
    total: Tensor,
    depths: Tensor,
) -> None:
    """Fills the four outputs."""
    torch.ops.guide_fast.native_triplane_render(
        planes,
        list(planes.stride()),
        origins,
        directions,
        near,
        far,
        *decoder,
        jitter,
        u,
        features,
        depth,
        total,
        depths,
        coarse,
        fine,
        box_warp,
        white_back,
    )


def backward(
    gfeatures: Tensor,
    gdepth: Tensor,
    gtotal: Tensor,
    planes: Tensor,
    origins: Tensor,
    directions: Tensor,
    decoder: Decoder,
    depths: Tensor,
    box_warp: float,
    white_back: bool,
    deterministic: bool,
    wants_planes: bool,
    wants_decoder: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradient of planes, rows that add up to that of the decoder; None for what is not wanted."""
    rays = origins.shape[0] * origins.shape[1]
    rows = min(rays, CUDA_BLOCKS) if planes.is_cuda else -(-rays // RAYS_PER_PARTIAL)
    partials = _dispatch.empty((rows, sum(t.numel() for t in decoder)), depths) if wants_decoder else None
    gplanes = fixed = largest = scale = None

    def launch() -> None:
        torch.ops.guide_fast.native_triplane_render_backward(
            gfeatures,
            gdepth,
            gtotal,
            planes,
            list(planes.stride()),
            origins,
            directions,
            *decoder,
            depths,
            gplanes,
            fixed,
            largest,
            scale,
            partials,
            rows,
            box_warp,
            white_back,
        )

    if deterministic and planes.is_cuda and wants_planes:
        largest = _dispatch.empty((rows,), depths)
        launch()
        scale, largest = scale_of(largest), None
        fixed = torch.zeros(planes.shape, dtype=torch.int64, device=planes.device)
        launch()
        return from_fixed(fixed, scale), partials
    if wants_planes:
        gplanes = _dispatch.empty(tuple(planes.shape), planes, dtype=torch.float32).zero_()
    launch()
    return gplanes, partials
