"""Latent target unlearning."""

from guide_fast.ltu.bank import Bank, preservation_bank
from guide_fast.ltu.terms import Networks
from guide_fast.ltu.unlearn import Unlearned, unlearn

__all__ = ["Bank", "Networks", "Unlearned", "preservation_bank", "unlearn"]
