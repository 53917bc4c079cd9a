"""The frozen networks of a run, by role."""

from __future__ import annotations

import warnings

from guide_fast.errors import GuideFastError, IntegrityError
from guide_fast.ltu import Networks
from guide_fast.models.identity import IdentityNetwork, load_identity
from guide_fast.models.perceptual import load_perceptual

JUDGE, THIRD, LOSS_IDENTITY, PERCEPTUAL = "faceres", "mobileface", "dlib-resnet-v1", "efficientnet-lite0"


def loss_networks() -> Networks:
    """What the losses look through; the judge is never among them."""
    return Networks(load_identity(LOSS_IDENTITY), load_perceptual())


def judges() -> tuple[IdentityNetwork, IdentityNetwork]:
    """Judge with third opinion; raises GuideFastError, naming the one that cannot be had, before any work is done."""
    return _held_out(JUDGE, "held-out judge"), _held_out(THIRD, "third opinion")


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
