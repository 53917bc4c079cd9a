"""MTCNN, a cascade of three small networks that finds faces with five landmarks (arXiv 1604.02878)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from guide_fast.errors import IntegrityError, UsageError
from guide_fast.models.detection import Detection, Detector

ASSET_NAME = "mtcnn"
NETWORKS = ("pnet", "rnet", "onet")

LONGEST_SIDE = 640  # px; larger images are reduced first, which bounds the pyramid
SHORTEST_SIDE = 160  # px; smaller images are enlarged, so that their faces fill the cascade's windows
SMALLEST_FACE = 20.0  # px in the resized image
PYRAMID_STEP = 2**-0.5
CELL, STRIDE = 12, 2  # px: window of the first network, step between its windows
THRESHOLDS = (0.6, 0.7, 0.7)  # probability of a face that a window needs after each network
OVERLAP_IN_LEVEL, OVERLAP = 0.5, 0.7  # intersection over union above which the weaker box goes
CROP_BATCH = 256  # windows that go through a network at once

Floats = NDArray[np.float64]


class Mtcnn(Detector):
    """MTCNN with the weights of facenet-pytorch (MIT). Build it from what `convert` returns.

    The first network proposes windows over an image pyramid, the second sifts them, the third decides, and only its
    probability becomes the score. An image of any size takes well under a second on one CPU core.
    """

    name = ASSET_NAME

    def __init__(self, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
        super().__init__()
        self.pnet = _ProposalNetwork(_part(tensors, "pnet"))
        self.rnet = _WindowNetwork(_part(tensors, "rnet"), size=24, pools=(3, 3, 0))
        self.onet = _WindowNetwork(_part(tensors, "onet"), size=48, pools=(3, 3, 2, 0))
        self.mean, self.scale = config["pixel_mean"], config["pixel_scale"]
        self.settle()

    @torch.inference_mode()
    def detect(self, image: NDArray[Any]) -> list[Detection]:
        """RGB uint8 [H, W, 3], 32 px or more on a side -> faces, largest first. Raises UsageError for other arrays."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or min(image.shape[:2]) < 1:
            raise UsageError(f"detection needs uint8 [H, W, 3], got {image.dtype} {list(image.shape)}; convert to RGB")
        pixels, zoom = self._resized(image)
        boxes, landmarks, scores = self._cascade(pixels)
        detections = [
            Detection((box / zoom).astype(np.float32).reshape(4), float(score), (points / zoom).astype(np.float32))
            for box, points, score in zip(boxes, landmarks, scores, strict=True)
        ]
        return sorted(detections, key=lambda detection: detection.area, reverse=True)

    def _resized(self, image: NDArray[Any]) -> tuple[Tensor, Floats]:
        """The image as the networks see it, [1, 3, h, w], with the zoom (x, y) that was applied."""
        height, width = image.shape[:2]
        zoom = min(max(SHORTEST_SIDE / min(height, width), 1.0), LONGEST_SIDE / max(height, width))
        shape = [max(round(side * zoom), 1) for side in (height, width)]
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
        if zoom < 1:  # in uint8: a float copy of a large photo costs more than the whole detection
            pixels = F.interpolate(pixels, size=shape, mode="bilinear", antialias=True)
        pixels = pixels.to(self.pnet.face.weight)
        if zoom > 1:
            pixels = F.interpolate(pixels, size=shape, mode="bilinear")
        x, y = shape[1] / width, shape[0] / height
        return (pixels - self.mean) * self.scale, np.array([x, y])

    def _cascade(self, pixels: Tensor) -> tuple[Floats, Floats, Floats]:
        """Boxes [K, 2, 2] (corner, xy), landmarks [K, 5, 2], scores [K] in pixels of the resized image."""
        boxes, scores = self._propose(pixels)
        boxes, scores, _ = self._sift(self.rnet, pixels, _squared(boxes), THRESHOLDS[1])
        keep = _strongest(boxes, scores, OVERLAP)
        boxes, scores, points = self._sift(self.onet, pixels, _squared(boxes[keep]), THRESHOLDS[2])
        # a face inside another one's box is a second answer for the same face, so the smaller area is what counts
        keep = _strongest(boxes, scores, OVERLAP, of_smaller=True)
        return boxes[keep], points[keep], scores[keep]

    def _propose(self, pixels: Tensor) -> tuple[Floats, Floats]:
        height, width = pixels.shape[2:]
        found: list[tuple[Floats, Floats]] = []
        level = CELL / SMALLEST_FACE
        while min(height, width) * level >= CELL:
            shape = [math.ceil(height * level), math.ceil(width * level)]
            probability, offsets = self.pnet(F.interpolate(pixels, size=shape, mode="bilinear", antialias=True))
            rows, columns = torch.nonzero(probability[0] >= THRESHOLDS[0], as_tuple=True)
            scores = probability[0, rows, columns].double().cpu().numpy()
            corner = torch.stack([columns, rows], dim=1).double().cpu().numpy() * STRIDE  # x, y
            boxes = np.stack([corner, corner + CELL], axis=1) * [width / shape[1], height / shape[0]]
            keep = _strongest(boxes, scores, OVERLAP_IN_LEVEL)
            moves = offsets[0, :, rows, columns].T.double().cpu().numpy()
            found.append((_moved(boxes[keep], moves[keep]), scores[keep]))
            level *= PYRAMID_STEP
        boxes = np.concatenate([np.empty((0, 2, 2)), *(boxes for boxes, _ in found)])
        scores = np.concatenate([np.empty(0), *(scores for _, scores in found)])
        keep = _strongest(boxes, scores, OVERLAP)
        return boxes[keep], scores[keep]

    def _sift(
        self, network: _WindowNetwork, pixels: Tensor, boxes: Floats, threshold: float
    ) -> tuple[Floats, Floats, Floats]:
        """The square boxes in which `network` sees a face, as it corrects them; scores; landmarks where it has them."""
        results = [
            network(torch.cat([_window(pixels, box, network.size) for box in boxes[first : first + CROP_BATCH]]))
            for first in range(0, len(boxes), CROP_BATCH)
        ]
        if not results:
            return boxes, np.empty(0), np.empty((0, 5, 2))
        scores, moves, points = (torch.cat(parts).double().cpu().numpy() for parts in zip(*results, strict=True))
        keep = scores >= threshold
        boxes, scores, moves, points = boxes[keep], scores[keep], moves[keep], points[keep]
        sides = boxes[:, 1] - boxes[:, 0]  # [K, 2]
        landmarks = boxes[:, None, 0] + points * sides[:, None]
        return _moved(boxes, moves), scores, landmarks


