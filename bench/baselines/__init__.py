"""What the kernels are compared with, written for this comparison."""
