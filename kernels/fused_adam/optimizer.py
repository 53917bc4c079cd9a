"""FusedAdam: torch.optim.Adam's state on the fused step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from guide_fast.kernels._errors import KernelError
from guide_fast.kernels.fused_adam.fused_adam import fused_adam

FOREIGN = ("amsgrad", "maximize", "decoupled_weight_decay", "differentiable")  # Adam's options without a fused step


class FusedAdam(torch.optim.Optimizer):
    """Adam in one launch a step for all groups; its state ("step", "exp_avg", "exp_avg_sq") is torch.optim.Adam's.

    `working_copies` maps parameters to half-precision tensors that receive the new values. Raises KernelError on bad
    settings, for a loaded state that used an option without a fused step too.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        working_copies: Mapping[Tensor, Tensor] | None = None,
        impl: str = "auto",
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self._working_copies = dict(working_copies or {})
        self._impl = impl

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("_working_copies", {})  # torch's pickled state leaves them out
        self.__dict__.setdefault("_impl", "auto")
        for group in self.param_groups:
            for option in FOREIGN:
                if group.get(option):
                    raise KernelError(f"{option}={group[option]} has no fused step; load it into torch.optim.Adam")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of all parameters that have a gradient; returns what `closure` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        by_device: dict[torch.device, list[tuple[Tensor, int, dict[str, float]]]] = {}
        for group in self.param_groups:
            beta1, beta2 = map(float, group["betas"])
            settings = {"lr": float(group["lr"]), "beta1": beta1, "beta2": beta2}
            settings |= {name: float(group[name]) for name in ("eps", "weight_decay")}
            for param in group["params"]:
                if param.grad is not None:
                    by_device.setdefault(param.device, []).append((param, self._advance(param), settings))
        for rows in by_device.values():
            params = [param for param, *_ in rows]
            each = {name: [settings[name] for *_, settings in rows] for name in rows[0][-1]}
            fused_adam(
                params,
                [param.grad for param in params],
                [self.state[param]["exp_avg"] for param in params],
                [self.state[param]["exp_avg_sq"] for param in params],
                step=[number for _, number, _ in rows],
                lr=each["lr"],
                beta1=each["beta1"],
                beta2=each["beta2"],
                eps=each["eps"],
                weight_decay=each["weight_decay"],
                working_copies=[self._working_copies.get(param) for param in params],
                impl=self._impl,
            )
        return loss

    def _advance(self, param: Tensor) -> int:
        """Count the step; moments of a fresh parameter are zero, loaded ones are laid out as the parameter."""
        state = self.state[param]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(param, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(param, memory_format=torch.preserve_format)
        for key in ("exp_avg", "exp_avg_sq"):
            if state[key].stride() != param.stride():
                state[key] = torch.empty_like(param).copy_(state[key])
        state["step"] += 1
        return int(state["step"])
