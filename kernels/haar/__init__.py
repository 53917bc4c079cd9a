"""Inverse Haar wavelet with style in one pass."""
