"""Chooses the implementation of an operation: `impl="auto"` may choose, a name that cannot run raises."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guide_fast.kernels import _extension, _triton
from guide_fast.kernels._errors import ImplementationUnavailable, KernelError

IMPLS = ("auto", "reference", "triton", "cuda", "cpu")
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
LARGE = 1 << 19  # elements; smaller outputs cost glibc no page faults
HALVES = (torch.float16, torch.bfloat16)

_poisoned = False
_plain = False


@dataclass(frozen=True)
class Backend:
    """One implementation: its forward, its backward; both allocate with `empty` below."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]

    def __post_init__(self) -> None:
        for name in ("forward", "backward"):
            object.__setattr__(self, name, _on_its_device(getattr(self, name)))


def _on_its_device(function: Callable[..., Any]) -> Callable[..., Any]:
    """Launch on the device of the tensors, whichever is the current one."""

    def run(*arguments: Any) -> Any:
        first = next((t[0] if isinstance(t, (list, tuple)) and t else t for t in arguments), None)
        if isinstance(first, Tensor) and first.is_cuda:
            with torch.cuda.device(first.device):
                return function(*arguments)
        return function(*arguments)

    return run


def choose(
    op: str,
    impl: str,
    x: Tensor,
    backends: Mapping[str, Backend],
    *,
    prefer: Callable[[list[str]], str] | None = None,
    slow_cpu: bool = False,
) -> str:
    """The implementation to run for `x`.

    "auto" takes, of those that can run, what `prefer` names (a measured choice), else triton, cuda on a GPU and cpu,
    reference on a CPU; `slow_cpu` says that the native path loses to PyTorch here. Raises KernelError for an unknown
    name, ImplementationUnavailable with the reason for one that cannot run.
    """
    if impl not in IMPLS:
        raise KernelError(f"impl={impl!r} is not known to {op}; choose one of {', '.join(IMPLS)}")
    if impl == "reference" or (impl == "auto" and _plain):
        return "reference"
    if torch.autograd.forward_ad.unpack_dual(x).tangent is not None:
        if impl == "auto":
            return "reference"
        raise ImplementationUnavailable(f"{op} has no forward-mode derivative with impl={impl!r}; use 'reference'")
    if impl != "auto":
        if reason := _refuses(impl, x, backends):
            raise ImplementationUnavailable(f"{op} cannot run with impl={impl!r}: {reason}")
        return impl
    order = ["triton", "cuda"] if x.is_cuda else [] if slow_cpu else ["cpu"]
    able = [name for name in order if _refuses(name, x, backends) is None]
    if prefer is not None and able:
        return prefer([*able, "reference"])
    return able[0] if able else "reference"


def backend(op: str, impl: str, x: Tensor, backends: Mapping[str, Backend]) -> Backend:
    """The implementation that a raw operator was asked for; doors come here too, with what `choose` said.

    Raises KernelError for an unknown name, ImplementationUnavailable for one that cannot run where `x` is.
    """
    if impl not in backends:
        raise KernelError(
            f"impl={impl!r} is not known to torch.ops.guide_fast.{op}; choose one of {', '.join(backends)}"
        )
    reason = _misplaced(impl, x)
    if reason is not None:
        raise ImplementationUnavailable(f"torch.ops.guide_fast.{op} cannot run with impl={impl!r}: {reason}")
    return backends[impl]


def _misplaced(impl: str, x: Tensor) -> str | None:
    if impl == "cuda":
        return _extension.missing_cuda() if x.is_cuda else f"x is on {x.device}; move it to a CUDA device"
    if impl in ("cpu", "dense_cpu", "winograd_cpu"):
        return _extension.missing() if x.device.type == "cpu" else f"x is on {x.device}; move it to the CPU"
    return _triton.refuses(x)


def check_operands(op: str, like: Tensor, operands: Mapping[str, tuple[Tensor | None, tuple[int, ...]]]) -> None:
    """Raise KernelError unless each tensor has its shape, `like`'s dtype and device, lies dense as NCHW or NHWC.

    For what a Triton kernel reads without looking: a microsecond for each tensor. None is left alone.
    """
    for name, (tensor, shape) in operands.items():
        if tensor is None:
            continue
        if tensor.shape != shape or tensor.dtype != like.dtype or tensor.device != like.device:
            check_tensor(f"torch.ops.guide_fast.{op}", name, tensor, shape, like)
        if not tensor.is_contiguous() and not is_nhwc(tensor):
            raise KernelError(
                f"{name} of torch.ops.guide_fast.{op} has strides {tensor.stride()} for {tuple(tensor.shape)}; make it "
                "contiguous"
            )


def check_alike(op: str, x: Tensor, operands: Mapping[str, Tensor | None]) -> None:
    """Raise KernelError unless each [N, C, H, W] tensor lies as `x` does, NCHW or NHWC; None is left alone."""
    layout = torch.channels_last if is_nhwc(x) else torch.contiguous_format
    for name, tensor in operands.items():
        if tensor is not None and not tensor.is_contiguous(memory_format=layout):
            raise KernelError(
                f"{name} of torch.ops.guide_fast.{op} has strides {tensor.stride()}; lay it out as the first tensor, "
                f"{str(layout).removeprefix('torch.')}"
            )


