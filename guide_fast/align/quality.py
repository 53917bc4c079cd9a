"""Measurements that say whether a photographed face is good enough to act on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

SHARPNESS_SIZE = 256  # px, at which `sharpness` is calibrated
# A nose tip stands about half the distance of the eyes in front of the plane through eyes and mouth.
NOSE_DEPTH = 0.5


def sharpness(image: Tensor) -> float:
    """Variance of the Laplacian of an aligned face [3, 256, 256] in [-1, 1], in grey values 0 to 255.

    Measured over the middle three quarters: a background out of focus says nothing about the face.
    """
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=image.dtype, device=image.device)
    grey = ((image * weights[:, None, None]).sum(dim=0) * 127.5 + 127.5)[None, None]
    edge = SHARPNESS_SIZE // 8
    grey = grey[:, :, edge:-edge, edge:-edge]
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]], dtype=image.dtype, device=image.device)
    return F.conv2d(grey, kernel[None, None]).var().item()


def roll(landmarks: NDArray[Any]) -> float:
    """Angle of the line through the eyes in degrees, positive clockwise as seen."""
    x, y = (float(value) for value in np.asarray(landmarks)[1] - np.asarray(landmarks)[0])
    return math.degrees(math.atan2(y, x))


def yaw(landmarks: NDArray[Any]) -> float:
    """Turn of the head in degrees from five landmarks [5, 2], positive towards the right of the image.

    With the eyes e apart in a frontal view and the nose tip e * NOSE_DEPTH in front of the face's plane, a turn by t
    shows the eyes e * cos(t) apart and the nose e * NOSE_DEPTH * sin(t) beside the midline, so that
    tan(t) = (nose / eyes) / NOSE_DEPTH. Good to about ten degrees, for faces differ.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
    across = points[1] - points[0]
    distance = max(float(np.linalg.norm(across)), 1e-9)
    axis = across / distance
    middle = eyes + (mouth - eyes) * 0.5
    return math.degrees(math.atan(float((points[2] - middle) @ axis) / distance / NOSE_DEPTH))
