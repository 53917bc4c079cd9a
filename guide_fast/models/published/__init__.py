"""Readers of the published checkpoint formats; `guide_fast.models.checkpoint` is their door."""
