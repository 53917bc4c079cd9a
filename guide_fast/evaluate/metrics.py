"""The evidence: what a generator still makes of the forgotten person, compared with what it made before."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guide_fast.artifacts import Latent, checked_latent
from guide_fast.config import EvaluateConfig
from guide_fast.errors import GuideFastError, UsageError
from guide_fast.evaluate.frechet import frechet_distance
from guide_fast.evaluate.observe import Network, Observation, counter, observe
from guide_fast.evaluate.population import (
    Population,
    check_sizes,
    match_threshold,
    measure_population,
    population_z,
    strangers,
)
from guide_fast.evaluate.thumbnails import LARGE, SMALL, Pair
from guide_fast.models.generator import Generator
from guide_fast.models.identity import IdentityNetwork
from guide_fast.models.perceptual import PerceptualNetwork
from guide_fast.progress import Progress, silent

MAX_STRANGER_DEVIATIONS = 0.5  # `forgotten` may lie this many deviations above the mean of strangers
MIN_RETAINED = 0.95
OPINIONS = {"third": "third_opinion", "curricularface": "id_curricularface"}  # role -> name in the metrics


@dataclass(frozen=True)
class Evaluation:
    """Numbers by name (plain values that JSON can hold, equal for equal inputs) with the pictures behind them."""

    metrics: dict[str, Any]
    thumbnails: tuple[Pair, ...]  # the person, every neighbour, every bystander


def evaluate(
    base: Generator,
    forgotten: Generator,
    source: Latent,
    *,
    judge: IdentityNetwork | None,
    perceptual: PerceptualNetwork,
    third: IdentityNetwork | None = None,
    curricularface: IdentityNetwork | None = None,
    inception: PerceptualNetwork | None = None,
    config: EvaluateConfig | None = None,
    cache_dir: Path | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Render the same latents with both generators at full resolution, then compare what the networks see.

    `forgotten` is the judge's similarity of before to after, over the person at `source` with its neighbours,
    `retained` the same over bystanders, `fd_pre` the Frechet distance of both generators' images for the same z in the
    features of `perceptual` (FD-EffNetLite0, not FID; biased upwards for few images, so `fd_pre_n` says how many).
    With `curricularface`, `id_curricularface` has the numbers of `third_opinion` by that network; with `inception`,
    `fid_inception` is the distance of `fd_pre` in Inception's features, a FID of few images: both only report.
    For a 3D generator the person is also seen from every evaluation camera, by the judge and by `curricularface`.
    The base side is computed once for each `cache_dir`. Memory: `config.batch` images at a time.

    Raises GuideFastError without a judge, UsageError when sizes, latent or generators do not fit together.
    """
    config = config or EvaluateConfig()
    if judge is None:
        raise GuideFastError(
            "the held-out judge is missing, and no other network may stand in for it; install Node.js, whose npm "
            "fetches it, then run `guide-fast assets fetch faceres`"
        )
    _check(base, forgotten, source, config)
    identity, pooled = _by_role(judge, third, curricularface, perceptual, inception)
    opinions = {role: network for role, network in identity.items() if role != "judge"}
    networks: dict[str, Network] = {**identity, **pooled}
    population = measure_population(base, networks, config=config, cache_dir=cache_dir, progress=progress)

    tick = counter(progress, "evaluate", 2 * (1 + config.neighbours) + config.fd_images)
    ws = person_with_neighbours(base, source.w, config)
    before = observe(base, ws, identity, batch=config.batch, thumbnail=LARGE, tick=tick)
    after = observe(forgotten, ws, identity, batch=config.batch, thumbnail=LARGE, tick=tick)
    with torch.inference_mode():
        people = forgotten.mapping(population_z(base, config))
    kept = observe(forgotten, people[: config.bystanders], networks, batch=config.batch, thumbnail=SMALL, tick=tick)
    features = {role: kept.embeddings[role] for role in pooled}
    if config.fd_images > config.bystanders:
        rest = observe(forgotten, people[config.bystanders :], pooled, batch=config.batch, thumbnail=SMALL, tick=tick)
        features = {role: torch.cat((features[role], rest.embeddings[role])) for role in pooled}

    near = _similarity(judge, "judge", before, after)
    bystanders = judge.similarity(population.embeddings["judge"][: config.bystanders], kept.embeddings["judge"])
    threshold = match_threshold(judge, population.embeddings["judge"])
    stranger_mean, stranger_std = strangers(judge, population.embeddings["judge"], config)
    metrics: dict[str, Any] = {
        "judge": judge.name,
        "forgotten": _mean(near),
        "forgotten_person": float(near[0]),
        "forgotten_neighbours": near[1:].tolist(),
        "forgotten_person_match": bool(near[0] > threshold),
        "match_threshold_fmr_1e3": threshold,
        "stranger_mean": stranger_mean,
        "stranger_std": stranger_std,
        "retained": _mean(bystanders),
        "retained_p05": float(torch.quantile(bystanders.double(), 0.05)),
        "fd_pre": frechet_distance(population.embeddings["perceptual"], features["perceptual"]),
        "fd_pre_n": config.fd_images,
    }
    for role, network in opinions.items():
        metrics[OPINIONS[role]] = _opinion(network, role, population, before, after, kept, config)
    if inception is not None:
        metrics["fid_inception"] = frechet_distance(population.embeddings["inception"], features["inception"])
    if base.cameras is not None:
        seen_by = {role: network for role, network in identity.items() if role != "third"}
        views = _over_views(base, forgotten, source.w, seen_by, base.cameras.evaluation)
        metrics |= {"forgotten_person_views": views["judge"], "forgotten_person_over_views": _over(views["judge"])}
        if curricularface is not None:
            metrics[OPINIONS["curricularface"]]["forgotten_person_over_views"] = _over(views["curricularface"])
    return Evaluation(metrics, _pairs(near, before, after, bystanders, population, kept))


