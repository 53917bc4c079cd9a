"""Compiled operators called raw: an argument that does not fit is one sentence, never memory out of bounds."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import contract
import pytest
import torch
from raw_operators import CALLS, ones
from torch import Tensor

from guide_fast.kernels import ImplementationUnavailable, KernelError, _dispatch, _extension

OTHER = {torch.float32: torch.float64, torch.int32: torch.int64, torch.int64: torch.int32}


def short(t: Tensor) -> Tensor:
    """One element of the last dimension too few."""
    layout = torch.channels_last if _dispatch.is_nhwc(t) else torch.contiguous_format
    return t[..., :-1].contiguous(memory_format=layout)


def strided(t: Tensor) -> Tensor:
    """The same values with gaps between them."""
    return t[..., None].expand(*t.shape, 2).contiguous()[..., 0]


FAULTS = {
    "short": short,
    "rank": lambda t: t[None],
    "dtype": lambda t: t.to(OTHER[t.dtype]),
    "strides": strided,
}


def tensors(op: str) -> list[tuple[str, int | None]]:
    """Names of the tensor arguments that a call has, with the place in a list of tensors."""
    found: list[tuple[str, int | None]] = []
    for name, value in CALLS[op]().items():
        if isinstance(value, Tensor):
            found.append((name, None))
        elif isinstance(value, list) and value and isinstance(value[0], Tensor):
            found += [(name, i) for i in range(len(value))]
    return found


def call(op: str, arguments: dict[str, Any]) -> None:
    getattr(torch.ops.guide_fast, op)(**arguments)


# nothing else says how many taps a filter has, how many samples a ray
FREE = {("native_upfirdn2d", "f", "short"), ("native_triplane_render_backward", "depths", "short")}
CASES = [
    pytest.param(op, name, place, fault, id=f"{op}-{name}{'' if place is None else place}-{fault}")
    for op in CALLS
    for name, place in tensors(op)
    for fault in FAULTS
    if (op, name, fault) not in FREE
]


@pytest.fixture(autouse=True)
def compiled() -> None:
    contract.require_extension()


@pytest.mark.parametrize("op", CALLS)
def test_arguments_that_fit_are_taken(op: str) -> None:
    if op == "native_modulated_conv2d_backward":
        with pytest.raises(RuntimeError, match="written for CUDA"):
            call(op, CALLS[op]())
    else:
        call(op, CALLS[op]())


@pytest.mark.parametrize(("op", "name", "place", "fault"), CASES)
def test_tensor_that_does_not_fit_is_refused(op: str, name: str, place: int | None, fault: str) -> None:
    arguments = CALLS[op]()
    if place is None:
        arguments[name] = FAULTS[fault](arguments[name])
    else:
        arguments[name][place] = FAULTS[fault](arguments[name][place])
    with pytest.raises(RuntimeError, match=f"^{op}: ") as raised:
        call(op, arguments)
    assert "\n" not in str(raised.value) and "written for CUDA" not in str(raised.value)


def test_every_compiled_operator_has_a_call() -> None:
    names = {schema.name.removeprefix("guide_fast::") for schema in torch._C._jit_get_all_schemas()}
    assert {name for name in names if name.startswith("native_")} == CALLS.keys() | {"native_empty"}


@pytest.mark.parametrize(
    ("op", "name", "value", "said"),
    [
        ("native_bias_act", "inner", 21, "outer, channels, inner are 2, 3, 21"),
        ("native_bias_act", "activation", "selu", "selu"),
        ("native_face_crop", "row_start", torch.tensor([0, 1, 4], dtype=torch.int32), r"start\[2\] = 4"),
        ("native_face_crop", "row_start", torch.tensor([0, 3, 1], dtype=torch.int32), "never go down"),
        ("native_face_crop", "source", [0, 1, 3], "channel 3"),
        ("native_face_crop", "scale", [1.0], "1, 3 entries"),
        ("native_feature_distance", "nhwc", [0], "nhwc has 1 entries"),
        ("native_feature_distance", "a", [], "no taps"),
        ("native_fused_adam", "chunk_tensor", torch.tensor([0, 0, 2], dtype=torch.int32), "tensor 2"),
        ("native_fused_adam", "chunk_start", torch.tensor([0, 8, 6]), r"chunk_start\[2\] = 6"),
        ("native_fused_adam", "factor_table", None, "factors has 0"),
        ("native_fused_adam", "factor_table", torch.zeros(0, 7), "setting 0; factor_table has 0"),
        ("native_haar_backward", "x", None, "x = NULL"),
        ("native_modulated_conv2d", "demod", None, "demod is missing"),
        ("native_modulated_conv2d", "z", None, "z = NULL"),
        ("native_modulated_conv2d", "up", 3, "up 3"),
        ("native_modulated_conv2d_winograd", "keep_weight", True, r"scratch has shape .* it takes \[1, 36, 7, 32\]"),
        ("native_modulated_conv2d_winograd", "adjoint", True, r"weight has shape .* it takes \[5, 6, 3, 3\]"),
        ("native_triplane_render", "coarse", -1, "coarse is -1"),
        ("native_triplane_render", "strides", [1] * 5, "strides is"),
        ("native_upfirdn2d", "up_x", 1 << 40, "1099511627776"),
        ("native_upfirdn2d", "shape", [2, 3, 4], "shape is"),
    ],
)
def test_number_that_does_not_fit_is_named(op: str, name: str, value: object, said: str) -> None:
    with pytest.raises(RuntimeError, match=said):
        call(op, CALLS[op]() | {name: value})


def test_empty_batch_does_nothing() -> None:
    call("native_haar", {"x": ones(0, 12, 4, 5), "style": None, "y": ones(0, 3, 8, 10), "nhwc": False})


@pytest.mark.parametrize("sizes", [(0, 1, 1, 1), (1, -1, 1, 1), (1 << 30, 1 << 30, 1 << 30, 1)])
def test_impossible_activation_is_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(RuntimeError, match="native_empty: a size is"):
        torch.ops.guide_fast.native_empty(*sizes, False)


def test_activation_says_that_it_cannot_grow() -> None:
    block = torch.ops.guide_fast.native_empty(1, 2, 3, 4, False)
    assert block.resize_(2, 3).shape == (2, 3)
    with pytest.raises(RuntimeError, match="not resizable"):
        block.resize_(5, 5)


def python_says(code: str, **environment: str) -> str:
    """What a process of its own prints last."""
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip().splitlines()[-1]


FREED = """
import torch, guide_fast.kernels
block = torch.ops.guide_fast.native_empty(1, 1, 4096, 4096, False).fill_(1)
at = block.data_ptr()
del block
lines = open("/proc/self/maps").read().splitlines()
spans = [[int(end, 16) for end in line.split()[0].split("-")] for line in lines]
print(any(begin <= at < end for begin, end in spans))
"""


@pytest.mark.parametrize(("megabytes", "kept"), [("0", "False"), ("1", "False"), ("64", "True"), ("", "True")])
def test_idle_blocks_stay_within_the_limit_asked_for(megabytes: str, kept: str) -> None:
    assert python_says(FREED, GUIDE_FAST_CACHE_MB=megabytes) == kept


def test_import_of_the_kernels_makes_the_compiled_operators_known() -> None:
    code = "import torch, guide_fast.kernels; print(hasattr(torch.ops.guide_fast, 'native_haar'))"
    assert python_says(code) == "True"


def test_import_of_guide_fast_alone_loads_nothing() -> None:
    assert python_says("import sys, guide_fast; print('torch' in sys.modules)") == "False"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GUIDE_FAST_ISA", "avx9"),
        ("GUIDE_FAST_CACHE_MB", "-1"),
        ("GUIDE_FAST_CACHE_MB", "1 GB"),
        ("GUIDE_FAST_WINOGRAD", "no"),
    ],
)
def test_unknown_environment_value_is_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    _extension._missing.cache_clear()
    with pytest.raises(KernelError, match=f"{name}='{value}'"):
        _extension.missing()
    monkeypatch.delenv(name)
    assert _extension.missing() is None


RAW: dict[str, tuple[Any, ...]] = {
    "bias_act": (ones(1, 3, 2, 2), ones(2), "lrelu", 0.2, 1.0, -1.0),
    "bias_act_backward": (ones(1, 3, 2, 2), ones(1, 3, 2, 1), "lrelu", 0.2, 1.0, -1.0),
    "face_crop": (ones(1, 2, 4, 4), [0.0, 1.0, 0.0, 1.0], 2, "area", 0, [0, 1, 2], [0.0] * 3, [1.0] * 3),
    "face_crop_backward": (ones(1, 3, 2, 3), 4, 4, [0.0, 1.0, 0.0, 1.0], 2, "area", 0, [0, 1, 2], [0.0] * 3, [1.0] * 3),
    "feature_distance": ([ones(1, 3, 2, 2)], [ones(1, 3, 2, 1)], [], [1.0], False, 1e-10),
    "feature_distance_backward": (ones(2), [ones(1, 3, 2, 2)], [ones(1, 3, 2, 2)], [], [1.0], False, 1e-10, True, True),
    "fused_adam": ([ones(4)], [ones(3)], [ones(4)], [ones(4)], [], [], [0], [0.1, 0.9, 0.1, 0.1, 1.0, 1e-8, 0.0]),
    "haar": (ones(1, 8, 2, 2), ones(1, 7)),
    "haar_backward": (ones(1, 2, 4, 4), ones(1, 8, 2, 1), None, False, True, True),
    "identity_loss": (ones(2, 5), ones(2, 4), "cosine", True, False, 1.0, 1e-8, True, True),
    "modulated_conv2d": (
        *(ones(1, 3, 2, 2, nhwc=True), ones(4, 3, 3, 3), ones(1, 2), None, None, None),
        *(1, True, False, "lrelu", 0.2, 1.0, -1.0),
    ),
    "modulated_conv2d_backward": (
        *(ones(1, 4, 2, 2, nhwc=True), ones(1, 4, 2, 2, nhwc=True), ones(1, 3), ones(1, 3, 2, 2, nhwc=True)),
        *(ones(4, 3, 3, 3), ones(1, 3), None, None, 1, True, False, "lrelu", 0.2, 1.0, -1.0, [True] * 3 + [False] * 2),
    ),
    "separable_conv2d": (
        *(ones(1, 3, 2, 2), None, ones(3, 1, 3, 3), ones(4, 3, 1, 1), ones(1, 2), None, None, None),
        *("lrelu", 0.2, 1.0, -1.0),
    ),
    "separable_conv2d_backward": (
        *(ones(1, 4, 2, 2), ones(1, 4, 2, 1), ones(1, 3, 2, 2), None, ones(3, 1, 3, 3), ones(4, 3, 1, 1), ones(1, 3)),
        *(1, [True] * 7, "lrelu", 0.2, 1.0, -1.0),
    ),
    "triplane_render": (
        *(ones(1, 3, 4, 4, 32), ones(1, 2, 3), ones(1, 2, 3), ones(1, 1), ones(1, 2), ones(64, 32), ones(64)),
        *(ones(33, 64), ones(33), None, None, 1.0, 4, 4, False, False),
    ),
    "triplane_render_backward": (
        *(ones(1, 2, 32), ones(1, 1), ones(1, 2), ones(1, 3, 4, 4, 32), ones(1, 2, 3), ones(1, 2, 3), ones(64, 32)),
        *(ones(64), ones(33, 64), ones(33), ones(1, 2, 8), 1.0, False, False, True, True),
    ),
    "upfirdn2d": (ones(1, 3, 2), ones(2, 2), 2, 2, 1, 1, 1, 1, 0, 0),
}


@pytest.mark.parametrize("impl", ["cpu", "triton"])
@pytest.mark.parametrize("op", RAW)
def test_raw_operator_refuses_a_tensor_that_does_not_fit(op: str, impl: str) -> None:
    with pytest.raises((KernelError, RuntimeError), match=op.removesuffix("_backward")) as raised:
        getattr(torch.ops.guide_fast, op)(*RAW[op], impl)
    assert not isinstance(raised.value, ImplementationUnavailable)


@pytest.mark.parametrize("op", RAW)
def test_raw_operator_refuses_an_unknown_implementation(op: str) -> None:
    fitting = {"haar": (ones(1, 8, 2, 2), None), "upfirdn2d": (ones(1, 3, 2, 2), *RAW["upfirdn2d"][1:])}
    arguments = fitting.get(op)
    if arguments is None:
        pytest.skip("its check of sizes comes first")
    with pytest.raises(KernelError, match="impl='hip' is not known"):
        getattr(torch.ops.guide_fast, op)(*arguments, "hip")
    with pytest.raises(ImplementationUnavailable, match="x is on cpu; move it to a CUDA device"):
        getattr(torch.ops.guide_fast, op)(*arguments, "cuda")
