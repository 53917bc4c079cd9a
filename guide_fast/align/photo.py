"""Photos from disk or memory, as upright RGB."""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from guide_fast.config import AlignConfig
from guide_fast.errors import UsageError

# What Pillow's decoders raise on damaged files.
_DAMAGE = (OSError, SyntaxError, EOFError, ValueError, KeyError, IndexError, TypeError, OverflowError, ArithmeticError)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")


class Photo(NamedTuple):
    """An upright RGB image with the sha256 of the bytes it came from."""

    image: Image.Image
    sha256: str


def read_photo(photo: Path | str | Image.Image, config: AlignConfig) -> Photo:
    """The photo as 8-bit RGB, turned as its EXIF orientation says, transparency composited on white.

    `sha256` is the file's; of an image in memory, that of its RGB pixels. The size is checked before decoding. Raises
    UsageError for a missing or unreadable file, a folder, a file that is no image or is truncated, an image too small,
    too large, in CMYK or floating point, or with several frames.
    """
    if isinstance(photo, Image.Image):
        _check_header(photo, "the image", config)
        image = _upright_rgb(photo, "the image")
        return Photo(image, hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest())
    path = Path(photo)
    _check_file(path)
    try:
        with path.open("rb") as file:
            image = _decoded(file, path, config)
            file.seek(0)
            return Photo(image, hashlib.file_digest(file, "sha256").hexdigest())
    except PermissionError:
        raise _no_permission(path) from None


def _check_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{path} does not exist; give the path of a photo") from None
    except PermissionError:
        raise _no_permission(path) from None
    except (OSError, ValueError) as error:  # a name too long, a null byte
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{str(path)!r} cannot be opened ({reason}); give the path of a photo") from None
    if stat.S_ISDIR(mode):
        raise UsageError(f"{path} is a folder; give the path of one photo in it")
    if not stat.S_ISREG(mode):
        raise UsageError(f"{path} is no regular file; give the path of a photo")
    if not os.access(path, os.R_OK):
        raise _no_permission(path)


def _decoded(file: BinaryIO, path: Path, config: AlignConfig) -> Image.Image:
    head = file.read(32)
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is max_image_px
            image = Image.open(file)
    except Image.DecompressionBombError as error:
        raise UsageError(f"{path} is too large to decode safely ({error}); scale it down first") from None
    except PermissionError:
        raise
    except (UnidentifiedImageError, *_DAMAGE):
        raise UsageError(_not_an_image(path, head)) from None
    with image:
        _check_header(image, str(path), config)
        try:
            image.load()
        except Image.DecompressionBombError as error:
            raise UsageError(f"{path} is too large to decode safely ({error}); scale it down first") from None
        except _DAMAGE as error:
            raise UsageError(f"{path} is truncated or damaged ({error}); use an intact copy") from None
        return _upright_rgb(image, str(path))


def _check_header(image: Image.Image, name: str, config: AlignConfig) -> None:
    """Everything that the header tells, before any pixel is decoded."""
    width, height = image.size
    if max(width, height) > config.max_image_px:
        raise UsageError(
            f"{name} is {width} x {height} px, more than {config.max_image_px} on a side (align.max_image_px); "
            "scale it down first"
        )
    if min(width, height) < config.min_image_px:
        raise UsageError(
            f"{name} is {width} x {height} px, less than {config.min_image_px} on a side (align.min_image_px); "
            "use a larger photo"
        )
    if image.mode in ("CMYK", "LAB", "F"):
        known = {"CMYK": "CMYK (print colours)", "LAB": "L*a*b*", "F": "floating point"}[image.mode]
        raise UsageError(f"{name} is in {known}; save it as 8-bit RGB first")
    try:
        frames = getattr(image, "n_frames", 1)
    except _DAMAGE as error:
        raise UsageError(f"{name} is truncated or damaged ({error}); use an intact copy") from None
    if frames > 1 and image.format != "MPO":  # phones store a depth or gain map behind the photo
        raise UsageError(f"{name} is animated or has pages ({frames} frames); save the frame to use as a photo")


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode in _SIXTEEN_BIT:
            values = np.asarray(image).astype(np.int64).clip(0, 65_535)
            return Image.fromarray(((values * 255 + 32_767) // 65_535).astype(np.uint8)).convert("RGB")
        if "transparency" in image.info or image.getbands()[-1] in "Aa":
            image = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        return image.convert("RGB")
    except _DAMAGE as error:
        raise UsageError(f"{name} cannot be converted from {image.mode} to RGB ({error}); save it as RGB") from None


def _no_permission(path: Path) -> UsageError:
    return UsageError(f"{path} cannot be read (permission denied); change its permissions")


def _not_an_image(path: Path, head: bytes) -> str:
    if not head:
        return f"{path} is empty; use an intact copy of the photo"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return f"{path} is HEIC and no HEIC decoder is installed for Pillow; save it as JPEG or PNG first"
    return f"{path} is no image that Pillow can read; use a JPEG, PNG, WebP, TIFF or BMP file"
