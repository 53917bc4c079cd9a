"""What a run is asked for: checked before any work, described in plain values for whoever resumes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guide_fast._networks import LOSS_IDENTITY, PERCEPTUAL, encoder_version
from guide_fast._run_files import INVERSION, LATENT
from guide_fast.align import read_photo
from guide_fast.artifacts import Latent, checked_latent, rendering_sha256, tensors_sha256
from guide_fast.config import Config
from guide_fast.errors import IntegrityError, UsageError
from guide_fast.invert import Snapshot, check_similarity
from guide_fast.ltu.schedule import candidate_layers
from guide_fast.ltu.switches import settle
from guide_fast.models.generator import Generator
from guide_fast.resumption import check_request, this_version

MIN_IDENTITY = 1e-3  # length of a slot's w_u - w_mean; people lie around 10 from the mean


@dataclass(frozen=True)
class Asked:
    """One request to forget a person: whom, how the face is taken from a photo, the settings."""

    photo: Path | str | None
    seed: int | None
    latent: Latent | Tensor | None
    face: int | None
    aligned: bool
    config: Config

    def check_source(self) -> None:
        """Raises UsageError unless exactly one of photo, seed, latent is given, the photo a readable one."""
        given = [name for name in ("photo", "seed", "latent") if getattr(self, name) is not None]
        if len(given) != 1:
            raise UsageError(
                f"{' and '.join(given) or 'nobody'} given; name the person by exactly one of photo, seed, latent"
            )
        _ = self._photo_sha256

    def check_for(self, generator: Generator) -> tuple[str, ...]:
        """The layers that may move; raises UsageError when layers, resolution or latent do not fit `generator`, or a
        switch cannot be on where it lies."""
        ltu = self.config.ltu
        settle(ltu, generator.w_mean.device)
        layers = candidate_layers(generator, ltu.layers, resolution=ltu.resolution)
        if self.photo is None:
            check_somebody(given_latent(generator, self.seed, self.latent).w, generator)
        return layers

    def described(self, generator: Generator) -> dict[str, Any]:
        """All that decides what a run leaves, in plain values: equal requests are described alike.

        `generator` has its small outputs by now.
        """
        w = None if self.latent is None else given_latent(generator, None, self.latent).w
        settings = self.config.to_dict()
        return {
            **this_version(),
            "photo": self._photo_sha256,
            "seed": self.seed,
            "latent": None if w is None else tensors_sha256({"w": w}),
            "face": self.face,
            "aligned": self.aligned,
            "generator": rendering_sha256(generator, self.config.invert.resolution),
            "identity": LOSS_IDENTITY,
            "perceptual": PERCEPTUAL,
            "encoder": None if self.photo is None else encoder_version(generator),
            **{f"{section}.{key}": value for section, keys in settings.items() for key, value in keys.items()},
        }

    @cached_property
    def _photo_sha256(self) -> str | None:
        return None if self.photo is None else read_photo(self.photo, self.config.align).sha256


def noted(latent: Latent, request: Mapping[str, Any]) -> Latent:
    """`latent` with a note of the request that led to it, by which `resumed` knows it."""
    return replace(latent, notes={**latent.notes, "request": {**request}, "w_sha256": tensors_sha256({"w": latent.w})})


def resumed(folder: Path, request: Mapping[str, Any], config: Config, *, force: bool) -> Latent | Snapshot:
    """What the run stopped in `folder` had come to: the person's latent, or else the inversion under way.

    Raises UsageError when it was left by another request, IntegrityError when it is damaged, RefusedError when it is a
    poor inversion that only `force` let pass.
    """
    file = folder / LATENT
    if not file.is_file():
        return Snapshot.load(folder / INVERSION, request)
    latent = Latent.load(file)
    check_request(file, latent.notes.get("request"), request)
    if latent.notes.get("w_sha256") != tensors_sha256({"w": latent.w}):
        raise IntegrityError(f"the bytes of {file} are damaged; start anew without --resume")
    if request["photo"] is not None:
        check_similarity(latent.similarity, config.invert, force=force)
    return latent


def check_somebody(w: Tensor, generator: Generator) -> None:
    """Raises UsageError when `w` [L, D] is the mean face."""
    if float((w - generator.w_mean.cpu()).norm(dim=1).min()) < MIN_IDENTITY:
        raise UsageError("the latent is the mean face, which is nobody's; give the latent of a person")


def given_latent(generator: Generator, seed: int | None, latent: Latent | Tensor | None) -> Latent:
    """The latent of a seed, or a checked one; raises UsageError when it does not fit the generator."""
    if latent is None:
        assert seed is not None
        z = torch.randn(1, generator.z_dim, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            w = generator.mapping(z.to(generator.w_mean.device))[0]
            return Latent(w.cpu().clone(), generator.name, f"seed:{seed}")
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
