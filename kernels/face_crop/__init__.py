"""Crop, resize, normalise in one differentiable kernel."""
