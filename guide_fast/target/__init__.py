"""The latent that takes the forgotten person's place."""

from guide_fast.target.target import choose_target

__all__ = ["choose_target"]
