"""The Triton kernels of modulated_conv2d in the forms that full-size layers launch, for bench/compile_report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guide_fast.kernels.modulated_conv2d import _epilogue_triton, _gemm_triton

TILE = {"BM": 128, "BN": 128, "BK": 64, "PRECISION": "tf32", "UPCAST": False}
EIGHT_WARPS = {"num_warps": 8, "num_stages": 3}
FOUR_WARPS = {"num_warps": 4, "num_stages": 3}
HALF = {"dtypes": ("fp16", "bf16")}
OLDER, NEWER = (80,), (90, 100, 120)
ALL = OLDER + NEWER
TF32_TILE = TILE | {"BN": 64, "BK": 32}
FP32_TILE = TILE | {"BM": 64, "BN": 32, "BK": 16, "PRECISION": "ieee"}
SETTINGS = dict.fromkeys(("slope", "gain", "clamp"), "fp32")
EPILOGUE = dict.fromkeys(("DEMOD", "NOISE", "BIAS", "NEXT", "LRELU", "CLAMP"), True)
NO_EPILOGUE = dict.fromkeys(EPILOGUE, False)


def _pointers(*names: str) -> dict[str, str]:
    fp32 = ("demod_ptr", "partial_ptr", "bias_partial_ptr", "demod_partial_ptr", "noise_partial_ptr")
    return {name: "*fp32" if name in fp32 else "*{T}" for name in names}


def _integers(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "i32")


_CONVOLUTION = (
    _pointers("x_ptr", "weight_ptr", "style_ptr", "demod_ptr", "noise_ptr", "bias_ptr", "next_ptr", "y_ptr")
    | _integers("ha", "wa", "hy", "wy", "rows_y", "rows_x", "depth", "width", "tap_stride", "column_stride")
    | _integers("noise_stride", "first", "first_tap_y", "first_tap_x")
    | SETTINGS
)
_EPILOGUE = _pointers("z_ptr", "demod_ptr", "noise_ptr", "bias_ptr", "next_ptr", "y_ptr")
_FIR = _EPILOGUE | _integers("hz", "wz", "hy", "wy", "channels", "noise_stride") | SETTINGS

_INPUT_GRADIENT = _pointers("g_ptr", "weight_ptr", "style_ptr", "x_ptr", "gx_ptr", "partial_ptr") | _integers(
    "hg", "wg", "h", "w", "depth", "width", "tap_stride", "depth_stride", "first"
)
_WEIGHT_GRADIENT = _pointers("g_ptr", "x_ptr", "style_ptr", "partial_ptr") | _integers(
    "n", "hg", "wg", "h", "w", "out_channels", "in_channels", "first", "per_split"
)
_UP_1 = {"depth_stride": 1, "KERNEL": 3, "TAPS_Y": 3, "TAPS_X": 3, "UP": 1, "MODULATE": True} | EPILOGUE
_UP_2 = {"depth_stride": 1, "KERNEL": 3, "TAPS_Y": 2, "TAPS_X": 2, "UP": 2, "MODULATE": True} | NO_EPILOGUE
_OF_X = {"column_stride": 1, "KERNEL": 3, "UP": 1, "MODULATED": True, "X_GRAD": True, "STYLE_GRAD": True}
_OF_WEIGHT = {"KERNEL": 3, "UP": 1, "MODULATE": True}


def _gemms(
    suffix: str,
    element: str,
    tile: Mapping[str, object],
    options: Mapping[str, object],
    bm: int,
    bn: int,
    archs: tuple[int, ...] = ALL,
) -> dict[str, tuple[Any, ...]]:
    """`archs`: where this tile is launched; the weight gradient has one on all of them, of BM x BN outputs."""
    forms = {
        "convolution": (_gemm_triton.convolution_kernel, _CONVOLUTION, _UP_1),
        "transposed convolution": (_gemm_triton.convolution_kernel, _CONVOLUTION, _UP_2),
        "input gradient": (_gemm_triton.input_gradient_kernel, _INPUT_GRADIENT, _OF_X),
        "weight gradient": (_gemm_triton.weight_gradient_kernel, _WEIGHT_GRADIENT, _OF_WEIGHT),
    }
    return {
        name + suffix: (
            kernel,
            {argument: kind.replace("{T}", element) for argument, kind in signature.items()},
            {**constants, **tile} | ({"BM": bm, "BN": bn} if name == "weight gradient" else {}),
            {**options} | {"archs": ALL if name == "weight gradient" else archs},
        )
        for name, (kernel, signature, constants) in forms.items()
        if name != "weight gradient" or archs != OLDER
    }


# name -> (kernel, signature of pointers by dtype, constants, launch options)
COMPILE = {
    **_gemms("", "{T}", TILE, {**EIGHT_WARPS, **HALF}, 128, 128, NEWER),
    **_gemms(" sm_80", "{T}", TILE | {"BK": 32}, {**EIGHT_WARPS, "num_stages": 4, **HALF}, 128, 128, OLDER),
    **_gemms(" tf32", "fp32", TF32_TILE, FOUR_WARPS, 64, 64, NEWER),
    **_gemms(" tf32 sm_80", "fp32", TF32_TILE, EIGHT_WARPS, 64, 64, OLDER),
    **_gemms(" fp32", "fp32", FP32_TILE, FOUR_WARPS, 64, 32),
    "epilogue": (
        _epilogue_triton.epilogue_kernel,
        _EPILOGUE | _integers("pixels", "channels", "noise_stride") | SETTINGS,
        EPILOGUE | {"BP": 64, "BC": 64},
    ),
    "fir": (_epilogue_triton.fir_kernel, _FIR, EPILOGUE | {"PADDING": 1, "BP": 16, "BC": 64}),
    "fir adjoint": (_epilogue_triton.fir_kernel, _FIR, NO_EPILOGUE | {"PADDING": 2, "BP": 16, "BC": 64}),
    "epilogue backward": (
        _epilogue_triton.epilogue_backward_kernel,
        _pointers("gy_ptr", "y_ptr", "demod_ptr", "noise_ptr", "bias_ptr", "g_ptr", "bias_partial_ptr")
        | _pointers("demod_partial_ptr", "noise_partial_ptr")
        | _integers("n", "pixels", "channels", "noise_stride")
        | SETTINGS,
        dict.fromkeys(("DEMOD", "NOISE", "BIAS", "LRELU", "CLAMP", "STORE"), True)
        | dict.fromkeys(("BIAS_GRAD", "DEMOD_GRAD", "NOISE_GRAD"), True)
        | {"BP": 64, "BC": 64},
    ),
}
