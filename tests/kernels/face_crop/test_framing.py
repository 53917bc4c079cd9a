"""The matrices of a framing: against PyTorch's resampling and the framing that the engine uses."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from guide_fast.kernels import Framing, KernelError, face_crop
from guide_fast.kernels.face_crop.framing import axes
from guide_fast.models import framing as engine
from guide_fast.models.identity import dlib_resnet, faceres, mobileface

BOX = (0.16, 0.94, 0.115, 0.895)


def image(resolution: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(2, 3, resolution, resolution, generator=torch.Generator().manual_seed(5), dtype=dtype) * 2 - 1


@pytest.mark.parametrize("resolution", [64, 101, 256])
@pytest.mark.parametrize(
    ("box", "size"), [(dlib_resnet.FFHQ_BOX, 150), (faceres.FFHQ_BOX, 224), (mobileface.FFHQ_BOX, 112)]
)
def test_crop_is_the_engine_framing_to_rounding(resolution: int, box: engine.Box, size: int) -> None:
    x = image(resolution, torch.float32)
    exact = engine.Framing(box, size)(x.double())
    # two passes of at most 2 * 2.3 + 2 taps on values up to 1, weights rounded once
    assert (face_crop(x, Framing(tuple(box), size)) - exact).abs().max() <= 16 * 2.0**-24


def test_arcface_is_pool_crop_pool() -> None:
    for resolution in (256, 512, 300):
        x = image(resolution)
        pooled = F.adaptive_avg_pool2d(x, 256)[:, :, 35:223, 32:220]
        want = F.adaptive_avg_pool2d(pooled, 112)
        assert torch.allclose(face_crop(x, Framing.arcface()), want, atol=1e-12)


def test_triangle_of_the_whole_image_is_antialiased_interpolation() -> None:
    x = image(40)
    want = F.interpolate(x, size=(17, 17), mode="bilinear", antialias=True)
    assert torch.allclose(face_crop(x, Framing((0, 1, 0, 1), 17)), want, atol=1e-12)


def test_bilinear_is_grid_sample() -> None:
    x = image(23)
    y0, y1, x0, x1 = BOX
    at = (torch.arange(9, dtype=torch.float64) + 0.5) / 9
    rows, columns = (low + (high - low) * at for low, high in ((y0, y1), (x0, x1)))
    grid = torch.stack(torch.meshgrid(columns * 2 - 1, rows * 2 - 1, indexing="xy"), dim=-1).expand(2, -1, -1, -1)
    want = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    assert torch.allclose(face_crop(x, Framing(BOX, 9, "bilinear")), want, atol=1e-12)


@pytest.mark.parametrize(
    ("framing", "network"),
    [
        (Framing.dlib(BOX), lambda pixels: (pixels - torch.tensor([122.782, 117.001, 104.298])[:, None, None]) / 256),
        (Framing.faceres(BOX), lambda p: p.flip(1) - torch.tensor([103.939, 116.779, 123.68])[:, None, None]),
        (Framing.mobileface(BOX), lambda pixels: pixels),
    ],
    ids=["dlib", "faceres", "mobileface"],
)
def test_pixels_are_those_the_network_takes(framing: Framing, network) -> None:
    x = image(64)
    crop = engine.Framing(BOX, framing.size)(x)
    assert torch.allclose(face_crop(x, framing), network(crop * 127.5 + 127.5), atol=1e-4)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("framing", [Framing(BOX, 9), Framing.arcface(), Framing((0.4, 0.5, 0, 1), 30)], ids=str)
def test_bands_are_the_matrices(framing: Framing, transposed: bool) -> None:
    dense = framing.matrices(31, 47)
    for axis, matrix in zip(axes(framing, 31, 47, torch.device("cpu"), transposed=transposed), dense, strict=True):
        want = matrix.T if transposed else matrix
        got = torch.zeros(want.shape)
        for row in range(len(want)):
            start = int(axis.start[row])
            assert 0 <= start <= want.shape[1] - axis.taps
            got[row, start : start + axis.taps] = axis.weights[:, row]
        assert torch.equal(got, want.float())


def test_rows_sum_to_one() -> None:
    for filter_ in ("triangle", "area", "bilinear"):
        for matrix in Framing((0, 0.3, 0.7, 1), 5, filter_).matrices(11, 200):
            assert torch.allclose(matrix.sum(dim=1), torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"box": (0.5, 0.2, 0, 1)}, "0.5"),
        ({"box": (0, 1, 0, 1.2)}, "1.2"),
        ({"size": 0}, "0"),
        ({"filter": "lanczos"}, "lanczos"),
        ({"resize_first": 0}, "at least 1"),
        ({"order": (0, 0, 1)}, r"\(0, 0, 1\)"),
        ({"scale": (1.0, 0.0, 1.0)}, "zero"),
    ],
)
def test_framing_without_meaning_is_refused(change: dict, said: str) -> None:
    with pytest.raises(KernelError, match=said):
        Framing(**({"box": BOX, "size": 4} | change))
