"""Inversion: from a photo to the latent that renders it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from guide_fast.artifacts import Face, Latent, rendering_sha256
from guide_fast.config import InvertConfig
from guide_fast.errors import GuideFastError, RefusedError
from guide_fast.invert.bank import sample_bank
from guide_fast.invert.objective import Objective
from guide_fast.invert.optimise import Renderer, Search
from guide_fast.invert.state import InversionState
from guide_fast.models.generator import Generator
from guide_fast.models.identity import IdentityNetwork
from guide_fast.models.perceptual import PerceptualNetwork
from guide_fast.progress import Progress, silent
from guide_fast.resumption import uninterrupted

__all__ = ["InversionState", "invert", "inverted_for"]


def inverted_for(
    photo_sha256: str, generator: Generator, config: InvertConfig, asked: Mapping[str, Any]
) -> dict[str, Any]:
    """What a latent was searched for, as its notes keep it under "request": plain values.

    `asked` says how the face was taken from the photo (`face`, `aligned`).
    """
    return {"photo": photo_sha256, **asked, "generator": rendering_sha256(generator, config.resolution)}


def invert(
    face: Face,
    generator: Generator,
    *,
    identity: IdentityNetwork,
    perceptual: PerceptualNetwork,
    judge: IdentityNetwork | None,
    config: InvertConfig,
    seed: int = 0,
    force: bool = False,
    cache_dir: Path | None = None,
    progress: Progress = silent,
    asked: Mapping[str, Any] | None = None,
    resume: Path | None = None,
    keep: Callable[[InversionState], None] | None = None,
) -> Latent:
    """The point of W+ [L, D] whose rendering shows `face`, with the judge's similarity of the two.

    Minimises F(w) = identity * (1 - similarity) + perceptual * distance + pixel * MSE at 64 px + prior * (squared
    Mahalanobis length per coordinate, spread between slots), the weights being those of `config`. It starts from the
    better of the nearest of `config.samples` random latents or a regression over them; `cache_dir` keeps
    those samples for the next photo. `judge` is only measured, at full resolution, never optimised. The same seed gives
    the same latent.

    When the search ends by anything but an error of ours (Ctrl-C, memory), `keep` is given its state; from the file in
    which that was saved, `resume` continues to the same latent, to the bit. `asked` is noted with the latent.

    Raises RefusedError when the similarity is below `config.min_similarity` or there is no judge, unless `force`;
    GuideFastError when the loss stops being finite; UsageError when the state to resume was left by another request.
    """
    if judge is None and not force:
        raise RefusedError(
            "the inversion cannot be checked because no judge network is available; "
            "fetch one with `guide-fast assets`, or go on unchecked with --force"
        )
    photo = face.image[None].to(generator.w_mean.device)
    origin = inverted_for(face.source_sha256, generator, config, asked or {})
    networks = {"identity": identity.name, "perceptual": perceptual.name}
    request = origin | networks | {"seed": seed} | {f"invert.{key}": value for key, value in asdict(config).items()}
    state = InversionState.load(resume, request) if resume is not None else None
    with torch.no_grad():
        objective = Objective(photo, identity=identity, perceptual=perceptual, config=config)
        if state is not None:
            search = Search.resumed(state.snapshot, generator, objective, config=config)
        else:
            bank = sample_bank(
                generator,
                identity=identity,
                perceptual=perceptual,
                samples=config.samples,
                resolution=Renderer(generator, config.resolution).low,
                seed=seed,
                cache_dir=cache_dir,
                progress=progress,
            )
            guesses = bank.guesses(photo, identity=identity, perceptual=perceptual, w_mean=generator.w_mean)
            renderer = Renderer(generator, config.resolution)
            slots = guesses[:, None].expand(-1, generator.num_ws, -1)
            losses = [objective(renderer.exact(slot[None])).weighted(config).item() for slot in slots]
            start = guesses[min(range(len(losses)), key=losses.__getitem__)]
            search = Search(start, generator, objective, spread=bank.spread(generator.w_mean), config=config)
    try:
        found = search.run(progress)
        similarity = None
        if judge is not None:
            with torch.no_grad():
                image = generator.synthesis(found.w[None]).image
                similarity = judge.similarity(judge.embed(image), judge.embed(photo)).item()
    except GuideFastError:  # going on would end in the same
        raise
    except BaseException:
        if keep is not None and search.snapshot is not None:
            with uninterrupted():  # a second Ctrl-C must not cost what the first was promised
                keep(InversionState(request, search.snapshot))
        raise
    if similarity is not None and similarity < config.min_similarity and not force:
        raise RefusedError(
            f"the inversion shows somebody else: the judge's similarity to the photo is {similarity:.3f}, "
            f"below {config.min_similarity} (invert.min_similarity); try a sharper frontal photo, or use --force"
        )
    notes = {"loss": found.loss, "curve": found.curve, "steps": found.steps, "seed": seed, **found.terms}
    notes["request"] = origin
    return Latent(found.w.float().cpu(), generator.name, f"photo:{face.source_sha256}", similarity, notes)
