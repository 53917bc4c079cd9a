"""Records a function as a CUDA graph, to be replayed without the host."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from guide_fast.bench.case import Function

WARM_UP = 3  # calls that compile, choose, allocate before the recording


def captured(function: Function, inputs: Sequence[Tensor]) -> Function:
    """`function`, recorded on copies of `inputs`: a call copies its arguments there, replays, returns the same tensor.

    Raises whatever a function raises that cannot be recorded (it waits for the device, or copies from the host).
    """
    held = [t.clone() for t in inputs]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            function(*held)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = function(*held)

    def replay(*arguments: Tensor) -> Tensor:
        for kept, new in zip(held, arguments, strict=True):
            kept.copy_(new)
        graph.replay()
        return out

    return replay