def judged(
    base: Generator,
    student: Generator,
    source: Latent,
    *,
    judge: IdentityNetwork,
    perceptual: PerceptualNetwork,
    third: IdentityNetwork | None = None,
    curricularface: IdentityNetwork | None = None,
    inception: PerceptualNetwork | None = None,
    config: EvaluateConfig,
    cache_dir: Path | None = None,
    progress: Progress = silent,
) -> tuple[float, float]:
    """The judge's similarity of the person before to after at full resolution, the mean of strangers.

    The quick question to ask while steps go on: one latent, two images; the strangers are those of `evaluate`, from
    the same cache.
    """
    identity, pooled = _by_role(judge, third, curricularface, perceptual, inception)
    population = measure_population(base, {**identity, **pooled}, config=config, cache_dir=cache_dir, progress=progress)
    w = source.w.to(base.w_mean)[None]
    seen: dict[str, Network] = {"judge": judge}
    before, after = (
        observe(generator, w, seen, batch=1, thumbnail=SMALL, tick=lambda: None) for generator in (base, student)
    )
    mean, _ = strangers(judge, population.embeddings["judge"], config)
    return float(_similarity(judge, "judge", before, after)[0]), mean


def passed(
    metrics: Mapping[str, Any],
    *,
    max_stranger_deviations: float = MAX_STRANGER_DEVIATIONS,
    min_retained: float = MIN_RETAINED,
) -> list[str]:
    """Why the evidence falls short of the request, one sentence a reason; empty when it holds."""
    reasons = []
    allowed = forgotten_limit(metrics, max_stranger_deviations=max_stranger_deviations)
    if not metrics["forgotten"] <= allowed:  # NaN falls short too
        reasons.append(
            f"The person is not forgotten: similarity before to after is {metrics['forgotten']:.3f}, at most "
            f"{allowed:.3f} was asked for (two strangers score {metrics['stranger_mean']:.3f} "
            f"± {metrics['stranger_std']:.3f})."
        )
    if not metrics["retained"] >= min_retained:
        reasons.append(
            f"Other people changed too much: bystanders kept a similarity of {metrics['retained']:.3f}, at least "
            f"{min_retained:.3f} was asked for."
        )
    return reasons


def forgotten_limit(metrics: Mapping[str, Any], *, max_stranger_deviations: float = MAX_STRANGER_DEVIATIONS) -> float:
    """The highest value of `forgotten` that counts as forgotten."""
    return metrics["stranger_mean"] + max_stranger_deviations * metrics["stranger_std"]


