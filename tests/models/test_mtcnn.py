"""The detector's networks give what facenet-pytorch's give; detection finds faces where they are."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from guide_fast.errors import IntegrityError, UsageError
from guide_fast.models.detection import Detection, load_detector
from guide_fast.models.detection.mtcnn import NETWORKS, Mtcnn, convert

Files = Callable[[str], dict[str, Path]]
MEAN_FACE = np.array([[380, 480], [638, 478], [511, 646], [379, 739], [636, 743]]) / 1024  # FFHQ framing


@pytest.fixture(scope="module")
def detector(source_files: Files) -> Mtcnn:
    return Mtcnn(*convert(source_files("mtcnn")))


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """facenet_pytorch.models.mtcnn alone, its detection code (which needs torchvision) left out."""
    found = importlib.util.find_spec("facenet_pytorch")
    if found is None or not found.submodule_search_locations:
        pytest.skip("facenet-pytorch is absent: pip install --no-deps facenet-pytorch==2.6.0")
    folder = Path(found.submodule_search_locations[0]) / "models"
    for package, path in (("reference_mtcnn", folder), ("reference_mtcnn.utils", folder / "utils")):
        stub = ModuleType(package)
        stub.__path__ = [str(path)]
        monkeypatch.setitem(sys.modules, package, stub)
    detection: Any = ModuleType("reference_mtcnn.utils.detect_face")
    detection.detect_face = detection.extract_face = None
    monkeypatch.setitem(sys.modules, detection.__name__, detection)
    spec = importlib.util.spec_from_file_location("reference_mtcnn.mtcnn", folder / "mtcnn.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module


def pixels(image: Tensor) -> np.ndarray:
    """[1, 3, H, W] in [-1, 1] -> uint8 [H, W, 3]."""
    return (image[0].permute(1, 2, 0) * 127.5 + 127.5).round().clamp(0, 255).byte().contiguous().numpy()


@pytest.fixture
def face(shared: Path, photo: Callable[..., Tensor]) -> Callable[[int], np.ndarray]:
    file = sorted((shared / "photos/celebahq_1024").glob("*.jpg"))[1]
    return lambda size: pixels(photo(file, size))


def test_proposal_network_equals_facenet_pytorch(
    detector: Mtcnn, reference: ModuleType, smooth_images: Callable[..., Tensor]
) -> None:
    images = smooth_images(1, 61)
    with torch.no_grad():
        offsets, probability = reference.PNet().eval()(images)
        found_probability, found_offsets = detector.pnet(images)
    torch.testing.assert_close(found_probability, probability[:, 1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found_offsets, offsets, rtol=1e-5, atol=1e-6)


def test_window_networks_equal_facenet_pytorch(
    detector: Mtcnn, reference: ModuleType, smooth_images: Callable[..., Tensor]
) -> None:
    with torch.no_grad():
        offsets, probability = reference.RNet().eval()(smooth_images(5, 24))
        found = detector.rnet(smooth_images(5, 24))
        torch.testing.assert_close(found[0], probability[:, 1], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found[1], offsets, rtol=1e-5, atol=1e-6)
        offsets, landmarks, probability = reference.ONet().eval()(smooth_images(5, 48))
        found = detector.onet(smooth_images(5, 48))
        torch.testing.assert_close(found[0], probability[:, 1], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found[1], offsets, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found[2], torch.stack([landmarks[:, :5], landmarks[:, 5:]], dim=2))


def test_each_photo_shows_one_face_with_landmarks_where_its_framing_puts_them(
    detector: Mtcnn, shared: Path, photo: Callable[..., Tensor]
) -> None:
    for file in sorted((shared / "photos/celebahq_1024").glob("*.jpg")):
        (detection,) = detector.detect(pixels(photo(file, 512)))
        assert detection.score > 0.9
        assert np.abs(detection.landmarks / 512 - MEAN_FACE).max() < 0.06, file.name
        (x0, y0), (x1, y1) = detection.box.reshape(2, 2)
        assert (detection.landmarks >= (x0, y0)).all() and (detection.landmarks <= (x1, y1)).all()


@pytest.mark.parametrize("size", [32, 48, 200, 700, 1500])
def test_a_face_is_found_at_any_size(size: int, detector: Mtcnn, face: Callable[[int], np.ndarray]) -> None:
    (detection,) = detector.detect(face(size))
    assert np.abs(detection.landmarks / size - MEAN_FACE).max() < 0.08


def test_image_8000_px_wide_takes_about_a_second(detector: Mtcnn, face: Callable[[int], np.ndarray]) -> None:
    image = np.repeat(np.repeat(face(1000), 8, axis=0), 8, axis=1)
    start = time.perf_counter()
    (detection,) = detector.detect(image)
    assert time.perf_counter() - start < 5  # 0.4 s on an idle core; slack for a busy machine
    assert np.abs(detection.landmarks / 8000 - MEAN_FACE).max() < 0.06


def test_faces_come_largest_first(detector: Mtcnn, face: Callable[[int], np.ndarray]) -> None:
    image = np.full((400, 640, 3), 110, dtype=np.uint8)
    image[100:300, 10:210] = face(200)
    image[0:400, 240:640] = face(400)
    first, second = detector.detect(image)
    assert first.area > 2 * second.area
    assert first.box[0] > 240 > second.box[2]


def test_face_cut_by_the_border_is_found(detector: Mtcnn, face: Callable[[int], np.ndarray]) -> None:
    (detection,) = detector.detect(np.ascontiguousarray(face(400)[:, 90:]))
    assert detection.score > 0.7


def test_pictures_without_a_face_give_nothing(detector: Mtcnn, smooth_images: Callable[..., Tensor]) -> None:
    assert detector.detect(np.zeros((100, 300, 3), dtype=np.uint8)) == []
    assert detector.detect(np.zeros((33, 4000, 3), dtype=np.uint8)) == []
    assert detector.detect(pixels(smooth_images(1, 128))) == []


def test_demo_photo_shows_its_one_face(detector: Mtcnn, demo_photo: Path, photo: Callable[..., Tensor]) -> None:
    (detection,) = detector.detect(pixels(photo(demo_photo, 512)))
    left_eye, right_eye, nose, *_ = detection.landmarks
    assert left_eye[0] < nose[0] < right_eye[0]
    assert 170 < detection.box[0] < 200 and 50 < detection.box[1] < 80


def test_mirrored_face_has_mirrored_landmarks(detector: Mtcnn, face: Callable[[int], np.ndarray]) -> None:
    (plain,), (mirrored,) = detector.detect(face(300)), detector.detect(np.ascontiguousarray(face(300)[:, ::-1]))
    expected = plain.landmarks[[1, 0, 2, 4, 3]] * [-1, 1] + [300, 0]
    assert np.abs(mirrored.landmarks - expected).max() < 9


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((50, 50), np.uint8),
        np.zeros((50, 50, 4), np.uint8),
        np.zeros((50, 50, 3)),
        np.zeros((0, 9, 3), np.uint8),
    ],
    ids=["grey", "alpha", "float", "empty"],
)
def test_other_arrays_are_refused(image: np.ndarray, detector: Mtcnn) -> None:
    with pytest.raises(UsageError, match="uint8"):
        detector.detect(image)


def test_area_is_that_of_the_box() -> None:
    assert Detection(np.array([1, 2, 4, 7], np.float32), 1.0, np.zeros((5, 2), np.float32)).area == 15


def test_weights_that_are_not_tensors_are_refused(tmp_path: Path) -> None:
    for network in NETWORKS:
        torch.save({"weight": torch.zeros(1), "note": "text"}, tmp_path / f"{network}.pt")
    with pytest.raises(IntegrityError, match="note"):
        convert({f"{network}.pt": tmp_path / f"{network}.pt" for network in NETWORKS})


def test_load_detector_gives_a_frozen_network(asset_or_skip: Callable[[str], object]) -> None:
    asset_or_skip("mtcnn")
    detector = load_detector()
    assert not detector.training and not any(parameter.requires_grad for parameter in detector.parameters())
