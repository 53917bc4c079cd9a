"""Can an attacker who has a picture of the person find them again in the forgotten generator?

Optimisation-based inversion in W, the same on the original generator and on generators forgotten toward different
targets. Run it as `python -m guide_fast.bench.recovery`; it needs the weights in the cache.
"""

from __future__ import annotations

import argparse
import sys

import torch
from torch import Tensor

from guide_fast.bench.record import provenance, quantiles, write
from guide_fast.config import resolve_config
from guide_fast.deltas import apply_delta
from guide_fast.ltu.terms import Networks, Views, observe
from guide_fast.models.generator import Generator
from guide_fast.models.identity import load_identity
from guide_fast.models.perceptual import load_perceptual
from guide_fast.pipeline import JUDGE, LOSS_IDENTITY, forget, load_generator

# The quality of forgetting is measured by forget_cpu; here only the delta is wanted.
SMALL = {"evaluate.fd_images": 4, "evaluate.bystanders": 2, "evaluate.stranger_pairs": 3, "evaluate.neighbours": 1}


def main() -> int:
    """Attack every arm of every seed, print a table, store the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--targets", nargs="+", default=["ufo", "mean", "surrogate"])
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    networks = Networks(load_identity(LOSS_IDENTITY), load_perceptual())
    judge = load_identity(JUDGE)
    rows = []
    for seed in arguments.seeds:
        original = load_generator()
        with torch.no_grad():
            z = torch.randn(1, original.z_dim, generator=torch.Generator().manual_seed(seed))
            w_u = original.mapping(z)
            wanted = observe(original.synthesis(w_u, resolution=256), networks, keep_features=False)
            person = judge.embed(original.synthesis(w_u).image)
        for target in ("none", *arguments.targets):
            generator = load_generator()
            if target != "none":
                config = resolve_config(None, {}, SMALL | {"target.kind": target, "target.max_similarity": 1.0})
                apply_delta(generator, forget(original, seed=seed, config=config).delta)
            with torch.no_grad():
                before_attack = judge.similarity(judge.embed(generator.synthesis(w_u).image), person).item()
            w = _invert(generator, wanted, networks, steps=arguments.steps)
            with torch.no_grad():
                found = judge.similarity(judge.embed(generator.synthesis(w).image), person).item()
            rows.append({"seed": seed, "target": target, "same_latent": before_attack, "attacked": found})
            print(f"seed {seed}, target {target}: same latent {before_attack:.3f}, attacked {found:.3f}", flush=True)
    arms = {row["target"] for row in rows}
    summary = {arm: quantiles([float(row["attacked"]) for row in rows if row["target"] == arm]) for arm in sorted(arms)}
    path = write(
        "recovery", "cpu", {"provenance": provenance(), "steps": arguments.steps, "rows": rows, "attacked": summary}
    )
    print(path)
    return 0


def _invert(generator: Generator, wanted: Views, networks: Networks, *, steps: int) -> Tensor:
    """The latent of W, [1, L, D], from which the generator comes closest to the wanted view; best of two starts."""
    results = []
    with torch.no_grad():
        z = torch.randn(64, generator.z_dim, generator=torch.Generator().manual_seed(1))
        sampled = generator.mapping(z)[:, 0]
        losses = [_loss(generator, w[None], wanted, networks).item() for w in sampled]
    for start in (generator.w_mean, sampled[min(range(len(losses)), key=losses.__getitem__)]):
        w = start.clone()[None].requires_grad_(True)
        optimizer = torch.optim.Adam([w], lr=0.1)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = 0.1 * min(1.0, 2 * (1 - step / steps))
            loss = _loss(generator, w, wanted, networks)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            results.append((_loss(generator, w, wanted, networks).item(), w.detach()))
    best = min(results, key=lambda result: result[0])[1]
    return best[:, None].expand(-1, generator.num_ws, -1)


def _loss(generator: Generator, w: Tensor, wanted: Views, networks: Networks) -> Tensor:
    ws = w[:, None].expand(-1, generator.num_ws, -1)
    seen = observe(generator.synthesis(ws, resolution=256), networks, keep_features=False)
    identity = 1 - networks.identity.similarity(seen.identity, wanted.identity)
    return (identity + networks.perceptual.distance(seen.taps, wanted.taps)).sum()


if __name__ == "__main__":
    sys.exit(main())
