"""The frozen networks of a run, by role."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

from guide_fast import brought, built
from guide_fast.built import SMALL_ENCODER
from guide_fast.errors import GuideFastError, IntegrityError
from guide_fast.ltu import Networks
from guide_fast.models.encoders import BROUGHT_ENCODERS, Encoder, family_of, load_encoder
from guide_fast.models.generator import Generator
from guide_fast.models.identity import IdentityNetwork, load_identity
from guide_fast.models.perceptual import PerceptualNetwork, load_perceptual

JUDGE, THIRD, LOSS_IDENTITY, PERCEPTUAL = "faceres", "mobileface", "dlib-resnet-v1", "efficientnet-lite0"
CURRICULARFACE, INCEPTION = "curricularface-ir101", "inception-v3-fid"


class Brought(NamedTuple):
    """Networks that an evaluation looks through besides, each None unless the user brought it."""

    curricularface: IdentityNetwork | None
    inception: PerceptualNetwork | None


def loss_networks() -> Networks:
    """What the losses look through; the judge is never among them."""
    return Networks(load_identity(LOSS_IDENTITY), load_perceptual())


def judges() -> tuple[IdentityNetwork, IdentityNetwork]:
    """Judge with third opinion; raises GuideFastError, naming the one that cannot be had, before any work is done."""
    return _held_out(JUDGE, "held-out judge"), _held_out(THIRD, "third opinion")


def brought_networks() -> Brought:
    """What the user brought for evaluations: further numbers, never in the place of a judge or in a loss.

    Raises IntegrityError when what was brought has changed since.
    """
    return Brought(
        load_identity(CURRICULARFACE) if brought.available(CURRICULARFACE) else None,
        load_perceptual(INCEPTION) if brought.available(INCEPTION) else None,
    )


def brought_notices(metrics: Mapping[str, Any], encoder: str | None = None) -> list[str]:
    """Under which licence the brought networks behind `metrics` came, with the encoder that found the latent."""
    used = [known for known in brought.list_brought() if known.metric in metrics or known.name == encoder]
    return [f"{known.name}: {known.licence}." for known in used]


def fitting_encoder(generator: Generator) -> str | None:
    """The encoder that inversions on `generator` start from; None when there is none.

    The first of `BROUGHT_ENCODERS` that was brought and fits, else the small one where that was built for it. Raises
    IntegrityError when a file that was brought is damaged.
    """
    for name, family in BROUGHT_ENCODERS.items():
        if family == family_of(generator) and brought.available(name):
            config = brought.recorded(name)["config"]
            if (config.get("num_ws"), config.get("w_dim")) == (generator.num_ws, generator.w_dim):
                return name
    return SMALL_ENCODER if built.encoder_path(generator).is_file() else None


def encoder_version(generator: Generator) -> str | None:
    """Name and bytes of that encoder, as they were recorded."""
    name = fitting_encoder(generator)
    if name is None:
        return None
    metadata = (
        built.encoder_metadata(built.encoder_path(generator)) if name == SMALL_ENCODER else brought.recorded(name)
    )
    return f"{name} {metadata['sha256']}"


def encoder_for(generator: Generator, networks: Networks) -> Encoder | None:
    """What an inversion on `generator` starts from, verified; None leaves it to samples."""
    name = fitting_encoder(generator)
    if name == SMALL_ENCODER:
        path = built.encoder_path(generator)
        return built.load_encoder(path, identity=networks.identity, perceptual=networks.perceptual)
    return load_encoder(name) if name is not None else None


def judge_unless(*, force: bool) -> IdentityNetwork | None:
    """The judge; None, with a warning, only where `force` goes on without a check of the inversion."""
    try:
        return load_identity(JUDGE)
    except GuideFastError as error:
        if not force or isinstance(error, IntegrityError):
            raise
        warnings.warn(f"the inversion is not checked, as --force asks: {error}", stacklevel=3)
        return None


def _held_out(name: str, role: str) -> IdentityNetwork:
    try:
        return load_identity(name)
    except GuideFastError as error:
        raise type(error)(f"the {role} is missing and nothing may stand in for it: {error}") from None
