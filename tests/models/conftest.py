"""What tests of the networks share: original weight files, synthetic images, finite differences."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from guide_fast import assets
from guide_fast.models.identity import IdentityNetwork

Asset = tuple[dict[str, Tensor], dict[str, Any]]


@pytest.fixture(scope="session")
def source_files(asset_or_skip: Callable[[str], Asset]) -> Callable[[str], dict[str, Path]]:
    """The published files behind an asset, by basename, skipping the test when they cannot be had."""

    def files(name: str) -> dict[str, Path]:
        asset_or_skip(name)
        pin = assets.asset(name)
        folder = assets.home() / "sources" / pin.archive.slug
        if not all((folder / file.name).is_file() for file in pin.files):
            assets.fetch(name, force=True)
        return {file.name: folder / file.name for file in pin.files}

    return files


@pytest.fixture(scope="session")
def smooth_images() -> Callable[..., Tensor]:
    """Seeded images with structure at every scale: `smooth_images(n, size)` -> [n, 3, size, size] in [-1, 1]."""

    def images(count: int, size: int, *, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        total = torch.zeros(count, 3, size, size)
        for cells in (3, 7, 19, 53):
            noise = torch.randn(count, 3, cells, cells, generator=generator)
            total += F.interpolate(noise, size=(size, size), mode="bicubic") / 2
        return total.clamp(-1, 1)

    return images


@pytest.fixture(scope="session")
def photo() -> Callable[..., Tensor]:
    """`photo(path, size)` -> [1, 3, size, size] RGB in [-1, 1]."""

    def read(path: Path, size: int = 512) -> Tensor:
        image = pytest.importorskip("PIL.Image").open(path).convert("RGB")
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
        return F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)

    return read


@pytest.fixture(scope="session")
def assert_gradient() -> Callable[..., None]:
    """`assert_gradient(function, x)`: the gradient of a scalar function at `x` (fp64) agrees with central differences.

    Compared along random directions, to `tolerance` of the larger slope.
    """

    def check(
        function: Callable[[Tensor], Tensor],
        x: Tensor,
        *,
        directions: int = 3,
        step: float = 1e-6,
        tolerance: float = 1e-5,
    ) -> None:
        x = x.detach().double().requires_grad_()
        (gradient,) = torch.autograd.grad(function(x), x)
        generator = torch.Generator().manual_seed(0)
        for _ in range(directions):
            direction = torch.randn(x.shape, generator=generator, dtype=torch.float64)
            direction = direction / direction.norm() * x.shape[-1]
            with torch.no_grad():
                ahead, behind = function(x + step * direction), function(x - step * direction)
            measured, derived = float((ahead - behind) / (2 * step)), float((gradient * direction).sum())
            scale = max(abs(measured), abs(derived))
            assert scale > 0, "the function does not depend on its input"
            assert abs(measured - derived) <= tolerance * scale, f"slope {derived} where differences give {measured}"

    return check


@pytest.fixture(scope="session")
def run_tfjs(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, str, Tensor], Tensor]:
    """`run_tfjs(model_json, node, images)`: TF.js' output of `node` for NHWC images, skipping where it is absent."""
    node = shutil.which("node")
    modules = repository / ".cache" / "npm" / "node_modules"
    if node is None or not (modules / "@tensorflow" / "tfjs-core").is_dir():
        pytest.skip("TF.js is absent: install Node.js, then `make setup` brings it")
    folder = tmp_path_factory.mktemp("tfjs")
    script = repository / "tests" / "models" / "run_graph.cjs"

    def run(model: Path, output: str, images: Tensor) -> Tensor:
        files = folder / "input.bin", folder / "output.bin"
        images.numpy().astype("<f4").tofile(files[0])
        shape = ",".join(map(str, images.shape))
        command = [node, str(script), str(model), output, str(files[0]), shape, str(files[1])]
        environment = os.environ | {"NODE_PATH": str(modules)}
        done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        result = np.fromfile(files[1], dtype="<f4")
        return torch.from_numpy(result.reshape([int(side) for side in done.stdout.split()[-1].split(",")]))

    return run


@pytest.fixture(scope="session")
def assert_separates(shared: Path, photo: Callable[..., Tensor]) -> Callable[[IdentityNetwork], tuple[Tensor, Tensor]]:
    """`assert_separates(network)`: every pair of photos of one person scores above every pair of strangers.

    Five photos of one person, moved from EG3D to FFHQ framing, ten photos of ten others; returns both similarities.
    """
    one = torch.cat([photo(file) for file in sorted((shared / "photos/eg3d_aligned_512").glob("*.jpg"))])
    others = torch.cat([photo(file) for file in sorted((shared / "photos/celebahq_1024").glob("*.jpg"))])
    down, right = (round(fraction * one.shape[-1]) for fraction in (0.0735, 0.025))
    one = F.pad(one, (right, 0, down, 0), mode="replicate")[:, :, :-down, :-right]

    def check(network: IdentityNetwork) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            a, b = network.embed(one), network.embed(others)
        i, j = torch.combinations(torch.arange(len(a))).T
        k, m = torch.combinations(torch.arange(len(b))).T
        across = torch.cartesian_prod(torch.arange(len(a)), torch.arange(len(b)))
        same = network.similarity(a[i], a[j])
        strangers = torch.cat([network.similarity(b[k], b[m]), network.similarity(a[across[:, 0]], b[across[:, 1]])])
        lowest, highest = float(same.min()), float(strangers.max())
        assert lowest > highest, f"same person down to {lowest:.3f}, strangers up to {highest:.3f}"
        return same, strangers

    return check