def _refuses(impl: str, x: Tensor, backends: Mapping[str, Backend]) -> str | None:
    if impl not in backends:
        return f"this operation has no {impl} implementation; use 'auto'"
    if x.dtype == torch.float64:
        return "x is float64, which only the reference computes"
    if impl == "triton":
        return _triton.refuses(x)
    if impl == "cuda":
        if not x.is_cuda:
            return f"x is on {x.device}; move it to a CUDA device"
        major, minor = torch.cuda.get_device_capability(x.device)
        if major not in (8, 9) and major < 12:
            return f"the library holds no kernels for sm_{major}{minor}; use 'auto', 'triton' or 'reference'"
        return _extension.missing_cuda()
    if x.device.type != "cpu":
        return f"x is on {x.device}; move it to the CPU"
    if x.dtype != torch.float32:
        return f"x is {name_of(x.dtype)} and the native CPU path computes in float32; use 'auto', which converts"
    return _extension.missing()


def widen_on_cpu(impl: str, x: Tensor) -> bool:
    """Whether "auto" should compute in float32: CPUs have no fast half precision in PyTorch's kernels."""
    return impl == "auto" and x.device.type == "cpu" and x.dtype in HALVES


def name_of(dtype: torch.dtype) -> str:
    """`float16` for torch.float16."""
    return str(dtype).removeprefix("torch.")


def check_tensor(op: str, name: str, tensor: Tensor, shape: tuple[int | None, ...], like: Tensor | None = None) -> None:
    """Raise KernelError unless `tensor` has that shape (None: any size), a float dtype, and `like`'s dtype, device."""
    if not isinstance(tensor, Tensor):
        raise KernelError(f"{name} of {op} is {type(tensor).__name__}; give a tensor")
    if tensor.ndim != len(shape):
        raise KernelError(f"{name} of {op} has rank {tensor.ndim} {tuple(tensor.shape)}; it takes rank {len(shape)}")
    if any(want is not None and got != want for got, want in zip(tensor.shape, shape, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise KernelError(f"{name} of {op} has shape {tuple(tensor.shape)}; it takes ({wanted})")
    if tensor.dtype not in FLOATS:
        raise KernelError(f"{name} of {op} is {name_of(tensor.dtype)}; give float32, float16, bfloat16 or float64")
    if like is not None and tensor.device != like.device:
        raise KernelError(f"{name} of {op} is on {tensor.device} but x is on {like.device}; move it there")
    if like is not None and tensor.dtype != like.dtype:
        raise KernelError(f"{name} of {op} is {name_of(tensor.dtype)} but x is {name_of(like.dtype)}; convert it")


def check_not_empty(op: str, name: str, tensor: Tensor) -> None:
    """Raise KernelError for a tensor without elements."""
    if tensor.numel() == 0:
        raise KernelError(f"{name} of {op} is empty: {tuple(tensor.shape)}; give at least one of each")


def empty(shape: tuple[int, ...], like: Tensor, *, dtype: torch.dtype | None = None, nhwc: bool = False) -> Tensor:
    """An uninitialised output on `like`'s device; NaN inside `poisoned_outputs`.

    Large activations on a CPU come from blocks that the native library keeps (csrc/torch/activations.cpp).
    """
    dtype = dtype or like.dtype
    large = dtype == torch.float32 and like.device.type == "cpu" and len(shape) == 4 and math.prod(shape) >= LARGE
    large = large and type(like) in (Tensor, torch.nn.Parameter)  # a tracer's stand-in has no memory
    if large and _extension.missing() is None:
        out = torch.ops.guide_fast.native_empty(*shape, nhwc)
    else:
        layout = torch.channels_last if nhwc else torch.contiguous_format
        out = torch.empty(shape, dtype=dtype, device=like.device, memory_format=layout)
    return out.fill_(float("nan")) if _poisoned else out


@contextlib.contextmanager
def poisoned_outputs() -> Iterator[None]:
    """Outputs start as NaN, so that an element which a kernel does not write shows."""
    global _poisoned
    before, _poisoned = _poisoned, True
    try:
        yield
    finally:
        _poisoned = before


@contextlib.contextmanager
def plain_pytorch() -> Iterator[None]:
    """Inside it "auto" takes the reference: what baselines are made of, so that no kernel of ours speeds them up."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


def plain() -> bool:
    """Whether `plain_pytorch` is on."""
    return _plain


def is_nhwc(x: Tensor) -> bool:
    """Whether a [N, C, H, W] tensor lies in memory as NHWC."""
    return x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def dense(x: Tensor) -> Tensor:
    """`x` itself when it is contiguous as NCHW or NHWC, else a copy; kernels see no other strides."""
    return x if is_nhwc(x) else x.contiguous()
