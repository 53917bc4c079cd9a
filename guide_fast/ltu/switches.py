"""How a step is carried out on a device, with a refusal of what was asked for but cannot run there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from guide_fast.config import LtuConfig
from guide_fast.errors import UsageError
from guide_fast.kernels import FusedAdam
from guide_fast.ltu.terms import Networks


@dataclass(frozen=True)
class Switches:
    """The switches of `LtuConfig` that depend on the device."""

    half: bool
    identity_stream: bool
    cuda_graph: bool
    compiled: bool


def settle(config: LtuConfig, device: torch.device) -> Switches:
    """What runs on `device`; "auto" chooses. Raises UsageError where a switch is on that cannot run there."""
    cuda = device.type == "cuda"
    asked = {
        "cuda_graph": config.cuda_graph == "on",
        "identity_stream": config.identity_stream == "on",
        "precision": config.precision == "half",
    }
    for name, on in asked.items():
        if on and not cuda:
            said, why = getattr(config, name), "a CUDA device"
            if name == "precision":
                why += ", since CPUs have no fast half precision"
            raise UsageError(
                f"ltu.{name} = {said} needs {why}; the generator is on {device}: move it there, or set "
                f"ltu.{name} to auto"
            )
    if config.cuda_graph == "on" and config.compiled:
        raise UsageError("ltu.cuda_graph = on excludes ltu.compiled = true; turn one of them off")
    return Switches(
        half=cuda and config.precision != "fp32",
        identity_stream=cuda and config.identity_stream != "off",
        cuda_graph=cuda and config.cuda_graph != "off" and not config.compiled,
        compiled=config.compiled,
    )


def make_optimizer(parameters: list[nn.Parameter], config: LtuConfig) -> torch.optim.Optimizer:
    """Adam with the paper's settings, fused or PyTorch's own; both keep the same state."""
    return (FusedAdam if config.fused_adam else torch.optim.Adam)(parameters, lr=config.lr)


@contextmanager
def arranged(teacher: Any, networks: Networks, config: LtuConfig) -> Iterator[None]:
    """`teacher` with the networks as `frozen` and `channels_last` ask for, as they were afterwards."""
    frozen = (networks.identity, networks.perceptual)
    try:
        if not config.frozen:
            for network in frozen:
                network.requires_grad_(True)
        if not config.channels_last:
            for module in (teacher, *frozen):
                lay_out(module, channels_last=False)
        yield
    finally:
        if not config.frozen:
            for network in frozen:
                network.zero_grad(set_to_none=True)
                network.requires_grad_(False)
        if not config.channels_last:
            for module in (teacher, *frozen):
                lay_out(module, channels_last=True)


def lay_out(module: nn.Module, *, channels_last: bool) -> None:
    """Make generators lay out their activations so, frozen networks their weights, on which theirs depend."""
    switched = False
    for part in module.modules():
        if hasattr(part, "channels_last"):
            part.channels_last = channels_last  # type: ignore[assignment]
            switched = True
    if switched:
        return
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)


def learning_rate(config: LtuConfig, index: int) -> float:
    """Of step `index`: a linear rise over `warmup` steps, then constant or the falling half of a cosine."""
    if index < config.warmup:
        return config.lr * (index + 1) / config.warmup
    if config.schedule == "constant":
        return config.lr
    done = (index - config.warmup) / max(config.steps - config.warmup, 1)
    return config.lr * 0.5 * (1 + math.cos(math.pi * done))
