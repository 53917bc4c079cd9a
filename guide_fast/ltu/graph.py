"""A step's gradients as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from guide_fast.ltu.step import Draws

WARM_UPS = 3  # launches that choose kernels, fill caches, before anything is recorded


class GraphedGradients:
    """`gradients(draws) -> numbers`, recorded once, replayed from static buffers for latents, places, camera.

    The gradients lie where the recording left them: whoever drops them (`zero_grad(set_to_none=True)`) has to record
    anew. Adam stays outside, one launch a step, since its factors change from step to step.
    """

    def __init__(self, gradients: Callable[[Draws], Tensor], draws: Draws) -> None:
        self._draws = Draws(
            draws.offsets.clone(), draws.kept.clone(), None if draws.camera is None else draws.camera.clone()
        )
        device = draws.offsets.device
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                gradients(self._draws)
        torch.cuda.current_stream(device).wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._numbers = gradients(self._draws)

    def __call__(self, draws: Draws) -> Tensor:
        """Numbers of the step with `draws`, which have the shapes of the recorded ones."""
        self._draws.offsets.copy_(draws.offsets)
        self._draws.kept.copy_(draws.kept)
        if draws.camera is not None and self._draws.camera is not None:
            self._draws.camera.copy_(draws.camera)
        self._graph.replay()
        return self._numbers
