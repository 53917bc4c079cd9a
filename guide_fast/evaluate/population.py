"""The base generator's side of an evaluation: people it makes, measured once, cached on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from guide_fast.artifacts import weights_sha256
from guide_fast.config import EvaluateConfig
from guide_fast.derived import derived
from guide_fast.errors import UsageError
from guide_fast.evaluate.observe import Network, counter, observe
from guide_fast.evaluate.thumbnails import SMALL
from guide_fast.models.generator import Generator
from guide_fast.models.identity import IdentityNetwork
from guide_fast.progress import Progress, silent

FORMAT = 1  # raise it when what is measured changes: older cache files are then measured anew
FALSE_MATCH_RATE = 1e-3


@dataclass(frozen=True)
class Population:
    """`fd_images` people of the base generator, in the order of `population_z`."""

    embeddings: dict[str, Tensor]  # role -> fp32 [N, D]; "judge", "perceptual", perhaps others
    thumbnails: Tensor  # uint8 [B, 3, 128, 128], the bystanders


def population_z(generator: Generator, config: EvaluateConfig) -> Tensor:
    """The z [fd_images, Z] of everybody; the first `bystanders` are the bystanders."""
    rng = torch.Generator().manual_seed(config.seed)
    return torch.randn(config.fd_images, generator.z_dim, generator=rng).to(generator.w_mean.device)


def measure_population(
    base: Generator,
    networks: Mapping[str, Network],
    *,
    config: EvaluateConfig,
    cache_dir: Path | None = None,
    progress: Progress = silent,
) -> Population:
    """Render and embed everybody, or read it from `cache_dir` when the same was measured before.

    The cache file belongs to the weights of the generator with those of all networks, so it can never serve another's
    numbers. A damaged or mismatched one is logged as a warning and measured anew; a cache that cannot be written costs
    a warning only. Raises UsageError when the sample sizes do not make sense.
    """
    check_sizes(config)

    def measure() -> dict[str, Tensor]:
        tick = counter(progress, "population", config.fd_images)
        with torch.inference_mode():
            ws = base.mapping(population_z(base, config))
        seen = observe(base, ws, networks, batch=config.batch, thumbnail=SMALL, tick=tick)
        return {**seen.embeddings, "thumbnails": seen.thumbnails[: config.bystanders].clone()}

    tensors = derived(cache_dir, "population", "population", _key(base, networks, config), measure)
    return Population({role: value for role, value in tensors.items() if role != "thumbnails"}, tensors["thumbnails"])


def check_sizes(config: EvaluateConfig) -> None:
    """Raises UsageError naming the first sample size that does not make sense."""
    for name, least in (("fd_images", 3), ("bystanders", 1), ("stranger_pairs", 2), ("batch", 1), ("neighbours", 0)):
        if getattr(config, name) < least:
            raise UsageError(f"evaluate.{name} is {getattr(config, name)}; give {least} or more")
    if config.bystanders > config.fd_images:
        raise UsageError(
            f"evaluate.bystanders is {config.bystanders}, but only evaluate.fd_images = {config.fd_images} people "
            "are rendered; lower the first or raise the second"
        )


def strangers(
    network: IdentityNetwork,
    embeddings: Tensor,  # [N, D]
    config: EvaluateConfig,
) -> tuple[float, float]:
    """Mean with standard deviation of the similarity of `stranger_pairs` distinct pairs of different people.

    All pairs when there are fewer than asked for; which ones depends on the seed alone.
    """
    first, second = torch.triu_indices(len(embeddings), len(embeddings), offset=1)
    picked = torch.randperm(len(first), generator=torch.Generator().manual_seed(config.seed))[: config.stranger_pairs]
    similarity = network.similarity(embeddings[first[picked]], embeddings[second[picked]]).double()
    return float(similarity.mean()), float(similarity.std())


def match_threshold(
    network: IdentityNetwork,
    embeddings: Tensor,  # [N, D]
    rate: float = FALSE_MATCH_RATE,
) -> float:
    """The lowest similarity above which at most `rate` of all distinct pairs of different people lie.

    Two images match when their similarity is greater than it.
    """
    rows = (
        network.similarity(embeddings[i].expand(len(embeddings) - i - 1, -1), embeddings[i + 1 :])
        for i in range(len(embeddings) - 1)
    )
    similarity = torch.cat(list(rows)).sort(descending=True).values
    return float(similarity[int(rate * len(similarity))])


def _key(base: Generator, networks: Mapping[str, Network], config: EvaluateConfig) -> dict[str, Any]:
    label = getattr(base, "label", None)  # of a conditional generator
    return {
        **({} if label is None else {"label": label.tolist()}),
        "format": FORMAT,
        "generator": base.name,
        "weights": weights_sha256(cast(nn.Module, base)),
        "resolution": base.img_resolution,
        "networks": {role: [network.name, weights_sha256(network)] for role, network in sorted(networks.items())},
        "fd_images": config.fd_images,
        "bystanders": config.bystanders,
        "seed": config.seed,
    }
