"""Encoders: networks that read a photo's latent off the photo, with the door that loads one by name."""

from __future__ import annotations

from guide_fast.errors import UsageError
from guide_fast.models.encoders.encoder import Encoder, family_of

__all__ = ["BROUGHT_ENCODERS", "Encoder", "family_of", "load_encoder"]

# By the user: name -> the family of generators it is for, the first one that fits being taken. e4e stays nearer to
# what a generator makes, pSp nearer to the photo; a search refines either.
BROUGHT_ENCODERS = {"e4e-stylegan2": "stylegan2", "psp-stylegan2": "stylegan2", "goae-eg3d": "eg3d"}


def load_encoder(name: str) -> Encoder:
    """The encoder called `name` with the weights brought for it; frozen, CPU, float32.

    Raises UsageError for a name outside `BROUGHT_ENCODERS`; what `guide_fast.brought.load` raises passes through.
    """
    if name not in BROUGHT_ENCODERS:
        raise UsageError(f"unknown encoder {name!r}; choose one of {', '.join(BROUGHT_ENCODERS)}")
    from guide_fast import brought

    tensors, config = brought.load(name)
    if name == "goae-eg3d":
        from guide_fast.models.encoders.goae import GOAE

        return GOAE(tensors, config)
    from guide_fast.models.encoders.gradual_style import GradualStyle

    return GradualStyle(tensors, config)
