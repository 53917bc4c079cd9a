"""Up-sampling, FIR filter, down-sampling in one pass."""
