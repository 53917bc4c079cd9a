"""triplane_render as Triton kernels: a program renders one ray, or takes a share of the rays back."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from guide_fast.kernels import _dispatch, _triton
from guide_fast.kernels.triplane_render._fixed_point import from_fixed, scale_of
from guide_fast.kernels.triplane_render._triton_ray import (
    WIDEN,
    corner_of,
    importance_depths,
    march,
    place_on_plane,
    product,
    sample_planes,
    shifted,
    sigmoid,
    softplus,
)
from guide_fast.kernels.triplane_render.triplane_render_reference import Decoder

C, K, O = 32, 64, 32  # noqa: E741, the sizes' names everywhere: channels, hidden units, colours
WEIGHTS = K * C + K + (1 + O) * K + 1 + O
PROGRAMS = 528  # of the backward pass: a few for every multiprocessor; fixed, so that sums do not depend on the device
NOTHING, SUMS, LARGEST, FIXED = range(4)  # what the backward pass makes of the planes' gradient


@triton.jit
def render_forward_kernel(
    planes_ptr,  # [N, 3, H, W, C]
    origins_ptr,  # [N * R, 3]
    directions_ptr,
    near_ptr,  # [N * R]
    far_ptr,
    w1_ptr,  # [K, C]
    b1_ptr,
    w2_ptr,  # [1 + O, K]
    b2_ptr,
    jitter_ptr,  # [N * R, COARSE]
    u_ptr,  # [N * R, FINE]
    features_ptr,  # [N * R, O]
    depth_ptr,  # [N * R]
    total_ptr,
    depths_ptr,  # [N * R, COARSE + FINE]
    stride_n,
    stride_plane,
    stride_y,
    stride_x,
    rays,
    height,
    width,
    scale,  # 2 / box_warp
    COARSE: tl.constexpr,
    FINE: tl.constexpr,
    P: tl.constexpr,  # power of two, at least COARSE, FINE
    S: tl.constexpr,  # of the union: P, or 2 P
    JITTER: tl.constexpr,
    U: tl.constexpr,
    WHITE: tl.constexpr,
    C: tl.constexpr,
    K: tl.constexpr,
    O: tl.constexpr,  # noqa: E741
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program, one ray."""
    index = tl.program_id(0).to(tl.int64)
    dtype: tl.constexpr = planes_ptr.dtype.element_ty
    image_ptr = planes_ptr + index // rays * stride_n
    ox, oy, oz = (
        tl.load(origins_ptr + index * 3),
        tl.load(origins_ptr + index * 3 + 1),
        tl.load(origins_ptr + index * 3 + 2),
    )
    dx, dy, dz = (
        tl.load(directions_ptr + index * 3),
        tl.load(directions_ptr + index * 3 + 1),
        tl.load(directions_ptr + index * 3 + 2),
    )
    near, far = tl.load(near_ptr + index), tl.load(far_ptr + index)
    c, k, o = tl.arange(0, C), tl.arange(0, K), tl.arange(0, O)
    w1 = tl.load(w1_ptr + c[:, None] + k[None, :] * C)  # [C, K]
    b1 = tl.load(b1_ptr + k).to(tl.float32)
    w2_density = tl.load(w2_ptr + k).to(tl.float32)
    b2_density = tl.load(b2_ptr).to(tl.float32)

    # coarse samples
    i = tl.arange(0, P)
    place = tl.full((P,), 0.5, tl.float32)
    if JITTER:
        place = tl.load(jitter_ptr + index * COARSE + i, mask=i < COARSE, other=0.0)
    depths = near + (i + place) * ((far - near) / (COARSE - 1))
    if FINE > 0:
        x, y, z = (ox + dx * depths) * scale, (oy + dy * depths) * scale, (oz + dz * depths) * scale
        feature = sample_planes(image_ptr, stride_plane, stride_y, stride_x, height, width, x, y, z, i < COARSE, P, C)
        hidden = softplus(product(feature, w1, dtype, UPCAST, PRECISION) + b1[None, :])
        sigma = tl.sum(hidden * w2_density[None, :], 1) + b2_density

        # fine samples where the weight is; the union in order
        alpha, through, length, mean = march(depths, sigma, COARSE, P)
        u = (i + 1.0) / (FINE + 1.0)
        if U:
            u = tl.load(u_ptr + index * FINE + i, mask=i < FINE, other=0.0)
        more = importance_depths(depths, alpha * through, u, COARSE, P)
        depths = tl.where(i < COARSE, depths, float("inf"))
        more = tl.where(i < FINE, more, float("inf"))
        depths = tl.sort(tl.reshape(tl.join(depths, more), (S,)))
    s = tl.arange(0, S)
    valid = s < COARSE + FINE
    depths = tl.where(valid, depths, 0.0)
    tl.store(depths_ptr + index * (COARSE + FINE) + s, depths, mask=valid)

    # all samples
    x, y, z = (ox + dx * depths) * scale, (oy + dy * depths) * scale, (oz + dz * depths) * scale
    feature = sample_planes(image_ptr, stride_plane, stride_y, stride_x, height, width, x, y, z, valid, S, C)
    hidden = softplus(product(feature, w1, dtype, UPCAST, PRECISION) + b1[None, :])
    sigma = tl.sum(hidden * w2_density[None, :], 1) + b2_density
    w2 = tl.load(w2_ptr + K + k[:, None] + o[None, :] * K)  # [K, O]
    b2 = tl.load(b2_ptr + 1 + o).to(tl.float32)
    colour = sigmoid(product(hidden, w2, dtype, UPCAST, PRECISION) + b2[None, :]) * (1 + 2 * WIDEN) - WIDEN

    # march
    alpha, through, length, mean = march(depths, sigma, COARSE + FINE, S)
    weight = alpha * through
    total = tl.sum(weight, 0)
    depth = tl.sum(weight * (depths + length * 0.5), 0) / total
    half = (weight + tl.where(s == 0, 0.0, shifted(weight, -1, S))) * 0.5
    features = tl.sum(half[:, None] * colour, 0)
    if WHITE:
        features += 1.0 - total
    tl.store(features_ptr + index * O + o, (features * 2.0 - 1.0).to(features_ptr.dtype.element_ty))
    tl.store(depth_ptr + index, tl.where(total == 0.0, float("inf"), depth))
    tl.store(total_ptr + index, total)


