"""Freezing: the one place where a network stops being trainable."""

from __future__ import annotations

from typing import Self, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def freeze(module: M) -> M:
    """Put `module` in eval mode with `requires_grad` off for every parameter, in place, and return it.

    Gradients still flow through the module to its input.
    """
    module.requires_grad_(False)
    return module.eval()


class FrozenNetwork(nn.Module):
    """A network that is never trained: `train()` leaves it in eval mode, also when a parent module trains.

    A subclass calls `settle` at the end of its constructor.
    """

    def settle(self) -> Self:
        """Freeze the network, with convolution weights laid out channels-last, which CPUs read faster."""
        for parameter in freeze(self).parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        return self

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode whatever `mode` says."""
        return super().train(False)
