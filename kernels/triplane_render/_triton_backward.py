"""The backward pass of triplane_render in Triton: samples again, the march reversed, the decoder back to the planes."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from guide_fast.kernels import _dispatch, _triton
from guide_fast.kernels.triplane_render._fixed_point import from_fixed, scale_of
from guide_fast.kernels.triplane_render._triton_ray import (
    LEAK,
    WIDEN,
    corner_of,
    decode,
    march,
    place_on_plane,
    points_of,
    product,
    sample_planes,
    shifted,
    sigmoid,
    softplus,
)
from guide_fast.kernels.triplane_render._triton_tiles import VALUES, planes_tile, weights_tile
from guide_fast.kernels.triplane_render.triplane_render_reference import Decoder

C, K, O = 32, 64, 32  # noqa: E741, the sizes' names everywhere: channels, hidden units, colours
WEIGHTS = K * C + K + (1 + O) * K + 1 + O
CHUNK = 16  # hidden units that are live at a time
PROGRAMS = 528  # a few for every multiprocessor; fixed, so that sums depend on the tile, not on how many there are
SUMS, LARGEST, FIXED = 1, 2, 3  # what becomes of the planes' gradient


@triton.jit
def values_kernel(
    gfeatures_ptr,  # [N * R, O]
    planes_ptr,  # [N, 3, H, W, C]
    origins_ptr,  # [N * R, 3]
    directions_ptr,
    w1_ptr,
    b1_ptr,
    w2_ptr,
    b2_ptr,
    depths_ptr,  # [N * R, COUNT]
    sigma_ptr,  # [N * R, COUNT], out
    seen_ptr,  # [N * R, COUNT], out: colour times gradient of the features
    stride_n,
    stride_plane,
    stride_y,
    stride_x,
    rays,
    samples,
    height,
    width,
    scale,
    COUNT: tl.constexpr,
    TILE: tl.constexpr,
    C: tl.constexpr,
    K: tl.constexpr,
    O: tl.constexpr,  # noqa: E741
    CHUNK: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program, TILE samples: the two numbers of each that the march takes."""
    t = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    o = tl.arange(0, O)
    dtype: tl.constexpr = planes_ptr.dtype.element_ty
    x, y, z, ray, valid = points_of(t, samples, origins_ptr, directions_ptr, depths_ptr, scale, COUNT)
    image = ray // rays * stride_n
    feature = sample_planes(planes_ptr, image, stride_plane, stride_y, stride_x, height, width, x, y, z, valid, TILE, C)
    sigma, out = decode(feature, w1_ptr, b1_ptr, w2_ptr, b2_ptr, dtype, TILE, C, K, O, CHUNK, UPCAST, PRECISION)
    colour = sigmoid(out) * (1 + 2 * WIDEN) - WIDEN
    g = tl.load(gfeatures_ptr + ray[:, None] * O + o[None, :]).to(tl.float32)
    tl.store(sigma_ptr + t, sigma, mask=valid)
    tl.store(seen_ptr + t, tl.sum(colour * g, 1), mask=valid)


@triton.jit
def march_backward_kernel(
    gfeatures_ptr,  # [N * R, O]
    gdepth_ptr,  # [N * R]
    gtotal_ptr,
    depths_ptr,  # [N * R, COUNT]
    sigma_ptr,  # [N * R, COUNT]: raw density, then its gradient
    seen_ptr,  # [N * R, COUNT]: colour times gradient, then what the gradient of the features counts for the colour
    COUNT: tl.constexpr,
    S: tl.constexpr,
    WHITE: tl.constexpr,
    O: tl.constexpr,  # noqa: E741
):
    """One program, one ray: forward for the weights, then from its end to its start."""
    index = tl.program_id(0).to(tl.int64)
    s = tl.arange(0, S)
    valid = s < COUNT
    at = index * COUNT + s
    depths = tl.load(depths_ptr + at, mask=valid, other=0.0)
    sigma = tl.load(sigma_ptr + at, mask=valid, other=0.0)
    seen = tl.load(seen_ptr + at, mask=valid, other=0.0)
    gdepth, everywhere = tl.load(gdepth_ptr + index), tl.load(gtotal_ptr + index)
    if WHITE:
        everywhere -= 2.0 * tl.sum(tl.load(gfeatures_ptr + index * O + tl.arange(0, O)).to(tl.float32), 0)

    alpha, through, length, mean = march(depths, sigma, COUNT, S)
    weight = alpha * through
    total = tl.sum(weight, 0)
    some = tl.where(total > 0, total, 1.0)
    mid = depths + length * 0.5
    along = tl.where(total > 0, gdepth / some, 0.0)
    pull = seen + shifted(seen, 1, S) + everywhere + along * (mid - tl.sum(weight * mid, 0) / some)
    terms = weight * pull
    behind = tl.cumsum(terms, 0, reverse=True) - terms
    clear = 1.0 - alpha
    toward = (clear * through * pull - clear / (clear + LEAK) * behind) * length * sigmoid(mean - 1.0)
    gsigma = (toward + tl.where(s == 0, 0.0, shifted(toward, -1, S))) * 0.5
    both = weight + tl.where(s == 0, 0.0, shifted(weight, -1, S))
    tl.store(sigma_ptr + at, gsigma, mask=valid)
    tl.store(seen_ptr + at, both * (1 + 2 * WIDEN), mask=valid)


