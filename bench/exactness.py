"""How far our generators are from published outputs, fp32 on a CPU: largest difference over the output's range.

Run it as `python -m guide_fast.bench.exactness [--fixtures FOLDER]` from the root of the repository, with the weights
in the cache. The fixtures (small checkpoints with outputs of the published code) are not part of the repository.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guide_fast import load_generator
from guide_fast.bench.record import provenance, write
from guide_fast.models.checkpoint import read_checkpoint
from guide_fast.models.loading import from_tensors

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
LIMIT = {"mobilestylegan": 1e-3}  # of the range, of others 1e-4; asked for: 2e-3 of a range of 2
STYLEGAN2 = {  # key -> the latents it was made from, the noise
    "image": ("ws", "const"),
    "image_nonoise": ("ws", "none"),
    "image_wplus": ("wplus", "const"),
}


def main() -> int:
    """Run, print, store; 1 when something is further off than LIMIT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fixtures", type=Path, default=Path("../shared/fixtures"))
    folder: Path = parser.parse_args().fixtures
    with torch.inference_mode():
        rows = {
            name: _stylegan2(folder, folder / f"{name}.pkl") for name in ("stylegan2_64", "stylegan2_cond_32_resnet")
        }
        rows["rosinality_64"] = _rosinality(folder)
        rows["eg3d_tiny"] = _eg3d(folder)
        rows["mobilestylegan"] = _mobile(folder)
    for name, row in rows.items():
        print(name, {key: f"{value:.1e}" for key, value in row.items()})
    print(write("exactness", "cpu", {"provenance": provenance(), "of_range": rows}))
    return int(any(value > LIMIT.get(name, 1e-4) for name, row in rows.items() for value in row.values()))


def _off(found: Tensor, wanted: Tensor) -> float:
    assert found.shape == wanted.shape, (found.shape, wanted.shape)
    return ((found - wanted).abs().max() / (wanted.max() - wanted.min())).item()


def _expected(folder: Path, name: str) -> dict[str, Tensor]:
    with np.load(folder / f"{name}.expected.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def _generator(path: Path) -> Any:
    published = read_checkpoint(path)
    return from_tensors(published.tensors, published.config)


def _stylegan2(folder: Path, path: Path) -> dict[str, float]:
    generator, expected = _generator(path), _expected(folder, path.stem)
    if "ws" not in expected:
        expected["ws"] = expected["w"][:, None].expand(-1, generator.num_ws, -1)
    return {
        key: _off(generator.synthesis(expected[source], noise=noise).image, expected[key])
        for key, (source, noise) in STYLEGAN2.items()
        if key in expected
    }


def _rosinality(folder: Path) -> dict[str, float]:
    from published_files import rosinality  # type: ignore[import-not-found]  # of tests/

    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / "rosinality_64.pt"
        torch.save(rosinality(folder / "rosinality_64.keys.json", torch.zeros(64)), path)
        return _stylegan2(folder, path)


def _eg3d(folder: Path) -> dict[str, float]:
    generator, expected = _generator(folder / "eg3d_tiny.pkl"), _expected(folder, "eg3d_tiny")
    made = generator.synthesis(expected["ws_psi07_cutoff14"], expected["c"])
    return {
        "planes_every4": _off(made.planes[:, :, ::4, ::4], expected["planes_every4"]),
        "image_raw": _off(made.image_raw, expected["image_raw"]),
        "image_every4": _off(made.image[:, :, ::4, ::4], expected["image_every4"]),
    }


def _mobile(folder: Path) -> dict[str, float]:
    generator, expected = load_generator(low_resolution=False), _expected(folder, "mobilestylegan")
    image = generator.synthesis(generator.mapping(expected["z"])).image
    wanted = next(value for key, value in expected.items() if key.startswith("image"))
    step = image.shape[-1] // wanted.shape[-1]
    return {"image": _off(image[..., ::step, ::step], wanted)}


if __name__ == "__main__":
    raise SystemExit(main())
