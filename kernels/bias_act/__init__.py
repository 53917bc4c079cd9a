"""Bias, activation, gain, clamp in one pass."""