@triton.jit
def render_backward_kernel(
    gfeatures_ptr,  # [N * R, O]
    gdepth_ptr,  # [N * R]
    gtotal_ptr,
    planes_ptr,  # [N, 3, H, W, C]
    origins_ptr,  # [N * R, 3]
    directions_ptr,
    w1_ptr,
    b1_ptr,
    w2_ptr,
    b2_ptr,
    depths_ptr,  # [N * R, COUNT]
    gplanes_ptr,  # [N, 3, H, W, C] contiguous: fp32 for SUMS, int64 for FIXED
    largest_ptr,  # [programs]
    fixed_scale_ptr,  # [1]
    partials_ptr,  # [programs, weights of the decoder]
    stride_n,
    stride_plane,
    stride_y,
    stride_x,
    rays,
    total_rays,
    share,  # rays of a program
    height,
    width,
    scale,
    COUNT: tl.constexpr,
    S: tl.constexpr,
    WHITE: tl.constexpr,
    PLANES: tl.constexpr,  # NOTHING, SUMS, LARGEST, FIXED
    DECODER: tl.constexpr,
    SCALED: tl.constexpr,  # half precision: gradients are brought near 1 before they are rounded
    C: tl.constexpr,
    K: tl.constexpr,
    O: tl.constexpr,  # noqa: E741
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program, `share` neighbouring rays; samples are computed again from their depths."""
    program = tl.program_id(0).to(tl.int64)
    dtype: tl.constexpr = planes_ptr.dtype.element_ty
    c, k, o, s = tl.arange(0, C), tl.arange(0, K), tl.arange(0, O), tl.arange(0, S)
    b1 = tl.load(b1_ptr + k).to(tl.float32)
    b2 = tl.load(b2_ptr + 1 + o).to(tl.float32)
    w2_density = tl.load(w2_ptr + k).to(tl.float32)
    b2_density = tl.load(b2_ptr).to(tl.float32)
    valid = s < COUNT
    largest = 0.0
    if DECODER:
        gw1, gw2 = tl.zeros((K, C), tl.float32), tl.zeros((O, K), tl.float32)
        gb1, gw2_density, gb2 = tl.zeros((K,), tl.float32), tl.zeros((K,), tl.float32), tl.zeros((O,), tl.float32)
        gb2_density = 0.0

    for index in range(program * share, tl.minimum(program * share + share, total_rays)):
        image_ptr = planes_ptr + index // rays * stride_n
        depths = tl.load(depths_ptr + index * COUNT + s, mask=valid, other=0.0)
        ray = index * 3
        x = (tl.load(origins_ptr + ray) + tl.load(directions_ptr + ray) * depths) * scale
        y = (tl.load(origins_ptr + ray + 1) + tl.load(directions_ptr + ray + 1) * depths) * scale
        z = (tl.load(origins_ptr + ray + 2) + tl.load(directions_ptr + ray + 2) * depths) * scale
        g = tl.load(gfeatures_ptr + index * O + o).to(tl.float32)
        gdepth, gtotal = tl.load(gdepth_ptr + index), tl.load(gtotal_ptr + index)
        back = 1.0
        if SCALED:
            size = tl.maximum(tl.max(tl.abs(g), 0), tl.maximum(tl.abs(gdepth), tl.abs(gtotal)))
            back = tl.where(size > 0, tl.exp2(tl.floor(tl.log2(tl.where(size > 0, size, 1.0)))), 1.0)
            g, gdepth, gtotal = g / back, gdepth / back, gtotal / back

        # samples again
        feature = sample_planes(image_ptr, stride_plane, stride_y, stride_x, height, width, x, y, z, valid, S, C)
        feature = feature.to(dtype)
        w1 = tl.load(w1_ptr + c[:, None] + k[None, :] * C)  # [C, K]
        before = product(feature, w1, dtype, UPCAST, PRECISION) + b1[None, :]
        hidden = softplus(before)
        sigma = tl.sum(hidden * w2_density[None, :], 1) + b2_density
        w2 = tl.load(w2_ptr + K + k[:, None] + o[None, :] * K)  # [K, O]
        colour = sigmoid(product(hidden, w2, dtype, UPCAST, PRECISION) + b2[None, :])

        # march, then its reverse
        alpha, through, length, mean = march(depths, sigma, COUNT, S)
        weight = alpha * through
        total = tl.sum(weight, 0)
        mid = depths + length * 0.5
        along = tl.where(total > 0, gdepth / tl.where(total > 0, total, 1.0), 0.0)
        depth = tl.sum(weight * mid, 0) / tl.where(total > 0, total, 1.0)
        everywhere = gtotal
        if WHITE:
            everywhere -= 2.0 * tl.sum(g, 0)
        seen = tl.sum((colour * (1 + 2 * WIDEN) - WIDEN) * g[None, :], 1)
        pull = seen + shifted(seen, 1, S) + everywhere + along * (mid - depth)
        terms = weight * pull
        behind = tl.cumsum(terms, 0, reverse=True) - terms
        clear = 1.0 - alpha
        toward = (clear * through * pull - clear / (clear + 1e-10) * behind) * length * sigmoid(mean - 1.0)
        gsigma = (toward + tl.where(s == 0, 0.0, shifted(toward, -1, S))) * 0.5
        both = weight + tl.where(s == 0, 0.0, shifted(weight, -1, S))
        gcolour = (both * (1 + 2 * WIDEN))[:, None] * g[None, :] * colour * (1.0 - colour)

        # decoder, from its output to its input
        if DECODER:
            gw2 += product(tl.trans(gcolour), hidden, dtype, UPCAST, PRECISION) * back
            gw2_density += tl.sum(gsigma[:, None] * hidden, 0) * back
            gb2 += tl.sum(gcolour, 0) * back
            gb2_density += tl.sum(gsigma, 0) * back
        w2_rows = tl.load(w2_ptr + K + o[:, None] * K + k[None, :])  # [O, K]
        ghidden = product(gcolour, w2_rows, dtype, UPCAST, PRECISION) + gsigma[:, None] * w2_density[None, :]
        ghidden *= sigmoid(before)
        if DECODER:
            gw1 += product(tl.trans(ghidden), feature, dtype, UPCAST, PRECISION) * back
            gb1 += tl.sum(ghidden, 0) * back
        if PLANES > 0:
            w1_rows = tl.load(w1_ptr + k[:, None] * C + c[None, :])  # [K, C]
            gfeature = product(ghidden, w1_rows, dtype, UPCAST, PRECISION) * (back * (1.0 / 3.0))
            if PLANES == 2:  # 0 * x: a NaN, an infinity stays one
                largest = tl.maximum(largest, tl.max(tl.max(tl.abs(gfeature), 1), 0)) + tl.sum(
                    tl.sum(gfeature * 0.0, 1), 0
                )
            else:
                fixed_scale = 1.0
                if PLANES == 3:
                    fixed_scale = tl.load(fixed_scale_ptr)
                for plane in tl.static_range(3):
                    left, top, fx, fy = place_on_plane(plane, x, y, z, height, width)
                    to_ptr = gplanes_ptr + (index // rays * 3 + plane) * height * width * C
                    for corner in tl.static_range(4):
                        column, row, part, inside = corner_of(corner, left, top, fx, fy, height, width, valid)
                        texel = (row.to(tl.int64) * width + column) * C
                        value = gfeature * part[:, None]
                        if PLANES == 3:
                            value = (value * fixed_scale).to(tl.int64)
                        tl.atomic_add(to_ptr + texel[:, None] + c[None, :], value, mask=inside[:, None], sem="relaxed")

    if PLANES == 2:
        tl.store(largest_ptr + program, largest)
    if DECODER:
        row_ptr = partials_ptr + program * (K * C + K + (1 + O) * K + 1 + O)
        tl.store(row_ptr + k[:, None] * C + c[None, :], gw1)
        tl.store(row_ptr + K * C + k, gb1)
        tl.store(row_ptr + K * C + K + k, gw2_density)
        tl.store(row_ptr + K * C + K + K + o[:, None] * K + k[None, :], gw2)
        tl.store(row_ptr + K * C + K + (1 + O) * K, gb2_density)
        tl.store(row_ptr + K * C + K + (1 + O) * K + 1 + o, gb2)


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
    n, _, height, width, _ = planes.shape
    rays = origins.shape[1]
    block = max(16, triton.next_power_of_2(max(coarse, fine)))
    samples = 2 * block if fine else block
    render_forward_kernel[(n * rays,)](
        planes,
        origins,
        directions,
        near,
        far,
        *decoder,
        origins if jitter is None else jitter,
        origins if u is None else u,
        features,
        depth,
        total,
        depths,
        *planes.stride()[:4],
        rays,
        height,
        width,
        2 / box_warp,
        COARSE=coarse,
        FINE=fine,
        P=block,
        S=samples,
        JITTER=jitter is not None,
        U=u is not None,
        WHITE=white_back,
        **_sizes(planes),
        num_warps=_warps(samples),
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
    n, _, height, width, _ = planes.shape
    rays, count = depths.shape[1:]
    programs = min(n * rays, PROGRAMS)
    samples = max(16, triton.next_power_of_2(count))
    partials = _dispatch.empty((programs, WEIGHTS), depths) if wants_decoder else None

    def launch(
        kind: int, gplanes: Tensor | None, largest: Tensor | None, scale: Tensor | None, decoder_too: bool
    ) -> None:
        render_backward_kernel[(programs,)](
            gfeatures,
            gdepth,
            gtotal,
            planes,
            origins,
            directions,
            *decoder,
            depths,
            *(depths if t is None else t for t in (gplanes, largest, scale, partials)),
            *planes.stride()[:4],
            rays,
            n * rays,
            triton.cdiv(n * rays, programs),
            height,
            width,
            2 / box_warp,
            COUNT=count,
            S=samples,
            WHITE=white_back,
            PLANES=kind,
            DECODER=decoder_too,
            SCALED=planes.dtype in _dispatch.HALVES,
            **_sizes(planes),
            num_warps=2 * _warps(samples),
        )

    if wants_planes and deterministic:
        largest = _dispatch.empty((programs,), depths)
        launch(LARGEST, None, largest, None, False)
        scale = scale_of(largest)
        fixed = torch.zeros(planes.shape, dtype=torch.int64, device=planes.device)
        launch(FIXED, fixed, None, scale, wants_decoder)
        return from_fixed(fixed, scale), partials
    gplanes = _dispatch.empty(tuple(planes.shape), planes, dtype=torch.float32).zero_() if wants_planes else None
    launch(SUMS if wants_planes else NOTHING, gplanes, None, None, wants_decoder)
    return gplanes, partials


def _warps(samples: int) -> int:
    return 4 if samples <= 128 else 8


def _sizes(planes: Tensor) -> dict[str, object]:
    precision = "tf32" if _triton.allows_tf32(planes) else "tf32x3"
    return {"C": C, "K": K, "O": O, "UPCAST": _triton.interpreted(), "PRECISION": precision}


# name -> (kernel, signature of pointers by dtype, constexprs, options): what bench/compile_report.py compiles
_EG3D = {"C": C, "K": K, "O": O, "WHITE": False, "UPCAST": False, "PRECISION": "tf32x3"}
_DECODER = dict.fromkeys(("w1_ptr", "b1_ptr", "w2_ptr", "b2_ptr"), "*{T}")
_STRIDES = dict.fromkeys(("stride_n", "stride_plane", "stride_y", "stride_x"), "i64")
_SIZES = {"height": "i32", "width": "i32", "scale": "fp32"}
_BACKWARD = (
    {"gfeatures_ptr": "*{T}", "gdepth_ptr": "*fp32", "gtotal_ptr": "*fp32"}
    | {"planes_ptr": "*{T}", "origins_ptr": "*fp32", "directions_ptr": "*fp32"}
    | _DECODER
    | {"depths_ptr": "*fp32", "gplanes_ptr": "*fp32", "largest_ptr": "*fp32", "fixed_scale_ptr": "*fp32"}
    | {"partials_ptr": "*fp32"}
    | _STRIDES
    | {"rays": "i32", "total_rays": "i32", "share": "i32"}
    | _SIZES
)
_SETTINGS = {"COUNT": 96, "S": 128, "SCALED": True} | _EG3D
COMPILE = {
    "forward": (
        render_forward_kernel,
        {"planes_ptr": "*{T}"}
        | dict.fromkeys(("origins_ptr", "directions_ptr", "near_ptr", "far_ptr"), "*fp32")
        | _DECODER
        | {"jitter_ptr": "*fp32", "u_ptr": "*fp32", "features_ptr": "*{T}"}
        | dict.fromkeys(("depth_ptr", "total_ptr", "depths_ptr"), "*fp32")
        | _STRIDES
        | {"rays": "i32"}
        | _SIZES,
        {"COARSE": 48, "FINE": 48, "P": 64, "S": 128, "JITTER": True, "U": True} | _EG3D,
        {"num_warps": 4},
    ),
    "backward": (
        render_backward_kernel,
        _BACKWARD,
        {"PLANES": SUMS, "DECODER": True} | _SETTINGS,
        {"num_warps": 8},
    ),
    "backward_frozen_decoder": (
        render_backward_kernel,
        _BACKWARD,
        {"PLANES": SUMS, "DECODER": False} | _SETTINGS,
        {"num_warps": 8},
    ),
    "backward_fixed_point": (
        render_backward_kernel,
        _BACKWARD | {"gplanes_ptr": "*i64"},
        {"PLANES": FIXED, "DECODER": False} | _SETTINGS,
        {"num_warps": 8},
    ),
}