class _ProposalNetwork(nn.Module):
    """P-net: [1, 3, H, W] -> probability of a face [1, h, w] and box offsets [1, 4, h, w] for windows of 12 px."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(_convolution(tensors, f"conv{i}") for i in (1, 2, 3))
        self.slopes = nn.ModuleList(_prelu(tensors, f"prelu{i}") for i in (1, 2, 3))
        self.face = _convolution(tensors, "conv4_1")
        self.offsets = _convolution(tensors, "conv4_2")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for i, (convolution, slope) in enumerate(zip(self.convolutions, self.slopes, strict=True)):
            x = slope(convolution(x))
            if i == 0:
                x = F.max_pool2d(x, 2, 2, ceil_mode=True)
        return self.face(x).softmax(dim=1)[:, 1], self.offsets(x)


class _WindowNetwork(nn.Module):
    """R-net or O-net: [K, 3, size, size] -> probability [K], box offsets [K, 4], landmarks [K, 5, 2] (R-net: zeros).

    `pools` is the window of the max pooling (stride 2) after each convolution, 0 for none. Offsets and landmarks are in
    fractions of the window.
    """

    def __init__(self, tensors: Mapping[str, Tensor], *, size: int, pools: tuple[int, ...]) -> None:
        super().__init__()
        self.size, self.pools = size, pools
        count = len(pools)
        self.convolutions = nn.ModuleList(_convolution(tensors, f"conv{i}") for i in range(1, count + 1))
        self.slopes = nn.ModuleList(_prelu(tensors, f"prelu{i}") for i in range(1, count + 2))
        self.dense = _linear(tensors, f"dense{count + 1}")
        self.face = _linear(tensors, f"dense{count + 2}_1")
        self.offsets = _linear(tensors, f"dense{count + 2}_2")
        points = f"dense{count + 2}_3"
        self.points = _linear(tensors, points) if f"{points}.weight" in tensors else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        for convolution, slope, pool in zip(self.convolutions, self.slopes, self.pools, strict=False):
            x = slope(convolution(x))
            if pool:
                x = F.max_pool2d(x, pool, 2, ceil_mode=True)
        x = x.permute(0, 3, 2, 1).flatten(1)  # the published dense layer counts columns, rows, channels
        x = self.slopes[-1](self.dense(x))
        points = x.new_zeros(len(x), 10) if self.points is None else self.points(x)
        return self.face(x).softmax(dim=1)[:, 1], self.offsets(x), points.unflatten(1, (2, 5)).mT


def convert(files: Mapping[str, Path]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """`pnet.pt`, `rnet.pt`, `onet.pt` (state dicts) -> float32 tensors named `<network>.<layer>`, config.

    Raises IntegrityError when a file holds anything but tensors.
    """
    tensors: dict[str, Tensor] = {}
    for network in NETWORKS:
        state = torch.load(files[f"{network}.pt"], map_location="cpu", weights_only=True)
        for name, value in state.items():
            if not isinstance(value, Tensor):
                raise IntegrityError(f"{network}.pt holds {type(value).__name__} under {name!r}, not a tensor")
            tensors[f"{network}.{name}"] = value.float().contiguous()
    return tensors, {"pixel_mean": 127.5, "pixel_scale": 1 / 128}


def _window(pixels: Tensor, box: Floats, size: int) -> Tensor:
    """A square box cut out and resampled, [1, 3, size, size]; what lies outside the image is mid grey (0)."""
    (left, top), (right, bottom) = np.stack([np.floor(box[0]), np.ceil(box[1])]).astype(int)
    height, width = pixels.shape[2:]
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    inside = pixels[:, :, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    padding = (max(-left, 0), max(right - width, 0), max(-top, 0), max(bottom - height, 0))
    if any(padding):
        inside = F.pad(inside, padding)
    return F.interpolate(inside, size=(size, size), mode="area")


def _moved(boxes: Floats, offsets: Floats) -> Floats:
    """Boxes [K, 2, 2] moved by offsets [K, 4] (x0, y0, x1, y1) in fractions of their sides."""
    sides = boxes[:, 1] - boxes[:, 0]
    return boxes + offsets.reshape(-1, 2, 2) * sides[:, None]


def _squared(boxes: Floats) -> Floats:
    """The squares about the same centres with the longer side."""
    centres = boxes.mean(axis=1, keepdims=True)
    half = (boxes[:, 1] - boxes[:, 0]).max(axis=1)[:, None, None] / 2
    return centres + half * np.array([[-1.0, -1.0], [1.0, 1.0]])


def _strongest(boxes: Floats, scores: Floats, overlap: float, *, of_smaller: bool = False) -> NDArray[np.intp]:
    """Indices of the boxes that stay when each, strongest first, removes what overlaps it (non-maximum suppression).

    The overlap is intersection over union, or over the smaller box.
    """
    areas = np.clip(boxes[:, 1] - boxes[:, 0], 0, None).prod(axis=1)
    order = np.argsort(-scores, kind="stable")
    kept = []
    while len(order):
        first, rest = order[0], order[1:]
        kept.append(first)
        sides = np.minimum(boxes[rest, 1], boxes[first, 1]) - np.maximum(boxes[rest, 0], boxes[first, 0])
        shared = np.clip(sides, 0, None).prod(axis=1)
        total = np.minimum(areas[rest], areas[first]) if of_smaller else areas[rest] + areas[first] - shared
        order = rest[shared <= overlap * total]
    return np.array(kept, dtype=np.intp)


def _part(tensors: Mapping[str, Tensor], network: str) -> dict[str, Tensor]:
    prefix = f"{network}."
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _convolution(tensors: Mapping[str, Tensor], name: str) -> nn.Conv2d:
    weight = tensors[f"{name}.weight"]
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[-1])
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(tensors[f"{name}.bias"])
    return layer


def _linear(tensors: Mapping[str, Tensor], name: str) -> nn.Linear:
    weight = tensors[f"{name}.weight"]
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(tensors[f"{name}.bias"])
    return layer


def _prelu(tensors: Mapping[str, Tensor], name: str) -> nn.PReLU:
    layer = nn.PReLU(len(tensors[f"{name}.weight"]))
    layer.weight = nn.Parameter(tensors[f"{name}.weight"])
    return layer
