"""A photo gives one face in FFHQ framing, or a refusal with the reason measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from guide_fast.align import align
from guide_fast.align.crop import ffhq_square
from guide_fast.config import AlignConfig
from guide_fast.errors import RefusedError, UsageError
from guide_fast.models.detection import Detection, Detector

CONFIG = AlignConfig()
FFHQ = np.array([(380, 480), (638, 478), (511, 646), (379, 739), (636, 743)], np.float32) / 1024


class FakeDetector(Detector):
    """Finds the same faces in every photo."""

    name = "fake"

    def __init__(self, *detections: Detection) -> None:
        super().__init__()
        self.detections = list(detections)

    def detect(self, image: NDArray[Any]) -> list[Detection]:
        return self.detections


def found(
    side: float = 512.0,
    corner: tuple[float, float] = (0.0, 0.0),
    score: float = 0.99,
    nose: float = 0.0,
    turn: float = 0.0,
) -> Detection:
    """A face that fills a square of `side` px, its nose moved aside by `nose` sides, turned by `turn` degrees."""
    angle = np.deg2rad(turn)
    points = FFHQ.copy()
    points[2, 0] += nose
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
    points = (points - 0.5) @ rotation.T + 0.5
    box = np.array([0.2, 0.15, 0.8, 0.9], np.float32)
    return Detection(box * side + np.tile(corner, 2), score, points * side + np.array(corner, np.float32))


@pytest.fixture
def photo() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    return Image.fromarray(noise).resize((512, 512), Image.Resampling.BICUBIC)


def refusal(photo: Image.Image, *detections: Detection, config: AlignConfig = CONFIG, face: int | None = None) -> str:
    with pytest.raises(RefusedError) as caught:
        align(photo, detector=FakeDetector(*detections), config=config, face=face)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_face_carries_where_it_was_found(photo: Image.Image) -> None:
    face = align(photo, detector=FakeDetector(found()), config=CONFIG, resolution=96)
    assert face.image.shape == (3, 96, 96)
    assert face.image.abs().max() <= 1 and face.image.isfinite().all()
    assert face.box == pytest.approx((102.4, 76.8, 409.6, 460.8))
    assert face.landmarks is not None and len(face.landmarks) == 5
    assert face.score == 0.99 and len(face.source_sha256) == 64


def test_no_face_is_refused(photo: Image.Image) -> None:
    assert "no face was found" in refusal(photo)


def test_several_faces_are_listed(photo: Image.Image) -> None:
    message = refusal(photo, found(400.0), found(200.0, (300.0, 300.0), score=0.95))
    assert "2 faces" in message and "--face" in message
    assert "1: box (80, 60, 320, 360), score 0.99, 240 px" in message
    assert "2: box (340, 330, 460, 480), score 0.95, 120 px" in message


def test_a_number_chooses_among_faces(photo: Image.Image) -> None:
    detector = FakeDetector(found(400.0), found(200.0, (300.0, 300.0)))
    face = align(photo, detector=detector, config=CONFIG, face=2, resolution=64)
    assert face.box == pytest.approx((340, 330, 460, 480))


@pytest.mark.parametrize("face", [-1, 0, 3])
def test_a_number_that_is_not_there_is_wrong_use(photo: Image.Image, face: int) -> None:
    with pytest.raises(UsageError, match=r"there is no face .* from 1 to 2"):
        align(photo, detector=FakeDetector(found(400.0), found(200.0)), config=CONFIG, face=face)


def test_uncertain_faces_do_not_count_beside_a_certain_one(photo: Image.Image) -> None:
    face = align(photo, detector=FakeDetector(found(), found(200.0, score=0.75)), config=CONFIG, resolution=64)
    assert face.score == 0.99


def test_low_score_is_refused(photo: Image.Image) -> None:
    message = refusal(photo, found(score=0.71))
    assert "0.71" in message and "align.min_score" in message


def test_small_face_is_refused(photo: Image.Image) -> None:
    message = refusal(photo, found(100.0))
    assert "60 px" in message and "align.min_face_px" in message


@pytest.mark.parametrize("nose", [-0.2, 0.2])
def test_face_turned_aside_is_refused(photo: Image.Image, nose: float) -> None:
    message = refusal(photo, found(nose=nose))
    assert "yaw" in message and "align.max_yaw" in message


@pytest.mark.parametrize("turn", [-75.0, 100.0])
def test_tilted_face_is_refused(photo: Image.Image, turn: float) -> None:
    message = refusal(photo, found(turn=turn))
    assert "roll" in message and "align.max_roll" in message


def test_tilted_face_within_limits_is_turned_upright(photo: Image.Image) -> None:
    upright = align(photo, detector=FakeDetector(found()), config=CONFIG, resolution=64)
    turned = align(
        photo.transpose(Image.Transpose.ROTATE_270),
        detector=FakeDetector(found(turn=90.0)),
        config=AlignConfig(max_roll=100.0),
        resolution=64,
    )
    assert (turned.image - upright.image).abs().max() < 0.05  # shrunk in 8 bits, along other axes


def test_blurred_face_is_refused(photo: Image.Image) -> None:
    message = refusal(photo.filter(ImageFilter.GaussianBlur(8)), found())
    assert "sharpness" in message and "align.min_sharpness" in message


def test_aligned_photo_is_taken_as_it_is(photo: Image.Image, tmp_path: Path) -> None:
    photo.save(tmp_path / "a.png")
    face = align(tmp_path / "a.png", detector=None, config=CONFIG, aligned=True, resolution=512)
    assert torch.equal(face.image, torch.from_numpy(np.array(photo)).permute(2, 0, 1) / 127.5 - 1)
    assert face.box is None and face.landmarks is None
    assert align(photo, detector=None, config=CONFIG, aligned=True, resolution=64).image.shape == (3, 64, 64)


def test_aligned_photo_must_be_square(photo: Image.Image) -> None:
    with pytest.raises(UsageError, match="512 x 500 px"):
        align(photo.crop((0, 0, 512, 500)), detector=None, config=CONFIG, aligned=True)


def test_unaligned_photo_needs_a_detector(photo: Image.Image) -> None:
    with pytest.raises(UsageError, match="needs a detector"):
        align(photo, detector=None, config=CONFIG)


@pytest.fixture(scope="module")
def detector(asset_or_skip: Any) -> Detector:
    from guide_fast.models.detection.mtcnn import ASSET_NAME, Mtcnn

    return Mtcnn(*asset_or_skip(ASSET_NAME))


def test_ffhq_framed_photos_stay_where_they_are(shared: Path, detector: Detector) -> None:
    shifts = []
    for path in sorted((shared / "photos" / "celebahq_1024").glob("*.jpg")):
        face = align(path, detector=detector, config=CONFIG, resolution=64)
        square = ffhq_square(np.array(face.landmarks))
        corners = square.place(np.array([(0, 0), (1024, 0), (0, 1024), (1024, 1024)]))
        shifts.append((corners - [(0, 0), (1, 0), (0, 1), (1, 1)]) * 1024)
    assert np.linalg.norm(shifts, axis=2).mean(axis=1).max() < 60  # one person's proportions
    assert np.abs(np.mean(shifts, axis=0)).max() < 6  # the rule


def test_shrunk_turned_photo_is_framed_alike(shared: Path, detector: Detector) -> None:
    path = shared / "photos" / "celebahq_1024" / "081970.jpg"
    reference = align(path, detector=detector, config=CONFIG, resolution=64).image
    with Image.open(path) as image:
        canvas = Image.new("RGB", (900, 700), "grey")
        canvas.paste(image.resize((500, 500), Image.Resampling.LANCZOS), (250, 80))
    turned = canvas.rotate(-15, Image.Resampling.BICUBIC, fillcolor="grey")
    face = align(turned, detector=detector, config=CONFIG, resolution=64).image
    assert (face - reference)[:, 16:56, 16:48].abs().mean() < 0.1


def test_photo_without_a_face_is_refused(photo: Image.Image, detector: Detector) -> None:
    with pytest.raises(RefusedError, match="no face"):
        align(photo.filter(ImageFilter.GaussianBlur(6)), detector=detector, config=CONFIG)


def test_two_people_in_one_photo_are_refused(shared: Path, detector: Detector) -> None:
    canvas = Image.new("RGB", (1100, 600), "grey")
    for place, name in ((20, "081970"), (560, "149128")):
        with Image.open(shared / "photos" / "celebahq_1024" / f"{name}.jpg") as image:
            canvas.paste(image.resize((512, 512), Image.Resampling.LANCZOS), (place, 40))
    with pytest.raises(RefusedError, match="2 faces"):
        align(canvas, detector=detector, config=CONFIG)
