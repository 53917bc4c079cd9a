"""Benchmarks of the library; they print no figure before its correctness gate has passed."""
