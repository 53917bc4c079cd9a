"""One Adam step of all tensors in one launch."""
