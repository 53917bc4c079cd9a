"""One step is one launch, whatever the dtypes, steps, settings of the tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import contract
import pytest
import torch
from torch import Tensor, nn

from guide_fast.kernels import FusedAdam, KernelError, fused_adam

SHAPES = [(4, 3), (7,), (2, 5), (9,), (3, 3)]
GRADS = [torch.float32, torch.float16, torch.bfloat16, torch.float16, torch.float32]
COPIES = [None, torch.float16, torch.bfloat16, None, torch.float32]
MIXED = {
    "step": [1, 4, 1, 9, 2],
    "lr": [1e-2, 1e-2, 1e-3, 5e-2, 1e-2],
    "beta1": [0.9, 0.8, 0.9, 0.5, 0.9],
    "beta2": [0.999, 0.99, 0.9, 0.999, 0.99],
    "eps": [1e-8, 1e-6, 1e-8, 1e-3, 1e-8],
    "weight_decay": [0.0, 0.1, 0.0, 0.2, 0.0],
}
SHARED = {"step": 3, "lr": 1e-2, "weight_decay": 0.1}


@contextmanager
def launches(impl: str, patched: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """What is launched: calls of the native operator, launches of the Triton kernel."""
    seen: list[object] = []
    if impl == "triton":
        from guide_fast.kernels.fused_adam import fused_adam_triton

        kernel = fused_adam_triton.fused_adam_kernel

        class Counted:
            def __getitem__(self, grid: tuple[int, ...]) -> object:
                seen.append(grid)
                return kernel[grid]

        patched.setattr(fused_adam_triton, "fused_adam_kernel", Counted())
        yield seen
    else:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            yield seen
        seen.extend(e for e in profile.events() if e.name == "guide_fast::native_fused_adam")


def tensors(seed: int, dtypes: list[torch.dtype | None] | None = None) -> list[Tensor | None]:
    random = torch.Generator().manual_seed(seed)
    made = [torch.randn(shape, generator=random).to(contract.DEVICE) for shape in SHAPES]
    return [None if d is None else t.to(d) for t, d in zip(made, dtypes or [torch.float32] * len(SHAPES), strict=True)]


def state() -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    return tensors(0), tensors(1), [t.square() for t in tensors(2)]


def skip_unless_it_runs(impl: str) -> None:
    if impl == "cpu":
        contract.require_extension()
        if contract.DEVICE != "cpu":
            pytest.skip("the tensors are on a GPU")


@pytest.mark.parametrize("impl", contract.implementations("triton", "cuda", "cpu"))
@pytest.mark.parametrize("settings", [MIXED, SHARED], ids=["mixed", "shared"])
def test_tensors_of_every_kind_take_one_launch(
    impl: str, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_unless_it_runs(impl)
    got, expected = state(), state()
    grads, copies = tensors(3, GRADS), tensors(4, COPIES)
    with launches(impl, monkeypatch) as seen:
        fused_adam(got[0], grads, *got[1:], **settings, working_copies=copies, impl=impl)
    assert len(seen) == 1
    for i, grad in enumerate(grads):
        alone = {name: value[i] if isinstance(value, list) else value for name, value in settings.items()}
        fused_adam(*([t] for t in (expected[0][i], grad, expected[1][i], expected[2][i])), **alone, impl="reference")
    for ours, theirs in zip(got, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=2e-6, atol=2e-7)
    for param, copy in zip(got[0], copies, strict=True):
        if copy is not None:  # the interpreter cuts bits of bfloat16 off
            torch.testing.assert_close(copy.float(), param, rtol=2.0**-7, atol=0)


@pytest.mark.parametrize("impl", contract.implementations("triton", "cuda", "cpu"))
def test_groups_of_an_optimiser_take_one_launch(impl: str, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_unless_it_runs(impl)
    ours, theirs = ([nn.Parameter(t) for t in tensors(0)] for _ in range(2))

    def groups(params: list[nn.Parameter]) -> list[dict[str, object]]:
        return [
            {"params": params[:2], "lr": 1e-2, "betas": (0.8, 0.99)},
            {"params": params[2:], "lr": 1e-3, "weight_decay": 0.1, "eps": 1e-4},
        ]

    fused, adam = FusedAdam(groups(ours), impl=impl), torch.optim.Adam(groups(theirs))
    with launches(impl, monkeypatch) as seen:
        for number in range(3):
            for params, optimizer in ((ours, fused), (theirs, adam)):
                for i, (param, grad) in enumerate(zip(params, tensors(10 + number), strict=True)):
                    param.grad = None if number == 0 and i == 1 else grad  # its step count stays behind
                optimizer.step()
    assert len(seen) == 3
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-6, atol=2e-7)


def test_settings_of_another_number_of_tensors_are_named() -> None:
    params, m, v = state()
    with pytest.raises(KernelError, match="lr of fused_adam has 2 entries for 5 params"):
        fused_adam(params, params, m, v, step=1, lr=[0.1, 0.2])
    with pytest.raises(KernelError, match="step=0"):
        fused_adam(params, params, m, v, step=[1, 1, 0, 1, 1], lr=0.1)
