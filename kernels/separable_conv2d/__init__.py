"""Style, wavelet, depthwise 3x3, pointwise product, epilogue in one pass."""
