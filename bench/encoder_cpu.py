"""Inversions from the small encoder next to those by optimisation only, on a CPU: seconds, similarity.

Run it as `python -m guide_fast.bench.encoder_cpu [--photos FOLDER]` with the weights in the cache, the encoder built.
The faces are photos, then people that the generator makes of seeds which no training saw; all arms take each face one
after the other. Networks are loaded, samples rendered beforehand; a time runs from the photo's file to the latent with
the judge's opinion of it. The photos are not part of the repository.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from guide_fast import built, pipeline
from guide_fast._generators import derived_folder
from guide_fast._networks import encoder_for, judge_unless, loss_networks
from guide_fast.align import align
from guide_fast.bench.record import provenance, quantiles, write
from guide_fast.config import Config, InvertConfig
from guide_fast.invert import invert
from guide_fast.models.detection import load_detector

REQUESTED_SECONDS = 3.0
FIRST_SEED = 50_000
SUFFIXES = {".jpg", ".jpeg", ".png"}


def arms(config: InvertConfig) -> dict[str, tuple[bool, InvertConfig]]:
    """Name -> whether it starts from the encoder, its settings."""
    return {
        "code": (True, replace(config, refine=False, quick_steps=0)),
        "quick": (True, replace(config, refine=False)),
        "half": (True, replace(config, steps_w_plus=config.steps_w_plus // 2)),
        "refined": (True, config),
        "samples_quick": (False, replace(config, steps_w=0, steps_w_plus=config.quick_steps, lr=config.quick_lr)),
        "samples": (False, config),
    }


def main() -> int:
    """Run, print, store; 1 when a requested bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, default=Path("../shared/photos/celebahq_1024"))
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--arms", nargs="+", default=list(arms(InvertConfig())), choices=list(arms(InvertConfig())))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bench = _Bench()
    rows = []
    with tempfile.TemporaryDirectory(prefix="encoder-cpu-") as folder:
        photos = sorted(path for path in arguments.photos.glob("*") if path.suffix.lower() in SUFFIXES)
        seeds = range(FIRST_SEED, FIRST_SEED + arguments.seeds)
        generated = [Path(folder) / f"{seed}.png" for seed in seeds]
        for path, image in zip(generated, pipeline.render(bench.generator, seeds=seeds), strict=True):
            image.save(path)
        for name in ("quick", "samples_quick"):  # a first time, in which samples are rendered
            bench.inverted(generated[0], name, aligned=True)
        for path in (*photos, *generated):
            for name in arguments.arms:
                rows.append(bench.inverted(path, name, aligned=path in generated))
                print(rows[-1], flush=True)
    summaries = {
        "photos": _summary([row for row in rows if not row["generated"]]),
        "generated": _summary([row for row in rows if row["generated"]]),
    }
    quick = [row["seconds"] for row in rows if row["arm"] == "quick" and not row["generated"]]
    reached = bool(quick) and quantiles(quick)["median"] <= REQUESTED_SECONDS
    bounds = {"quick_seconds": REQUESTED_SECONDS, "quick_seconds_reached": reached}
    result = {"provenance": provenance(), "encoder": bench.built, "rows": rows, "bounds": bounds} | summaries
    print(write("encoder_cpu", "cpu", result))
    for kind, summary in summaries.items():
        for name, arm in summary.items():
            print(f"{kind} {name}: {arm['seconds']['median']:.2f} s, similarity {arm['similarity']['median']:.3f}")
    return 0 if reached else 1


class _Bench:
    """Everything loaded, ready to invert."""

    def __init__(self) -> None:
        self.generator, self._networks = pipeline.load_generator(), loss_networks()
        self._judge, self._detector, self._config = judge_unless(force=False), load_detector(), Config()
        self._encoder = encoder_for(self.generator, self._networks)
        if self._encoder is None or self._encoder.name != built.SMALL_ENCODER:
            raise SystemExit(f"the small encoder of {self.generator.name} is not there; {built.WAY}")
        self.built = built.encoder_metadata(built.encoder_path(self.generator))
        self.arms = arms(self._config.invert)

    def inverted(self, path: Path, name: str, *, aligned: bool) -> dict[str, Any]:
        """One inversion as a row."""
        starts_at_code, settings = self.arms[name]
        started = time.perf_counter()
        face = align(path, detector=self._detector, config=self._config.align, face=None, aligned=aligned)
        found = time.perf_counter()
        latent = invert(
            face,
            self.generator,
            identity=self._networks.identity,
            perceptual=self._networks.perceptual,
            judge=self._judge,
            encoder=self._encoder if starts_at_code else None,
            config=settings,
            force=True,
            cache_dir=derived_folder(),
        )
        return {
            "face": path.stem,
            "generated": aligned,
            "arm": name,
            "seconds": time.perf_counter() - started,
            "seconds_to_align": found - started,
            "similarity": latent.similarity,
            "loss": latent.notes["loss"],
            "steps": latent.notes["steps"],
        }


def _summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Arm -> quantity -> quantiles over faces."""
    quantities = ("seconds", "seconds_to_align", "similarity", "loss")
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in dict.fromkeys(row["arm"] for row in rows):
        mine = [row for row in rows if row["arm"] == name]
        found[name] = {quantity: quantiles([row[quantity] for row in mine]) for quantity in quantities}
    return found


if __name__ == "__main__":
    sys.exit(main())
