"""Inversion: from a photo to the latent that renders it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from guide_fast.artifacts import Face, Latent
from guide_fast.config import InvertConfig
from guide_fast.errors import GuideFastError, RefusedError, UsageError
from guide_fast.invert.bank import sample_bank, sampled_ws, spread
from guide_fast.invert.objective import Objective
from guide_fast.invert.optimise import Renderer, Search
from guide_fast.invert.state import Snapshot
from guide_fast.models.encoders import Encoder
from guide_fast.models.generator import Generator
from guide_fast.models.identity import IdentityNetwork
from guide_fast.models.perceptual import PerceptualNetwork
from guide_fast.progress import Progress, silent
from guide_fast.resumption import uninterrupted

__all__ = ["Snapshot", "check_similarity", "invert"]


def invert(
    face: Face,
    generator: Generator,
    *,
    identity: IdentityNetwork,
    perceptual: PerceptualNetwork,
    judge: IdentityNetwork | None,
    encoder: Encoder | None = None,
    config: InvertConfig,
    seed: int = 0,
    force: bool = False,
    cache_dir: Path | None = None,
    progress: Progress = silent,
    resume: Snapshot | None = None,
    keep: Callable[[Snapshot], None] | None = None,
) -> Latent:
    """The point of W+ [L, D] whose rendering shows `face`, with the judge's similarity of the two.

    Minimises F(w) = identity * (1 - similarity) + perceptual * distance + pixel * MSE at 64 px + prior * (squared
    Mahalanobis length per coordinate, spread between slots), the weights being those of `config`. It starts from the
    better of the nearest of `config.samples` random latents or a regression over them; `cache_dir` keeps
    those samples for the next photo. With an `encoder` it starts from its code instead, in W+ at once, and no samples
    are rendered; where the mean face is nearer to the photo than the code, a warning says so and the search starts
    there, in W. Without `config.refine` the encoder's code takes `config.quick_steps` steps, no more. `judge` is only
    measured, at full resolution, never optimised. The same seed gives the same latent.

    When the search ends by anything but an error of ours (Ctrl-C, memory), `keep` is given a snapshot of it; from that,
    given as `resume` with the same arguments otherwise, it continues to the same latent, to the bit.

    Raises RefusedError when the similarity is below `config.min_similarity` or there is no judge, unless `force`;
    UsageError when `encoder` does not fit the generator, or is missing where nothing is refined; DivergedError when the
    loss stops being finite.
    """
    if judge is None:
        check_similarity(None, config, force=force)
    if not config.refine:
        if encoder is None:
            raise UsageError(
                f"without refinement an inversion is an encoder's, and none is there for {generator.name}; run "
                "`guide-fast assets build small-encoder`, or refine (invert.refine = true)"
            )
        quick = config.quick_steps
        config = replace(config, steps_w=quick, steps_w_plus=quick, lr=config.quick_lr)
    photo = face.image[None].to(generator.w_mean.device)
    with torch.no_grad():
        objective = Objective(photo, identity=identity, perceptual=perceptual, config=config)
        if resume is not None:
            search = Search.resumed(resume, generator, objective, config=config)
        elif encoder is not None:
            start = _encoded(encoder, photo, generator, objective, config)
            unit = spread(sampled_ws(generator, config.samples, seed)[:, 0], generator.w_mean)
            search = Search(start, generator, objective, spread=unit, config=config)
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
                image = generator.synthesis(found.w[None]).framed
                similarity = judge.similarity(judge.embed(image), judge.embed(photo)).item()
    except GuideFastError:  # going on would end in the same
        raise
    except BaseException:
        if keep is not None and search.snapshot is not None:
            with uninterrupted():  # a second Ctrl-C must not cost what the first was promised
                keep(search.snapshot)
        raise
    check_similarity(similarity, config, force=force)
    notes = {"loss": found.loss, "curve": found.curve, "steps": found.steps, "seed": seed, **found.terms}
    if encoder is not None:
        notes["encoder"] = encoder.name if search.first_phase else None
    return Latent(found.w.float().cpu(), generator.name, f"photo:{face.source_sha256}", similarity, notes)


def _encoded(
    encoder: Encoder, photo: Tensor, generator: Generator, objective: Objective, config: InvertConfig
) -> Tensor:
    """The encoder's code [L, D] for `photo` [1, 3, R, R]; the mean face [D], with a warning, where that is nearer."""
    encoder.check_fits(generator)
    code = encoder.encode(photo, w_mean=generator.w_mean)[0]
    mean = generator.w_mean.expand_as(code)
    renderer = Renderer(generator, config.resolution)
    ours, means = (objective(renderer.exact(w[None])).weighted(config).item() for w in (code, mean))
    if ours <= means:
        return code
    warnings.warn(
        f"{encoder.name} is of no use for this photo (its loss is {ours:.3f}, that of the mean face {means:.3f}), the "
        f"search starts at the mean face; bring an encoder that was trained for {generator.name}",
        stacklevel=4,
    )
    return generator.w_mean


def check_similarity(similarity: float | None, config: InvertConfig, *, force: bool) -> None:
    """Raise RefusedError, unless `force`, when a photo's latent renders somebody else, or nobody has judged that."""
    if force:
        return
    if similarity is None:
        raise RefusedError(
            "the inversion cannot be checked because no judge network is available; "
            "fetch one with `guide-fast assets`, or go on unchecked with --force"
        )
    if similarity < config.min_similarity:
        raise RefusedError(
            f"the inversion shows somebody else: the judge's similarity to the photo is {similarity:.3f}, "
            f"below {config.min_similarity} (invert.min_similarity); try a sharper frontal photo, or use --force"
        )