def person_with_neighbours(
    base: Generator,
    w_u: Tensor,  # [L, D]
    config: EvaluateConfig,
) -> Tensor:
    """w_u followed by `neighbours` points w_u + D, [1 + neighbours, L, D], the same for a given seed.

    D = a (w_r - w_u) / |w_r - w_u| with w_r = mapping(z), a ~ U(0, radius), |.| the root mean square over slots of the
    slots' norms (paper section 3.3, lengths per slot as in the configuration).
    """
    rng = torch.Generator().manual_seed(config.seed + 1)  # the population uses the seed itself
    z = torch.randn(config.neighbours, base.z_dim, generator=rng)
    length = torch.rand(config.neighbours, 1, 1, generator=rng) * config.radius
    w_u = w_u.to(base.w_mean)
    if config.neighbours == 0:
        return w_u[None]
    with torch.inference_mode():
        direction = base.mapping(z.to(w_u)) - w_u
        norm = direction.flatten(1).norm(dim=1)[:, None, None] / math.sqrt(base.num_ws)
        return torch.cat((w_u[None], w_u + length.to(w_u) * direction / norm))


def _check(base: Generator, forgotten: Generator, source: Latent, config: EvaluateConfig) -> None:
    check_sizes(config)
    shape = (base.num_ws, base.w_dim)
    if tuple(source.w.shape) != shape:
        raise UsageError(f"the source latent has shape {list(source.w.shape)}; {base.name} takes {list(shape)}")
    checked_latent(source.w, "the source latent")
    if source.generator != base.name:
        raise UsageError(f"the source latent belongs to generator {source.generator!r}, not to {base.name!r}")
    for name in ("num_ws", "w_dim", "z_dim", "img_resolution"):
        if getattr(base, name) != getattr(forgotten, name):
            raise UsageError(
                f"the generators differ in {name} ({getattr(base, name)}, {getattr(forgotten, name)}); give the base "
                "generator with a copy of it that forgot somebody"
            )


def _by_role(
    judge: IdentityNetwork,
    third: IdentityNetwork | None,
    curricularface: IdentityNetwork | None,
    perceptual: PerceptualNetwork,
    inception: PerceptualNetwork | None,
) -> tuple[dict[str, IdentityNetwork], dict[str, Network]]:
    """Networks that tell people apart, networks whose pooled features are compared; those that are there."""
    opinions = {role: n for role, n in (("third", third), ("curricularface", curricularface)) if n is not None}
    pooled: dict[str, Network] = {"perceptual": perceptual}
    if inception is not None:
        pooled["inception"] = inception
    return {"judge": judge, **opinions}, pooled


def _similarity(network: IdentityNetwork, role: str, before: Observation, after: Observation) -> Tensor:
    return network.similarity(before.embeddings[role], after.embeddings[role])


def _over_views(
    base: Generator,
    forgotten: Generator,
    w_u: Tensor,
    networks: Mapping[str, IdentityNetwork],
    cameras: Tensor,  # [V, C]
) -> dict[str, list[float]]:
    """Each network's similarity of the person before to after from each camera: the paper's ID, before its mean."""
    found: dict[str, list[float]] = {role: [] for role in networks}
    w_u = w_u.to(base.w_mean)[None]
    for camera in cameras:
        settings: dict[str, Any] = {"camera": camera, "batch": 1, "thumbnail": SMALL, "tick": lambda: None}
        before, after = (observe(generator, w_u, networks, **settings) for generator in (base, forgotten))
        for role, network in networks.items():
            found[role].append(float(_similarity(network, role, before, after)))
    return found


def _over(views: list[float]) -> float:
    return sum(views) / len(views)


def _opinion(
    network: IdentityNetwork,
    role: str,
    population: Population,
    before: Observation,
    after: Observation,
    kept: Observation,
    config: EvaluateConfig,
) -> dict[str, Any]:
    stranger_mean, stranger_std = strangers(network, population.embeddings[role], config)
    bystanders = network.similarity(population.embeddings[role][: config.bystanders], kept.embeddings[role])
    return {
        "name": network.name,
        "forgotten": _mean(_similarity(network, role, before, after)),
        "retained": _mean(bystanders),
        "stranger_mean": stranger_mean,
        "stranger_std": stranger_std,
    }


def _pairs(
    near: Tensor,  # [1 + K], the judge's similarities
    before: Observation,
    after: Observation,
    bystanders: Tensor,  # [B], the judge's similarities
    population: Population,
    kept: Observation,
) -> tuple[Pair, ...]:
    around = [
        Pair("neighbour" if i else "person", before.thumbnails[i], after.thumbnails[i], float(value))
        for i, value in enumerate(near)
    ]
    others = [
        Pair("bystander", population.thumbnails[i], kept.thumbnails[i], float(value))
        for i, value in enumerate(bystanders)
    ]
    worst = int(bystanders.argmin())
    others[worst] = dataclasses.replace(others[worst], most_changed=True)
    return (*around, *others)


def _mean(values: Tensor) -> float:
    return float(values.double().mean())
