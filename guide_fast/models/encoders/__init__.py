"""Encoders: networks that read a photo's latent off the photo."""

from __future__ import annotations

from guide_fast.models.encoders.encoder import Encoder

__all__ = ["Encoder"]
