"""triplane_render as Triton kernels: the forward pass, one ray a program."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from guide_fast.kernels import _triton
from guide_fast.kernels.triplane_render import _triton_backward
from guide_fast.kernels.triplane_render._triton_backward import (
    CHUNK,
    FIXED,
    LARGEST,
    SUMS,
    C,
    K,
    O,
    backward,
    sizes,
)
from guide_fast.kernels.triplane_render._triton_ray import (
    WIDEN,
    decode,
    density,
    importance_depths,
    march,
    sample_planes,
    shifted,
    sigmoid,
)
from guide_fast.kernels.triplane_render._triton_tiles import VALUES, Tile, planes_tile, weights_tile
from guide_fast.kernels.triplane_render.triplane_render_reference import Decoder

__all__ = ["COMPILE", "backward", "forward"]


def _warps(samples: int) -> int:
    return 8 if samples >= 128 else 4


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
    CHUNK: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program, one ray."""
    index = tl.program_id(0).to(tl.int64)
    dtype: tl.constexpr = planes_ptr.dtype.element_ty
    image = index // rays * stride_n
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
    o = tl.arange(0, O)

    # coarse samples
    i = tl.arange(0, P)
    place = tl.full((P,), 0.5, tl.float32)
    if JITTER:
        place = tl.load(jitter_ptr + index * COARSE + i, mask=i < COARSE, other=0.0)
    step = (far - near) / (COARSE - 1)
    depths = tl.where(
        i < COARSE // 2, tl.fma(i.to(tl.float32), step, near), tl.fma((i + 1 - COARSE).to(tl.float32), step, far)
    )
    depths += place * step
    if FINE > 0:
        x, y, z = (ox + dx * depths) * scale, (oy + dy * depths) * scale, (oz + dz * depths) * scale
        feature = sample_planes(
            planes_ptr, image, stride_plane, stride_y, stride_x, height, width, x, y, z, i < COARSE, P, C
        )
        sigma = density(feature, w1_ptr, b1_ptr, w2_ptr, b2_ptr, dtype, P, C, K, CHUNK, UPCAST, PRECISION)

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
    feature = sample_planes(planes_ptr, image, stride_plane, stride_y, stride_x, height, width, x, y, z, valid, S, C)
    sigma, out = decode(feature, w1_ptr, b1_ptr, w2_ptr, b2_ptr, dtype, S, C, K, O, CHUNK, UPCAST, PRECISION)
    colour = sigmoid(out) * (1 + 2 * WIDEN) - WIDEN

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
        **sizes(planes),
        num_warps=_warps(samples),
        num_stages=1,
    )


# name -> (kernel, signature of pointers by dtype, constexprs, options): what bench/compile_report.py compiles
_SIZES = {"C": C, "K": K, "O": O, "CHUNK": CHUNK, "UPCAST": False, "PRECISION": "tf32x3"}
_SCENE = (
    {"planes_ptr": "*{T}", "origins_ptr": "*fp32", "directions_ptr": "*fp32"}
    | dict.fromkeys(("w1_ptr", "b1_ptr", "w2_ptr", "b2_ptr", "gfeatures_ptr", "features_ptr"), "*{T}")
    | dict.fromkeys(("near_ptr", "far_ptr", "jitter_ptr", "u_ptr", "depth_ptr", "total_ptr", "depths_ptr"), "*fp32")
    | dict.fromkeys(("gdepth_ptr", "gtotal_ptr", "sigma_ptr", "seen_ptr", "gsigma_ptr", "both_ptr"), "*fp32")
    | dict.fromkeys(("near_one_ptr", "gplanes_ptr", "largest_ptr", "fixed_scale_ptr", "partials_ptr"), "*fp32")
    | dict.fromkeys(("stride_n", "stride_plane", "stride_y", "stride_x", "samples"), "i64")
    | {"rays": "i32", "share": "i32", "height": "i32", "width": "i32", "scale": "fp32"}
)


def _compiled(
    kernel: Any, options: dict[str, Any], constexprs: dict[str, object], **types: str
) -> tuple[Any, dict[str, str | None], dict[str, object], dict[str, Any]]:
    """An entry of COMPILE: the arguments' types that are not constants."""
    names = [name for name in kernel.arg_names if name not in constexprs]
    return kernel, {name: types.get(name, _SCENE.get(name)) for name in names}, constexprs, options


def _gradients(suffix: str, half: bool, archs: tuple[int, ...]) -> dict[str, tuple[Any, ...]]:
    """The kernels whose tiles depend on the type of the planes, on the device."""
    wide = archs == _triton.WIDE
    where = {"archs": archs, "dtypes": ("fp16", "bf16") if half else ("fp32",)}

    def entry(kernel: Any, tile: Tile, **more: object) -> tuple[Any, ...]:
        constants = {"COUNT": 96, "TILE": tile.samples, "SCALED": half} | _SIZES | more
        fixed = {"gplanes_ptr": "*i64"} if more.get("PLANES") == FIXED else {}
        return _compiled(kernel, tile.launch | where, constants, **fixed)

    kinds = {"": SUMS, "_largest_term": LARGEST, "_fixed_point": FIXED}
    weights = weights_tile(half, wide)
    return {
        f"planes_backward{name}{suffix}": entry(
            _triton_backward.planes_backward_kernel, planes_tile(half, wide, kind == FIXED), PLANES=kind
        )
        for name, kind in kinds.items()
    } | {f"weights_backward{suffix}": entry(_triton_backward.weights_backward_kernel, weights, PART=weights.units)}


COMPILE = {
    "forward": _compiled(
        render_forward_kernel,
        {"num_warps": _warps(128), "num_stages": 1},
        {"COARSE": 48, "FINE": 48, "P": 64, "S": 128, "JITTER": True, "U": True, "WHITE": False} | _SIZES,
    ),
    "values": _compiled(
        _triton_backward.values_kernel, {**VALUES.launch}, {"COUNT": 96, "TILE": VALUES.samples} | _SIZES
    ),
    "march_backward": _compiled(
        _triton_backward.march_backward_kernel, {"num_warps": 1}, {"COUNT": 96, "S": 128, "WHITE": False, "O": O}
    ),
    **_gradients("", True, _triton.WIDE),
    **_gradients("_mma_sync", True, _triton.NARROW),
    **_gradients("_fp32", False, _triton.WIDE + _triton.NARROW),
}
