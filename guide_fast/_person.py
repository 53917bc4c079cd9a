"""Who is to be forgotten: a photo, a seed or a latent, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guide_fast.align import read_photo
from guide_fast.artifacts import Latent, checked_latent
from guide_fast.config import Config
from guide_fast.errors import UsageError
from guide_fast.invert import inverted_for
from guide_fast.models.generator import Generator
from guide_fast.resumption import check_request


def check_source(
    generator: Generator, photo: Path | str | None, seed: int | None, latent: Latent | Tensor | None, config: Config
) -> None:
    """Raises UsageError unless exactly one of photo, seed, latent is given and can be read."""
    given = [name for name, v in (("photo", photo), ("seed", seed), ("latent", latent)) if v is not None]
    if len(given) != 1:
        raise UsageError(
            f"{' and '.join(given) or 'nobody'} given; name the person by exactly one of photo, seed, latent"
        )
    if photo is not None:
        read_photo(photo, config.align)  # bad input fails before anything is loaded
    else:
        given_latent(generator, seed, latent)


def resumed_source(
    file: Path,
    generator: Generator,
    photo: Path | str | None,
    seed: int | None,
    latent: Latent | Tensor | None,
    asked: Mapping[str, Any],
    config: Config,
) -> Latent:
    """The latent of a stopped run; raises UsageError when the request names somebody else or finds them otherwise."""
    source = Latent.load(file)
    if photo is not None:
        sha256 = read_photo(photo, config.align).sha256
        same = source.origin == f"photo:{sha256}"
    else:
        w = given_latent(generator, seed, latent).w
        same = source.origin == f"seed:{seed}" if seed is not None else True
        # mapped on another number of threads, a seed's latent rounds otherwise
        same = same and w.shape == source.w.shape and torch.allclose(w, source.w, rtol=0, atol=1e-3)
    if not same:
        raise UsageError(
            f"{file.parent} holds a stopped run of {source.origin}, of somebody else; choose another --out"
        )
    if photo is not None:
        check_request(file, source.notes.get("request"), inverted_for(sha256, generator, config.invert, asked))
    return source


def given_latent(generator: Generator, seed: int | None, latent: Latent | Tensor | None) -> Latent:
    """The latent of a seed, or a checked one; raises UsageError when it does not fit the generator."""
    if latent is None:
        assert seed is not None
        z = torch.randn(1, generator.z_dim, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            return Latent(generator.mapping(z)[0].clone(), generator.name, f"seed:{seed}")
    if isinstance(latent, Tensor):
        latent = Latent(latent, generator.name, "tensor")
    if latent.generator != generator.name:
        raise UsageError(f"the latent belongs to {latent.generator}, the generator is {generator.name}; invert it anew")
    if latent.w.shape != (generator.num_ws, generator.w_dim):
        raise UsageError(
            f"the latent has shape {list(latent.w.shape)}, {generator.name} takes [{generator.num_ws}, "
            f"{generator.w_dim}]; make one with `guide-fast invert`"
        )
    return replace(latent, w=checked_latent(latent.w, "the latent"))
