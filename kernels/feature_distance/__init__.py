"""Distance of feature maps, unit-normalised over channels, in one pass."""
