"""Photos of every kind become upright RGB; what is no usable photo is refused in one sentence."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from guide_fast.align.photo import read_photo
from guide_fast.config import AlignConfig
from guide_fast.errors import UsageError

CONFIG = AlignConfig()


def picture(width: int = 96, height: int = 80) -> Image.Image:
    """Red grows to the right, green downwards."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)[None, :]
    pixels[..., 1] = np.linspace(0, 255, height)[:, None]
    return Image.fromarray(pixels)


def refusal(photo: Path | str | Image.Image, config: AlignConfig = CONFIG) -> str:
    with pytest.raises(UsageError) as caught:
        read_photo(photo, config)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    return message


def header_only_png(width: int, height: int) -> bytes:
    """A PNG whose header promises pixels that are not there."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    data = zlib.compress(b"\0")
    body = struct.pack(">I", len(data)) + b"IDAT" + data + struct.pack(">I", zlib.crc32(b"IDAT" + data))
    return b"\x89PNG\r\n\x1a\n" + chunk + body


@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("a.png", {}, 0),
        ("a.bmp", {}, 0),
        ("a.tiff", {}, 0),
        ("a.jpg", {"quality": 95}, 12),
        ("a.webp", {"lossless": True}, 0),
    ],
)
def test_file_is_read_as_rgb_with_its_hash(tmp_path: Path, name: str, options: dict[str, Any], tolerance: int) -> None:
    path = tmp_path / name
    picture().save(path, **options)
    image, sha256 = read_photo(path, CONFIG)
    assert image.mode == "RGB" and image.size == (96, 80)
    assert np.abs(np.asarray(image).astype(int) - np.asarray(picture())).max() <= tolerance
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_photo(str(path), CONFIG).sha256 == sha256


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path: Path, orientation: int) -> None:
    turned = {
        1: [], 2: [Image.Transpose.FLIP_LEFT_RIGHT], 3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM], 5: [Image.Transpose.TRANSPOSE], 6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE], 8: [Image.Transpose.ROTATE_270],
    }  # fmt: skip
    stored = picture()
    for step in turned[orientation]:
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    image, _ = read_photo(tmp_path / "a.png", CONFIG)
    assert np.array_equal(np.asarray(image), np.asarray(picture()))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    stored = picture().convert(mode)
    stored.save(tmp_path / "a.png")
    image, _ = read_photo(tmp_path / "a.png", CONFIG)
    assert image.mode == "RGB" and np.array_equal(np.asarray(image), np.asarray(stored.convert("RGB")))


def test_sixteen_bits_are_scaled_not_cut(tmp_path: Path) -> None:
    values = np.linspace(0, 65_535, 64 * 64).astype(np.uint16).reshape(64, 64)
    for name in ("a.png", "a.tiff"):
        Image.fromarray(values).save(tmp_path / name)
        pixels = np.asarray(read_photo(tmp_path / name, CONFIG).image)
        assert np.abs(pixels[..., 0] - values / 257).max() <= 1
        assert np.ptp(pixels, axis=2).max() == 0


def test_transparency_is_composited_on_white(tmp_path: Path) -> None:
    stored = picture().convert("RGBA")
    stored.putalpha(Image.linear_gradient("L").resize(stored.size))
    stored.save(tmp_path / "a.png")
    pixels = np.asarray(read_photo(tmp_path / "a.png", CONFIG).image)
    assert pixels[0].min() >= 253
    assert np.abs(pixels[-1].astype(int) - np.asarray(picture())[-1]).max() <= 3


def test_transparent_palette_entry_becomes_white(tmp_path: Path) -> None:
    stored = Image.new("P", (64, 64), 3)
    stored.putpalette([0, 0, 0] * 4)
    stored.save(tmp_path / "a.png", transparency=3)
    assert np.asarray(read_photo(tmp_path / "a.png", CONFIG).image).min() == 255


def test_image_in_memory_is_hashed_by_its_pixels() -> None:
    image, sha256 = read_photo(picture(), CONFIG)
    assert image.size == (96, 80)
    assert sha256 == read_photo(picture(), CONFIG).sha256 != read_photo(picture(80, 96), CONFIG).sha256


def test_missing_file_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "no.png") in refusal(tmp_path / "no.png")
    picture().save(tmp_path / "a.png")
    assert "does not exist" in refusal(tmp_path / "a.png" / "b.png")
    assert "cannot be opened" in refusal(str(tmp_path / ("x" * 300)))
    assert "cannot be opened" in refusal("a\0b")


def test_folder_is_named(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)


@pytest.mark.parametrize("where", ["access", "open"])
def test_missing_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    path = tmp_path / "a.png"
    picture().save(path)
    if where == "access":
        monkeypatch.setattr("os.access", lambda path, mode: False)
    else:

        def refuse(*args: object, **kwargs: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
    assert "permission denied" in refusal(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"hello, this is a text about a photo", "no image"),
        (b"\x89PNG\r\n\x1a\n", "no image"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
    ],
    ids=["empty", "text", "signature", "heic"],
)
def test_file_that_is_no_image_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    message = refusal(path)
    assert words in message and str(path) in message


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff", "bmp"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_truncated_file_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)
    Image.fromarray(noise).save(buffer, kind)
    (tmp_path / "a").write_bytes(buffer.getvalue()[: int(share * len(buffer.getvalue()))])
    assert str(tmp_path / "a") in refusal(tmp_path / "a")


def test_too_small_image_is_refused(tmp_path: Path) -> None:
    picture(1, 1).save(tmp_path / "a.png")
    message = refusal(tmp_path / "a.png")
    assert "1 x 1 px" in message and "64" in message


@pytest.mark.parametrize("size", [(20_001, 100), (100, 20_001)])
def test_too_large_image_is_refused_by_its_header(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "a.png").write_bytes(header_only_png(*size))
    message = refusal(tmp_path / "a.png")
    assert "20001" in message and "align.max_image_px" in message


def test_decompression_bomb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(header_only_png(19_000, 19_000))
    assert "too large to decode safely" in refusal(tmp_path / "a.png")


def test_cmyk_is_refused(tmp_path: Path) -> None:
    picture().convert("CMYK").save(tmp_path / "a.jpg")
    message = refusal(tmp_path / "a.jpg")
    assert "CMYK" in message and "RGB" in message


def test_floating_point_is_refused() -> None:
    assert "floating point" in refusal(picture().convert("F"))


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tiff"])
def test_animation_is_refused_with_its_number_of_frames(tmp_path: Path, kind: str) -> None:
    frames = [picture().rotate(90 * i) for i in range(3)]
    frames[0].save(tmp_path / f"a.{kind}", save_all=True, append_images=frames[1:])
    assert "3 frames" in refusal(tmp_path / f"a.{kind}")
