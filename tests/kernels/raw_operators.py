"""One call of every compiled operator with arguments that fit, small sizes that differ from each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Arguments = dict[str, Any]
EPILOGUE: Arguments = {"activation": "lrelu", "slope": 0.2, "gain": 1.0, "clamp": -1.0}


def ones(*shape: int, dtype: torch.dtype = torch.float32, nhwc: bool = False) -> Tensor:
    """Ones, dense as NCHW or NHWC."""
    made = torch.ones(shape, dtype=dtype)
    return made.contiguous(memory_format=torch.channels_last) if nhwc else made


def bias_act() -> Arguments:
    """[2, 3, 4, 5] as NCHW."""
    x, y = ones(2, 3, 4, 5), ones(2, 3, 4, 5)
    return {"x": x, "bias": ones(3), "y": y, "outer": 2, "channels": 3, "inner": 20} | EPILOGUE


def bias_act_backward() -> Arguments:
    """As the operator's own backward pass calls it."""
    named = {name: ones(2, 3, 4, 5) for name in ("gy", "y", "gx")}
    return named | {"outer": 1, "channels": 1, "inner": 120} | EPILOGUE


def face_crop() -> Arguments:
    """6 x 7 to 3 x 2 pixels."""
    bands = {"row_start": torch.tensor([0, 1, 3], dtype=torch.int32), "row_weight": ones(3, 3)}
    bands |= {"column_start": torch.tensor([1, 4], dtype=torch.int32), "column_weight": ones(2, 2)}
    numbers = {"height": 6, "width": 7, "nhwc": False, "source": [0, 1, 2], "scale": [1.0] * 3, "offset": [0.0] * 3}
    return {"x": ones(2, 3, 6, 7), "y": ones(2, 3, 3, 2)} | bands | numbers


def feature_distance() -> Arguments:
    """A tap in NCHW of 150 pixels, one in NHWC of 9."""
    a, b = [ones(2, 5, 150), ones(2, 9, 4)], [ones(2, 5, 150), ones(1, 9, 4)]
    lists = {"a": a, "b": b, "weights": [ones(5), ones(4)], "partial": ones(2, 3), "out": ones(2)}
    return lists | {"scales": [1.0, 1.0], "nhwc": [0, 1], "normalised": False, "eps": 1e-10}


def feature_distance_backward() -> Arguments:
    """Of both."""
    named = feature_distance()
    del named["partial"], named["out"]
    return (
        {"gout": ones(2)}
        | named
        | {"ga": [torch.ones_like(t) for t in named["a"]], "gb": [ones(2, 5, 150), ones(2, 9, 4)]}
    )


KEPT = [[ones(size) for size in (10, 6)] for _ in range(5)]  # what the addresses below lead to


def fused_adam() -> Arguments:
    """Tensors of 10 and 6 elements in chunks of 8."""
    rows = [[t.data_ptr() for t in group] for group in KEPT]
    table = torch.tensor([*rows, [10, 6], [4, 4], [0, 0]])  # with float32 gradients, float32 copies, one setting
    chunks = {"chunk_tensor": torch.tensor([0, 0, 1], dtype=torch.int32), "chunk_start": torch.tensor([0, 8, 0])}
    factors = torch.tensor([[0.1, 0.9, 0.1, 0.1, 1.0, 1e-8, 0.0]])
    return {"table": table} | chunks | {"chunk_size": 8, "factor_table": factors, "factors": []}


def haar() -> Arguments:
    """[2, 3, 8, 10] in NHWC."""
    return {"x": ones(2, 12, 4, 5, nhwc=True), "style": ones(2, 12), "y": ones(2, 3, 8, 10, nhwc=True), "nhwc": True}


def haar_backward() -> Arguments:
    """In NCHW."""
    named = {"gy": ones(2, 3, 8, 10), "x": ones(2, 12, 4, 5), "style": ones(2, 12), "gx": ones(2, 12, 4, 5)}
    return named | {"gstyle": ones(2, 12), "nhwc": False}


def identity_loss() -> Arguments:
    """Three pairs of seven numbers."""
    named: Arguments = {"a": ones(3, 7), "b": ones(3, 7), "loss": ones(3), "da": ones(3, 7), "db": ones(3, 7)}
    return named | {"kind": "cosine", "normalise": True, "reduce": False, "scale": 1.0, "eps": 1e-8}


def modulated_conv2d_weight() -> Arguments:
    """3x3 from five channels to six."""
    return {"weight": ones(6, 5, 3, 3), "packed": ones(9, 5, 6), "power": ones(6, 5)}


def modulated_conv2d() -> Arguments:
    """3x3, up-sampling."""
    named = {"x": ones(2, 5, 4, 3, nhwc=True), "packed": ones(9, 5, 6), "power": ones(6, 5), "style": ones(2, 5)}
    named |= {"noise": ones(2, 1, 8, 6), "bias": ones(6), "next_style": ones(2, 6), "demod": ones(2, 6)}
    named |= {"z": ones(2, 6, 9, 7, nhwc=True), "y": ones(2, 6, 8, 6, nhwc=True)}
    return named | {"kernel": 3, "up": 2, "premodulated": False} | EPILOGUE


def modulated_conv2d_backward() -> Arguments:
    """Every gradient of it."""
    named = modulated_conv2d()
    del named["next_style"], named["z"]
    named |= {"gy": ones(2, 6, 8, 6, nhwc=True), "g": ones(2, 6, 8, 6, nhwc=True), "gz": ones(2, 6, 9, 7, nhwc=True)}
    named |= {"gdemod": ones(2, 6), "gx": ones(2, 5, 4, 3, nhwc=True), "gpacked": ones(9, 5, 6)}
    return named | {"gstyle": ones(2, 5), "gbias": ones(6), "gnoise": ones(2, 48)}