@triton.jit
def colour_back(
    t, samples, gfeatures_ptr, planes_ptr, origins_ptr, directions_ptr, w1_ptr, b1_ptr, w2_ptr, b2_ptr, depths_ptr,
    gsigma_ptr, both_ptr, stride_n, stride_plane, stride_y, stride_x, rays, height, width, scale, back,
    COUNT: tl.constexpr, TILE: tl.constexpr, C: tl.constexpr, K: tl.constexpr, O: tl.constexpr,  # noqa: E741
    CHUNK: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The samples `t` again: their feature, then the gradients / back of the decoder's output, density and colours."""
    dtype: tl.constexpr = planes_ptr.dtype.element_ty
    o = tl.arange(0, O)
    x, y, z, ray, valid = points_of(t, samples, origins_ptr, directions_ptr, depths_ptr, scale, COUNT)
    image = ray // rays * stride_n
    feature = sample_planes(
        planes_ptr, image, stride_plane, stride_y, stride_x, height, width, x, y, z, valid, TILE, C
    ).to(dtype)
    _, out = decode(feature, w1_ptr, b1_ptr, w2_ptr, b2_ptr, dtype, TILE, C, K, O, CHUNK, UPCAST, PRECISION)
    colour = sigmoid(out)
    g = tl.load(gfeatures_ptr + ray[:, None] * O + o[None, :]).to(tl.float32)
    both = tl.load(both_ptr + t, mask=valid, other=0.0) / back
    gsigma = tl.load(gsigma_ptr + t, mask=valid, other=0.0) / back
    return feature, gsigma, both[:, None] * g * colour * (1.0 - colour)


@triton.jit
def hidden_back(
    k, feature, gsigma, gcolour, w1_ptr, b1_ptr, w2_ptr, DTYPE: tl.constexpr, C: tl.constexpr, K: tl.constexpr,
    O: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,  # noqa: E741
):  # fmt: skip
    """The hidden units `k` again, the gradients before their softplus: both [S, units]."""
    c, o = tl.arange(0, C), tl.arange(0, O)
    w1 = tl.load(w1_ptr + c[:, None] + k[None, :] * C)  # [C, units]
    before = product(feature, w1, DTYPE, UPCAST, PRECISION) + tl.load(b1_ptr + k).to(tl.float32)[None, :]
    w2 = tl.load(w2_ptr + K + o[:, None] * K + k[None, :])  # [O, units]
    ghidden = product(gcolour, w2, DTYPE, UPCAST, PRECISION)
    ghidden += gsigma[:, None] * tl.load(w2_ptr + k).to(tl.float32)[None, :]
    return softplus(before), ghidden * sigmoid(before)


@triton.jit
def planes_backward_kernel(
    gfeatures_ptr,  # [N * R, O]
    planes_ptr,  # [N, 3, H, W, C]
    origins_ptr,  # [N * R, 3]
    directions_ptr,
    w1_ptr,
    b1_ptr,
    w2_ptr,
    b2_ptr,
    depths_ptr,  # [N * R, COUNT]
    gsigma_ptr,  # [N * R, COUNT]
    both_ptr,  # [N * R, COUNT]
    near_one_ptr,  # [1], a power of two: gradients are divided by it before they are rounded to half precision
    gplanes_ptr,  # [N, 3, H, W, C] contiguous: fp32 for SUMS, int64 for FIXED
    largest_ptr,  # [programs]
    fixed_scale_ptr,  # [1]
    stride_n,
    stride_plane,
    stride_y,
    stride_x,
    rays,
    samples,
    height,
    width,
    scale,
    COUNT: tl.constexpr,
    TILE: tl.constexpr,
    PLANES: tl.constexpr,  # SUMS, LARGEST, FIXED
    SCALED: tl.constexpr,
    C: tl.constexpr,
    K: tl.constexpr,
    O: tl.constexpr,  # noqa: E741
    CHUNK: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program, TILE samples: their gradients added to the texels they came from."""
    program = tl.program_id(0).to(tl.int64)
    t = program * TILE + tl.arange(0, TILE)
    dtype: tl.constexpr = planes_ptr.dtype.element_ty
    c = tl.arange(0, C)
    back = 1.0
    if SCALED:
        back = tl.load(near_one_ptr)
    feature, gsigma, gcolour = colour_back(
        t, samples, gfeatures_ptr, planes_ptr, origins_ptr, directions_ptr, w1_ptr, b1_ptr, w2_ptr, b2_ptr, depths_ptr,
        gsigma_ptr, both_ptr, stride_n, stride_plane, stride_y, stride_x, rays, height, width, scale, back,
        COUNT, TILE, C, K, O, CHUNK, UPCAST, PRECISION,
    )  # fmt: skip
    gfeature = tl.zeros((TILE, C), tl.float32)
    for begin in range(0, K, CHUNK):
        k = begin + tl.arange(0, CHUNK)
        _, ghidden = hidden_back(k, feature, gsigma, gcolour, w1_ptr, b1_ptr, w2_ptr, dtype, C, K, O, UPCAST, PRECISION)
        w1 = tl.load(w1_ptr + k[:, None] * C + c[None, :])  # [CHUNK, C]
        gfeature += product(ghidden, w1, dtype, UPCAST, PRECISION)
    gfeature *= back * (1.0 / 3.0)
    if PLANES == 2:  # 0 * x: a NaN, an infinity stays one
        largest = tl.max(tl.max(tl.abs(gfeature), 1), 0) + tl.sum(tl.sum(gfeature * 0.0, 1), 0)
        tl.store(largest_ptr + program, largest)
        return
    fixed_scale = 1.0
    if PLANES == 3:
        fixed_scale = tl.load(fixed_scale_ptr)
    x, y, z, ray, valid = points_of(t, samples, origins_ptr, directions_ptr, depths_ptr, scale, COUNT, True)
    for plane in range(3):
        left, top, fx, fy = place_on_plane(plane, x, y, z, height, width)
        for corner in tl.static_range(4):
            column, row, part, inside = corner_of(corner, left, top, fx, fy, height, width, valid)
            texel = ((ray // rays * 3 + plane) * height + row) * width + column
            value = gfeature * part[:, None]
            if PLANES == 3:
                value = (value * fixed_scale).to(tl.int64)
            tl.atomic_add(gplanes_ptr + texel[:, None] * C + c[None, :], value, mask=inside[:, None], sem="relaxed")


@triton.jit
def weights_backward_kernel(
    gfeatures_ptr,  # [N * R, O]
    planes_ptr,  # [N, 3, H, W, C]
    origins_ptr,  # [N * R, 3]
    directions_ptr,
    w1_ptr,
    b1_ptr,
    w2_ptr,
    b2_ptr,
    depths_ptr,  # [N * R, COUNT]
    gsigma_ptr,  # [N * R, COUNT]
    both_ptr,  # [N * R, COUNT]
    near_one_ptr,  # [1]
    partials_ptr,  # [programs, weights of the decoder]
    stride_n,
    stride_plane,
    stride_y,
    stride_x,
    rays,
    samples,
    share,  # tiles of a program
    height,
    width,
    scale,
    COUNT: tl.constexpr,
    TILE: tl.constexpr,
    PART: tl.constexpr,  # hidden units of a program
    SCALED: tl.constexpr,
    C: tl.constexpr,
    K: tl.constexpr,
    O: tl.constexpr,  # noqa: E741
    CHUNK: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program, `share` tiles of neighbouring samples, PART hidden units: their sum of the decoder's gradients."""
    program = tl.program_id(0).to(tl.int64)
    dtype: tl.constexpr = planes_ptr.dtype.element_ty
    c, o = tl.arange(0, C), tl.arange(0, O)
    k = tl.program_id(1) * PART + tl.arange(0, PART)
    back = 1.0
    if SCALED:
        back = tl.load(near_one_ptr)
    gw1, gw2 = tl.zeros((PART, C), tl.float32), tl.zeros((PART, O), tl.float32)
    gb1, gw2_density, gb2 = tl.zeros((PART,), tl.float32), tl.zeros((PART,), tl.float32), tl.zeros((O,), tl.float32)
    gb2_density = 0.0
    for tile in range(share):
        t = (program * share + tile) * TILE + tl.arange(0, TILE)
        feature, gsigma, gcolour = colour_back(
            t, samples, gfeatures_ptr, planes_ptr, origins_ptr, directions_ptr, w1_ptr, b1_ptr, w2_ptr, b2_ptr,
            depths_ptr, gsigma_ptr, both_ptr, stride_n, stride_plane, stride_y, stride_x, rays, height, width, scale,
            back, COUNT, TILE, C, K, O, CHUNK, UPCAST, PRECISION,
        )  # fmt: skip
        hidden, ghidden = hidden_back(
            k, feature, gsigma, gcolour, w1_ptr, b1_ptr, w2_ptr, dtype, C, K, O, UPCAST, PRECISION
        )
        gw2 += product(tl.trans(hidden), gcolour, dtype, UPCAST, PRECISION)
        gw1 += product(tl.trans(ghidden), feature, dtype, UPCAST, PRECISION)
        gw2_density += tl.sum(gsigma[:, None] * hidden, 0)
        gb1 += tl.sum(ghidden, 0)
        gb2 += tl.sum(gcolour, 0)
        gb2_density += tl.sum(gsigma, 0)

    row_ptr = partials_ptr + program * (K * C + K + (1 + O) * K + 1 + O)
    tl.store(row_ptr + k[:, None] * C + c[None, :], gw1 * back)
    tl.store(row_ptr + K * C + k, gb1 * back)
    tl.store(row_ptr + K * C + K + k, gw2_density * back)
    tl.store(row_ptr + K * C + K + K + o[None, :] * K + k[:, None], gw2 * back)
    if tl.program_id(1) == 0:
        tl.store(row_ptr + K * C + K + (1 + O) * K, gb2_density * back)
        tl.store(row_ptr + K * C + K + (1 + O) * K + 1 + o, gb2 * back)


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
    n, _, height, width, _ = planes.shape
    rays, count = depths.shape[1:]
    scene = (planes, origins, directions, *decoder, depths)
    constants = sizes(planes)
    scaled = planes.dtype in _dispatch.HALVES
    wide = _triton.has_wide_products(planes)

    # two numbers of every sample, which the march turns into two others
    sigma, seen = (_dispatch.empty(tuple(depths.shape), depths) for _ in range(2))
    places = (*planes.stride()[:4], rays, depths.numel())
    values_kernel[(triton.cdiv(depths.numel(), VALUES.samples),)](
        gfeatures, *scene, sigma, seen, *places, height, width, 2 / box_warp,
        COUNT=count, TILE=VALUES.samples, **constants, **VALUES.launch,
    )  # fmt: skip
    march_backward_kernel[(n * rays,)](
        gfeatures, gdepth, gtotal, depths, sigma, seen,
        COUNT=count, S=max(16, triton.next_power_of_2(count)), WHITE=white_back, O=O, num_warps=1,
    )  # fmt: skip
    near_one = _near_one(gfeatures, sigma) if scaled else depths
    partials = None
    if wants_decoder:
        tile = weights_tile(scaled, wide)
        tiles = triton.cdiv(depths.numel(), tile.samples)
        programs = min(tiles, PROGRAMS)
        partials = _dispatch.empty((programs, WEIGHTS), depths)
        weights_backward_kernel[(programs, K // tile.units)](
            gfeatures, *scene, sigma, seen, near_one, partials, *places, triton.cdiv(tiles, programs), height, width,
            2 / box_warp, COUNT=count, TILE=tile.samples, PART=tile.units, SCALED=scaled, **constants, **tile.launch,
        )  # fmt: skip
    if not wants_planes:
        return None, partials

    def launch(kind: int, gplanes: Tensor, largest: Tensor, scale: Tensor) -> None:
        tile = planes_tile(scaled, wide, kind == FIXED)
        planes_backward_kernel[(triton.cdiv(depths.numel(), tile.samples),)](
            gfeatures, *scene, sigma, seen, near_one, gplanes, largest, scale, *places, height, width, 2 / box_warp,
            COUNT=count, TILE=tile.samples, PLANES=kind, SCALED=scaled, **constants, **tile.launch,
        )  # fmt: skip

    if deterministic:
        programs = triton.cdiv(depths.numel(), planes_tile(scaled, wide, False).samples)
        largest = _dispatch.empty((programs,), depths)
        launch(LARGEST, depths, largest, depths)
        scale = scale_of(largest)
        fixed = torch.zeros(planes.shape, dtype=torch.int64, device=planes.device)
        launch(FIXED, fixed, largest, scale)
        return from_fixed(fixed, scale), partials
    gplanes = _dispatch.empty(tuple(planes.shape), planes, dtype=torch.float32).zero_()
    launch(SUMS, gplanes, depths, depths)
    return gplanes, partials


def sizes(planes: Tensor) -> dict[str, object]:
    """Constants of all kernels; three products of tf32 keep the accuracy of fp32."""
    return {
        "C": C,
        "K": K,
        "O": O,
        "CHUNK": CHUNK,
        "UPCAST": _triton.interpreted(),
        "PRECISION": "tf32" if _triton.allows_tf32(planes) else "tf32x3",
    }


def _near_one(gfeatures: Tensor, gsigma: Tensor) -> Tensor:
    """[1], the power of two below the largest gradient; 1 where all are zero."""
    size = torch.maximum(gfeatures.abs().amax().float(), gsigma.abs().amax()).reshape(1)
    return torch.where(size > 0, torch.exp2(torch.floor(torch.log2(size))), 1)
