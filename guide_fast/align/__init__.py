"""Alignment: from a photo to one face in FFHQ framing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from guide_fast.align.crop import cut_out, ffhq_square
from guide_fast.align.photo import Photo, read_photo
from guide_fast.align.quality import SHARPNESS_SIZE, roll, sharpness, yaw
from guide_fast.artifacts import Face
from guide_fast.config import AlignConfig
from guide_fast.errors import RefusedError, UsageError
from guide_fast.models.detection import Detection, Detector

__all__ = ["Photo", "align", "read_photo"]


def align(
    photo: Path | str | Image.Image,
    *,
    detector: Detector | None,
    config: AlignConfig,
    face: int | None = None,
    aligned: bool = False,
    resolution: int = 1024,
) -> Face:
    """The face of the photo, [3, resolution, resolution] in [-1, 1], FFHQ framing.

    `face` picks one of several, counted from 1 in the order of size. `aligned` takes the photo as FFHQ framed already:
    it has to be square, nothing is detected (`detector` may be None) or measured.

    Raises UsageError for a photo that cannot be read or a `face` that is not there; RefusedError where a person would
    have to guess: no face, several, or one too small, blurred, turned away or doubtful for `config`.
    """
    image, sha256 = read_photo(photo, config)
    if aligned:
        return Face(_whole(image, resolution), sha256)
    if detector is None:
        raise UsageError("a photo that is not aligned needs a detector; pass one, or aligned=True for FFHQ framing")
    found = _chosen(detector.detect(np.array(image)), face, config)
    _check_size_and_pose(found, config)
    square = ffhq_square(found.landmarks)
    measured = sharpness(cut_out(image, square, SHARPNESS_SIZE))
    if measured < config.min_sharpness:
        raise RefusedError(
            f"the face is blurred: sharpness {measured:.1f}, below {config.min_sharpness} (align.min_sharpness); "
            "use a sharper or larger photo"
        )
    x0, y0, x1, y1 = (float(edge) for edge in found.box)
    landmarks = tuple((float(x), float(y)) for x, y in found.landmarks)
    return Face(cut_out(image, square, resolution), sha256, (x0, y0, x1, y1), landmarks, found.score)


def _whole(image: Image.Image, resolution: int) -> torch.Tensor:
    if image.width != image.height:
        raise UsageError(
            f"an aligned photo must be square, this one is {image.width} x {image.height} px; "
            "leave out --aligned to have the face found"
        )
    if image.width != resolution:
        image = image.resize((resolution, resolution), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().contiguous() / 127.5 - 1


def _chosen(detections: list[Detection], face: int | None, config: AlignConfig) -> Detection:
    sure = [detection for detection in detections if detection.score >= config.min_score]
    if not detections:
        raise RefusedError("no face was found; use a photo that shows the face upright, from the front")
    if not sure:
        best = max(detection.score for detection in detections)
        raise RefusedError(
            f"no face is certain: the best score is {best:.2f}, below {config.min_score} (align.min_score); "
            "use a clearer photo, or --aligned when it is already in FFHQ framing"
        )
    if face is None and len(sure) > 1:
        raise RefusedError(f"{len(sure)} faces were found; choose one with --face N: {_listed(sure)}")
    if face is not None and not 1 <= face <= len(sure):
        raise UsageError(f"there is no face {face}; choose from 1 to {len(sure)}: {_listed(sure)}")
    return sure[(face or 1) - 1]


def _listed(detections: list[Detection]) -> str:
    return "; ".join(
        f"{number}: box ({', '.join(f'{edge:.0f}' for edge in detection.box)}), score {detection.score:.2f}, "
        f"{_side(detection):.0f} px"
        for number, detection in enumerate(detections, 1)
    )


def _check_size_and_pose(found: Detection, config: AlignConfig) -> None:
    if _side(found) < config.min_face_px:
        raise RefusedError(
            f"the face is {_side(found):.0f} px large, less than {config.min_face_px} (align.min_face_px); "
            "use a larger photo or a closer one"
        )
    for name, angle, limit in (
        ("turned aside (yaw)", yaw(found.landmarks), config.max_yaw),
        ("tilted (roll)", roll(found.landmarks), config.max_roll),
    ):
        if abs(angle) > limit:
            setting = "max_yaw" if "yaw" in name else "max_roll"
            raise RefusedError(
                f"the face is {name} by {abs(angle):.0f} degrees, more than {limit:g} (align.{setting}); "
                "use a photo from the front"
            )


def _side(detection: Detection) -> float:
    """The shorter side of the box in pixels."""
    x0, y0, x1, y1 = (float(edge) for edge in detection.box)
    return min(x1 - x0, y1 - y0)