def modulated_conv2d_finish() -> Arguments:
    """What follows a convolution."""
    named = {"z": ones(2, 6, 4, 3, nhwc=True), "demod": ones(2, 6), "noise": ones(2, 1, 4, 3), "bias": ones(6)}
    return named | {"next_style": ones(2, 6), "y": ones(2, 6, 4, 3, nhwc=True)} | EPILOGUE


def modulated_conv2d_finish_backward() -> Arguments:
    """Every gradient of it."""
    named = modulated_conv2d_finish()
    del named["z"], named["next_style"]
    named |= {"gy": ones(2, 6, 4, 3, nhwc=True), "g": ones(2, 6, 4, 3, nhwc=True), "gdemod": ones(2, 6)}
    return named | {"gbias": ones(6), "gnoise": ones(2, 12)}


def modulated_conv2d_scale_backward() -> Arguments:
    """What comes before a convolution, with its gradients."""
    named = {name: ones(2, 6, 4, 3, nhwc=True) for name in ("t", "x", "gx")}
    return named | {"style": ones(2, 6), "gstyle": ones(2, 6)}


def modulated_conv2d_winograd() -> Arguments:
    """3x3 with all that surrounds it, one tile an image."""
    named = {"x": ones(2, 5, 4, 3, nhwc=True), "weight": ones(6, 5, 3, 3), "adjoint": False, "style": ones(2, 5)}
    named |= {"demod": ones(2, 6), "noise": ones(2, 1, 4, 3), "bias": ones(6), "next_style": ones(2, 6)}
    named |= {"scratch": ones(1, 36, 15, 32), "keep_weight": False, "y": ones(2, 6, 4, 3, nhwc=True)}
    return named | EPILOGUE


def separable_conv2d() -> Arguments:
    """Behind the inverse wavelet, in NHWC."""
    named = {"x": ones(2, 20, 3, 4, nhwc=True), "haar_style": ones(2, 20), "depthwise": ones(5, 1, 3, 3)}
    named |= {"pointwise": ones(6, 5, 1, 1), "style": ones(2, 5), "noise": ones(2, 1, 6, 8), "bias": ones(6)}
    return named | {"next_style": ones(2, 6), "y": ones(2, 6, 6, 8, nhwc=True), "nhwc": True} | EPILOGUE


def separable_conv2d_backward() -> Arguments:
    """Every gradient of it."""
    named = separable_conv2d()
    del named["noise"], named["bias"], named["next_style"]
    named |= {"gy": ones(2, 6, 6, 8, nhwc=True), "gx": ones(2, 20, 3, 4, nhwc=True), "ghaar_style": ones(2, 20)}
    named |= {"gdepthwise": ones(5, 1, 3, 3), "gpointwise": ones(6, 5, 1, 1), "gstyle": ones(2, 5)}
    named |= {"gnoise": ones(2, 1, 6, 8), "gbias": ones(6)}
    return named | {"g": ones(2, 6, 6, 8, nhwc=True), "t": ones(2, 5, 6, 8, nhwc=True)}


def triplane_render() -> Arguments:
    """Seven rays through planes of 5 x 6 texels."""
    planes = ones(2, 3, 5, 6, 32)
    named: Arguments = {"planes": planes, "strides": list(planes.stride()), "origins": ones(2, 7, 3)}
    named |= {"directions": ones(2, 7, 3), "near": ones(2, 7), "far": 2 * ones(2, 7)}
    named |= {"w1": ones(64, 32), "b1": ones(64), "w2": ones(33, 64), "b2": ones(33)}
    named |= {"jitter": 0.5 * ones(2, 7, 6), "u": 0.5 * ones(2, 7, 4), "features": ones(2, 7, 32)}
    named |= {"depth": ones(2, 7), "total": ones(2, 7), "depths": ones(2, 7, 10)}
    return named | {"coarse": 6, "fine": 4, "box_warp": 1.0, "white_back": False}


def triplane_render_backward() -> Arguments:
    """Gradients of planes and decoder."""
    named = triplane_render()
    for name in ("near", "far", "jitter", "u", "features", "depth", "total", "coarse", "fine"):
        del named[name]
    named |= {"gfeatures": ones(2, 7, 32), "gdepth": ones(2, 7), "gtotal": ones(2, 7)}
    named |= {"depths": torch.linspace(1, 2, 10).expand(2, 7, 10).contiguous(), "gplanes": ones(2, 3, 5, 6, 32)}
    return named | {"fixed": None, "largest": None, "scale": None, "partials": ones(1, 4257), "rows": 1}


def upfirdn2d() -> Arguments:
    """Up-sampling by 2 with a filter of 3 x 4."""
    named = {"x": ones(2, 3, 4, 5), "f": ones(3, 4), "y": ones(2, 3, 8, 10), "shape": [2, 3, 4, 5]}
    sizes = {"out_h": 8, "out_w": 10, "nhwc": False, "up_x": 2, "up_y": 2, "down_x": 1, "down_y": 1}
    return named | sizes | {"left": 2, "top": 1}


CALLS: dict[str, Callable[[], Arguments]] = {
    f"native_{call.__name__}": call
    for call in (
        bias_act,
        bias_act_backward,
        face_crop,
        feature_distance,
        feature_distance_backward,
        fused_adam,
        haar,
        haar_backward,
        identity_loss,
        modulated_conv2d_weight,
        modulated_conv2d,
        modulated_conv2d_backward,
        modulated_conv2d_finish,
        modulated_conv2d_finish_backward,
        modulated_conv2d_scale_backward,
        modulated_conv2d_winograd,
        separable_conv2d,
        separable_conv2d_backward,
        triplane_render,
        triplane_render_backward,
        upfirdn2d,
    )
}
