"""Face detection: the contract of a detector, with the door that loads the default one."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guide_fast.models.frozen import FrozenNetwork


@dataclass(frozen=True, eq=False)
class Detection:
    """A face in an image, in pixels; (0, 0) is the upper left corner of the first pixel.

    A box may reach outside the image where the face does. Landmarks are ordered as seen in the image: left eye, right
    eye, nose, left corner of the mouth, right corner.
    """

    box: NDArray[np.float32]  # [4]: x0, y0, x1, y1
    score: float  # the detector's own probability of a face, in [0, 1]
    landmarks: NDArray[np.float32]  # [5, 2]: x, y

    @property
    def area(self) -> float:
        """Area of the box in square pixels."""
        x0, y0, x1, y1 = (float(edge) for edge in self.box)
        return (x1 - x0) * (y1 - y0)


class Detector(FrozenNetwork):
    """A frozen network that finds faces."""

    name: str

    @abstractmethod
    def detect(self, image: NDArray[Any]) -> list[Detection]:
        """RGB uint8 [H, W, 3] -> its faces, largest first; an empty list when there is none.

        Raises UsageError for any other array.
        """


def load_detector() -> Detector:
    """MTCNN with its pinned weights, frozen, on the CPU in float32."""
    from guide_fast import assets
    from guide_fast.models.detection.mtcnn import ASSET_NAME, Mtcnn

    return Mtcnn(*assets.load(ASSET_NAME))
